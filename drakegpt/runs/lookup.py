"""Which runs are meant: by folder, by name, by model, by settings, or the best there is."""

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drakegpt import home
from drakegpt.config import MODEL_NAMES, TrainConfig, incidental_settings
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.errors import RunError, UsageError, suggest_name
from drakegpt.evaluation.scoring import Score
from drakegpt.runs.run import CHANGEABLE, Run, list_runs, open_run, with_changes
from drakegpt.runs.scores import known_tail, known_validation
from drakegpt.runs.session import is_training
from drakegpt.runs.weights_file import PretrainedModel, pretrained_from_file, pretrained_from_run
from drakegpt.wording import format_command

log = logging.getLogger("drakegpt")

# Settings that may differ between runs that count as the same.
INCIDENTAL = incidental_settings()


def find_run(target: str | None, *, scaled: bool = False, data: str | None = None) -> Run:
    """The run that `target` names: a folder, a run's name, or a model (its latest run).

    Where all runs of a model are trials, that of its latest sweep with the lowest
    loss on what that sweep chooses by. Without
    a target: the run with the lowest validation loss on `data` or else on the
    default dataset; runs on different texts cannot be ranked. `scaled` asks for
    the scaled size. Raises `RunError` with the command that would make such a
    run, `CorpusError` for a dataset that is not there, `UsageError` for an empty
    target.
    """
    model = _as_model(target)
    if target and not model:
        if folder := _folder_of(target):
            return open_run(folder)
        raise RunError(
            f"There is no model, run or folder named '{target}'.",
            f"{suggest_name(target, MODEL_NAMES)}Models: {', '.join(MODEL_NAMES)}. "
            f"Runs: {_some_names()}.",
        )
    ranked = data or (None if model else dataset.get_default_name())
    runs = [
        run
        for run in (list_runs_on(dataset.load(ranked)) if ranked else list_runs())
        if run.config.model == (model or run.config.model)
        and (run.config.size == "scaled" or not scaled)
        and run.derived != "packed"  # to be asked for by name
    ]
    if not runs:
        on = f" on '{ranked}'" if ranked else ""
        raise RunError(
            f"There is no{' scaled' if scaled else ''} run{f' of {model}' if model else ''}{on}.",
            "Train it: "
            f"`{format_command('train', model or 'TransformerLM', scaled=scaled, data=data)}`.",
        )
    if not model:
        return _best(runs)
    if whole := [run for run in runs if not run.sweep]:
        return whole[-1]
    return _best([run for run in runs if run.sweep == runs[-1].sweep])


def _best(runs: Sequence[Run]) -> Run:
    """The run with the lowest validation loss whose weights are whole; others are told of."""
    problem: RunError | None = None
    for run in sorted(runs, key=selection_loss):
        try:
            run.last_checkpoint()
        except RunError as error:
            problem = problem or error
            log.warning("%s Passing over %s.", error.problem, run.name)
        else:
            return run
    assert problem
    raise problem


def _folder_of(target: str) -> Path | None:
    """The folder of the run of that name or, where there is none, the one at that path."""
    named = home.runs() / target
    if Path(target).name == target and named.is_dir():
        return named
    return Path(os.path.abspath(target)) if Path(target).is_dir() else None  # noqa: PTH100


def find_pretrained(
    target: str | None, *, scaled: bool = False, data: str | None = None
) -> PretrainedModel:
    """Who writes: the run that `find_run` finds, or a file of weights if `target` is one."""
    if target and not _folder_of(target) and Path(target).is_file():
        if scaled or data:
            raise UsageError(
                f"The weights in {target} have a size and a dataset.",
                "Leave --scaled and --data out.",
            )
        return pretrained_from_file(Path(target))
    return pretrained_from_run(find_run(target, scaled=scaled, data=data))


def list_runs_on(data: Dataset) -> list[Run]:
    """The runs on this very version of a dataset that have a checkpoint, oldest first."""
    return [
        run
        for run in list_runs()
        if (run.config.data, run.info["dataset_version"]) == (data.name, data.metadata.version)
    ]


def find_finished(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """Those of `runs`, oldest first, that finished with these very settings; the latest first."""
    return [run for run in _alike(runs, config) if run.finished]


def find_interrupted(runs: Sequence[Run], config: TrainConfig) -> Run | None:
    """The latest of `runs`, oldest first, that was interrupted with these very settings."""
    begun = (run for run in _alike(runs, config) if not run.finished and not run.sweep)
    return next((run for run in begun if not is_training(run) and _can_be_resumed(run)), None)


def _can_be_resumed(run: Run) -> bool:
    """Whether a run has something whole to go on from, or nothing yet to lose."""
    try:
        return not run.checkpoints or bool(run.last_checkpoint())
    except RunError as error:
        log.warning("%s Passing over %s.", error.problem, run.name)
        return False


def _alike(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """The runs, latest first, with these settings, wherever they computed and were kept.

    Not those that had another length at first.
    """
    wanted = identifying_settings(config)
    return [
        run
        for run in reversed(runs)
        if identifying_settings(run.config) == wanted and not run.derived and run.plain
    ]


def identifying_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that make a run what it is: all but `INCIDENTAL`."""
    return {name: value for name, value in asdict(config).items() if name not in INCIDENTAL}


def find_origin(config: TrainConfig) -> Run | None:
    """The run whose last weights a run of `config` starts from, if it does from any."""
    return find_run(config.init_from) if config.init_from else None


def with_current_storage(run: Run, config: TrainConfig) -> Run:
    """The run, from now on computed and kept where `config` says."""
    return with_changes(run, {key: getattr(config, key) for key in CHANGEABLE if key in INCIDENTAL})


def find_unfinished(target: str | None, *, size: str | None = None, data: str | None = None) -> Run:
    """The run to go on with: a folder, a run's name, or a model's latest unfinished run.

    A run that is named may be finished: with more iterations it goes on. Trials
    of a sweep go on by name only. Raises `RunError` if there is none.
    """
    model = _as_model(target)
    if target and not model:
        return find_run(target)
    runs = [
        run
        for run in list_runs(begun=False)
        if not run.finished
        and not run.sweep
        and run.config.model == (model or run.config.model)
        and run.config.size == (size or run.config.size)
        and run.config.data == (data or run.config.data)
    ]
    if not runs:
        raise RunError(
            f"There is no unfinished run{f' of {model}' if model else ''}.",
            "Start one with `drakegpt train MODEL`, or name a finished run and more iterations: "
            "`drakegpt train --resume RUN --iters N`.",
        )
    return runs[-1]


def _as_model(text: str | None) -> str | None:
    """The model of that name, in any case, if there is one; `UsageError` for an empty name."""
    if text is None:
        return None
    if not text.strip():
        raise UsageError("The name of a run is empty.", "`drakegpt runs` lists them.")
    return next((name for name in MODEL_NAMES if name.lower() == text.lower()), None)


def val_loss(run: Run) -> float:
    """The validation loss known of a run: exact if it was scored, else its last estimate.

    Which is of the training split's tail where that was held out. Infinite where it is
    not finite, so that such a run ranks last.
    """
    return _loss(run, known_validation(run))


def selection_loss(run: Run) -> float:
    """The loss by which a run is ranked among the trials of its sweep, known as in `val_loss`."""
    return _loss(run, known_tail(run)) if run.config.holds_out_tail else val_loss(run)


def _loss(run: Run, exact: Score | None) -> float:
    if exact:
        loss = exact.loss
    else:
        loss = float(run.evaluations[-1]["val_loss"]) if run.evaluations else math.inf
    return loss if math.isfinite(loss) else math.inf


def _some_names() -> str:
    names = [run.name for run in list_runs()]
    return ", ".join(names[-5:]) or "none yet; `drakegpt train TransformerLM` makes one"
