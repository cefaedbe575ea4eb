"""Which run is meant: by folder, by name, by model, or the best there is."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from drakegpt import paths
from drakegpt.config import MODEL_NAMES, TrainConfig
from drakegpt.data import dataset
from drakegpt.errors import RunError, UsageError
from drakegpt.evaluation.scoring import recall
from drakegpt.training.author import Author, author_in_file, author_of
from drakegpt.training.run import Run, all_runs, open_run

# Settings that may differ between runs that count as the same.
INCIDENTAL = ("device", "minutes", "wandb", "save_interval")


def find_run(target: str | None, *, scaled: bool = False, data: str | None = None) -> Run:
    """The run that `target` names: a folder, a run's name, or a model (its latest run).

    Where all runs of a model are trials, the best of its latest sweep. Without
    a target: the run with the lowest validation loss on `data` or else on the
    default dataset; runs on different texts cannot be ranked. `scaled` asks for
    the scaled size. Raises `RunError` with the command that would make such a
    run, `CorpusError` for a dataset that is not there.
    """
    model = _as_model(target) if target else None
    if target and not model:
        folder = Path(target) if Path(target).is_dir() else paths.runs() / target
        if folder.is_dir():
            return open_run(folder)
        close = difflib.get_close_matches(target.lower(), map(str.lower, MODEL_NAMES), n=1)
        hint = f"Did you mean {_as_model(close[0])}? " if close else ""
        raise RunError(
            f"There is no model, run or folder named '{target}'.",
            f"{hint}Models: {', '.join(MODEL_NAMES)}. Runs: {_some_names()}.",
        )
    ranked = data or (None if model else dataset.default_name())
    runs = [
        run
        for run in (runs_on(dataset.load(ranked)) if ranked else all_runs())
        if run.config.model == (model or run.config.model)
        and (run.config.size == "scaled" or not scaled)
        and run.derived != "packed"  # to be asked for by name
    ]
    if not runs:
        flags = (" --scaled" if scaled else "") + (f" --data {data}" if data else "")
        on = f" on '{ranked}'" if ranked else ""
        raise RunError(
            f"There is no{' scaled' if scaled else ''} run{f' of {model}' if model else ''}{on}.",
            f"Train it: `drakegpt train {model or 'TransformerLM'}{flags}`.",
        )
    if not model:
        return min(runs, key=val_loss)
    if whole := [run for run in runs if not run.sweep]:
        return whole[-1]
    return min((run for run in runs if run.sweep == runs[-1].sweep), key=val_loss)


def find_author(target: str | None, *, scaled: bool = False, data: str | None = None) -> Author:
    """Who writes: the run that `find_run` finds, or a file of weights if `target` is one."""
    if target and Path(target).is_file():
        if scaled or data:
            raise UsageError(
                f"The weights in {target} have a size and a dataset.",
                "Leave --scaled and --data out.",
            )
        return author_in_file(Path(target))
    return author_of(find_run(target, scaled=scaled, data=data))


def runs_on(data: dataset.Dataset) -> list[Run]:
    """The runs on this very version of a dataset that have a checkpoint, oldest first."""
    return [
        run
        for run in all_runs()
        if (run.config.data, run.info["dataset_version"]) == (data.name, data.metadata.version)
    ]


def find_finished(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """Those of `runs`, oldest first, that finished with these very settings; the latest first.

    Where they computed and how they were kept does not make them others.
    """
    wanted = {k: v for k, v in asdict(config).items() if k not in INCIDENTAL}
    return [
        run
        for run in reversed(runs)
        if wanted.items() <= asdict(run.config).items() and run.finished and not run.derived
    ]


def find_unfinished(target: str | None, *, size: str | None = None, data: str | None = None) -> Run:
    """The run to go on with: a folder, a run's name, or a model's latest unfinished run.

    A run that is named may be finished: with more iterations it goes on. Trials
    of a sweep go on by name only. Raises `RunError` if there is none.
    """
    model = _as_model(target) if target else None
    if target and not model:
        return find_run(target)
    runs = [
        run
        for run in all_runs(begun=False)
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


def _as_model(text: str) -> str | None:
    """The model of that name, in any case, if there is one."""
    return next((name for name in MODEL_NAMES if name.lower() == text.lower()), None)


def val_loss(run: Run) -> float:
    """The validation loss known of a run: exact if it was scored, else its last estimate."""
    if scores := recall(run):
        return scores.val.loss
    evaluations = run.evaluations
    return float(evaluations[-1]["val_loss"]) if evaluations else math.inf


def _some_names() -> str:
    names = [run.name for run in all_runs()]
    return ", ".join(names[-5:]) or "none yet; `drakegpt train TransformerLM` makes one"
