"""Finds runs: by folder, name, model or settings, or the best one on a dataset."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt import home
from drakegpt.config import MODEL_NAMES, TrainConfig, find_model, incidental_settings
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.errors import RunError, UsageError, suggest_name
from drakegpt.evaluation.score import Score
from drakegpt.runs.changes import change_settings
from drakegpt.runs.info import CHANGEABLE
from drakegpt.runs.lock import is_training
from drakegpt.runs.run import Run, open_run
from drakegpt.runs.stored_scores import read_tail_score, read_validation_score
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.runs.weights_file import PretrainedModel

log = logging.getLogger("drakegpt")

# Settings that may differ between runs that count as the same.
INCIDENTAL = incidental_settings()
# Words that stand for a run, unless a run has that name.
LATEST, BEST = "latest", "best"


def list_runs(*, with_checkpoint: bool = True) -> list[Run]:
    """List every whole run, oldest first; those without a checkpoint only if asked for."""
    runs, _ = open_all_runs()
    return [run for run in runs if not with_checkpoint or run.checkpoints]


def open_all_runs() -> tuple[list[Run], list[tuple[Path, RunError]]]:
    """Open every run: whole ones, oldest first, and other folders by name with what is wrong."""
    runs: list[Run] = []
    unreadable: list[tuple[Path, RunError]] = []
    parent = home.runs()
    entries = list(os.scandir(parent)) if parent.is_dir() else []
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        folder = parent / entry.name
        try:
            run = open_run(folder)
            _ = run.metrics  # which may be damaged, too
            runs.append(run)
        except RunError as error:
            unreadable.append((folder, error))
    return sorted(runs, key=lambda run: str(run.info["created_at"])), unreadable


def list_runs_on(data: Dataset, runs: Sequence[Run] | None = None) -> list[Run]:
    """List the runs on this version of a dataset that have a checkpoint, oldest first.

    `runs`: all runs, if they were listed already.
    """
    return [
        run
        for run in (list_runs() if runs is None else runs)
        if (run.config.data, run.info["dataset_version"]) == (data.name, data.metadata.version)
    ]


def find_run(target: str | None, *, scaled: bool = False, data: str | None = None) -> Run:
    """Find the run that `target` names.

    It is a run's name or a unique beginning of one, a folder, a model (its latest run),
    `latest`, or `best`, which is the same as no target: the run with the lowest validation
    loss on `data`, or else on the default dataset, for losses on different texts cannot be
    compared. A run's own name wins over a word, a word over a folder, and that over a
    beginning. If all runs of a model are trials, it is the one of its latest sweep with the
    lowest selection loss. `scaled` asks for the scaled size.

    Raises `RunError` with the command that makes such a run, `CorpusError` for a
    missing dataset, `UsageError` for an empty target or the beginning of several names.
    """
    model = _match_model(target)
    word = _match_word(target)
    if target and not (model or word):
        return open_run(_find_folder(target) or _find_by_beginning(target))
    ranked_on = data or (None if model or word == LATEST else dataset.get_default_name())
    runs = [
        run
        for run in (list_runs_on(dataset.load(ranked_on)) if ranked_on else list_runs())
        if run.config.model == (model or run.config.model)
        and (run.config.size == "scaled" or not scaled)
        and run.derived != "packed"  # found by name only
    ]
    if not runs:
        on = f" on '{ranked_on}'" if ranked_on else ""
        raise RunError(
            f"There is no{' scaled' if scaled else ''} run{f' of {model}' if model else ''}{on}.",
            "Train it: "
            f"`{format_command('train', model or 'TransformerLM', scaled=scaled, data=data)}`.",
        )
    if not model and word != LATEST:
        return _find_best(runs)
    if untuned := [run for run in runs if not run.sweep]:
        return untuned[-1]
    return _find_best([run for run in runs if run.sweep == runs[-1].sweep])


def find_pretrained(
    target: str | None, *, scaled: bool = False, data: str | None = None
) -> "PretrainedModel":
    """Find a model to generate with: a weights file, or the run that `find_run` finds."""
    from drakegpt.runs.weights_file import pretrained_from_file, pretrained_from_run

    if target and not _match_word(target) and not _find_folder(target) and Path(target).is_file():
        if scaled or data:
            raise UsageError(
                f"The weights in {target} have a size and a dataset.",
                "Leave --scaled and --data out.",
            )
        return pretrained_from_file(Path(target))
    return pretrained_from_run(find_run(target, scaled=scaled, data=data))


def find_unfinished(target: str | None, *, size: str | None = None, data: str | None = None) -> Run:
    """Find the run to resume: as `find_run` does, but of models and `latest` the unfinished ones.

    A run that is named may be finished, for more iterations extend it. Trials of a
    sweep are found by name only. Raises `RunError` if there is none.
    """
    model = _match_model(target)
    if target and not model and _match_word(target) != LATEST:
        return find_run(target, data=data)
    runs = [
        run
        for run in list_runs(with_checkpoint=False)
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


def find_finished(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """Find those of `runs`, oldest first, that finished with these settings; latest first."""
    return [run for run in _find_equal(runs, config) if run.finished]


def find_interrupted(runs: Sequence[Run], config: TrainConfig) -> Run | None:
    """Find the latest of `runs`, oldest first, that was interrupted with these settings."""
    unfinished = (run for run in _find_equal(runs, config) if not run.finished and not run.sweep)
    return next((run for run in unfinished if not is_training(run) and _can_be_resumed(run)), None)


def _find_equal(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """Find the runs with these settings, latest first, but for the incidental ones.

    Runs whose length was changed are left out: these settings alone do not reproduce them.
    """
    wanted = get_identifying_settings(config)
    return [
        run
        for run in reversed(runs)
        if get_identifying_settings(run.config) == wanted
        and not run.derived
        and run.has_single_part
    ]


def _can_be_resumed(run: Run) -> bool:
    """Whether a run has an intact checkpoint, or none yet; warn if all are damaged."""
    try:
        return not run.checkpoints or bool(run.last_checkpoint())
    except RunError as error:
        log.warning("%s Skipping %s.", error.problem, run.name)
        return False


def get_identifying_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide what a run computes: all but `INCIDENTAL`."""
    return {name: value for name, value in asdict(config).items() if name not in INCIDENTAL}


def apply_incidental_settings(run: Run, config: TrainConfig) -> Run:
    """Return the run with those settings of `config` that say where it computes and is stored."""
    given: Mapping[str, Any] = {
        name: getattr(config, name) for name in CHANGEABLE if name in INCIDENTAL
    }
    return change_settings(run, given)


def get_val_loss(run: Run) -> float:
    """Return the validation loss of a run: the exact one if it was scored, else its last estimate.

    Estimates are of the training split's tail where that was held out. A loss that is
    not finite counts as infinite, so that such a run ranks last.
    """
    return _get_loss(run, read_validation_score(run))


def get_selection_loss(run: Run) -> float:
    """Return the loss that ranks a run among its sweep's trials: on the tail if held out."""
    return _get_loss(run, read_tail_score(run)) if run.config.holds_out_tail else get_val_loss(run)


def _get_loss(run: Run, exact: Score | None) -> float:
    """Return the exact loss, else the last estimate; infinite if there is none or not finite."""
    if exact:
        loss = exact.loss
    else:
        loss = float(run.evaluations[-1]["val_loss"]) if run.evaluations else math.inf
    return loss if math.isfinite(loss) else math.inf


def _find_best(runs: Sequence[Run]) -> Run:
    """Find the run with the lowest selection loss that has an intact checkpoint.

    Warns of runs that rank higher and are damaged; raises `RunError` if all are.
    """
    problem: RunError | None = None
    for run in sorted(runs, key=get_selection_loss):
        try:
            run.last_checkpoint()
        except RunError as error:
            problem = problem or error
            log.warning("%s Skipping %s.", error.problem, run.name)
        else:
            return run
    assert problem
    raise problem


def _match_model(text: str | None) -> str | None:
    """Return the model with that name in any case, if any; `UsageError` for an empty name."""
    if text is None:
        return None
    if not text.strip():
        raise UsageError("The name of a run is empty.", "`drakegpt runs` lists them.")
    return find_model(text)


def _match_word(target: str | None) -> str | None:
    """Return `latest` or `best` if the target is that word, and no run has it as its name."""
    return target if target in (LATEST, BEST) and not (home.runs() / target).is_dir() else None


def _find_by_beginning(target: str) -> Path:
    """Find the only run whose name begins with `target`; raises `UsageError` or `RunError`."""
    names = list_run_names()
    found = [name for name in names if name.startswith(target)]
    if len(found) == 1:
        return home.runs() / found[0]
    if found:
        listed = ", ".join(found[:5]) + (", …" if len(found) > 5 else "")
        raise UsageError(
            f"{pluralize(len(found), 'run')} have names that begin with '{target}': {listed}.",
            "Give more of the name.",
        )
    known = (*MODEL_NAMES, *names, LATEST, BEST)
    raise RunError(
        f"There is no model, run or folder named '{target}'.",
        f"{suggest_name(target, known)}Models: {', '.join(MODEL_NAMES)}. "
        f"Runs: {_list_latest_names()}.",
    )


def list_run_names() -> list[str]:
    """List the names of the folders of runs, sorted, without opening them."""
    parent = home.runs()
    folders = parent.iterdir() if parent.is_dir() else ()
    return sorted(each.name for each in folders if each.name[:1] != "." and each.is_dir())


def _find_folder(target: str) -> Path | None:
    """Find the folder of the run with that name, or else the one at that path."""
    named = home.runs() / target
    if Path(target).name == target and named.is_dir():
        return named
    return Path(os.path.abspath(target)) if Path(target).is_dir() else None  # noqa: PTH100


def _list_latest_names() -> str:
    """List the names of the latest runs, for a message."""
    names = [run.name for run in list_runs()]
    return ", ".join(names[-5:]) or "none yet; `drakegpt train TransformerLM` makes one"
