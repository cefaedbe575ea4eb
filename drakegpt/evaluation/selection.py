"""Which runs are meant: by folder, by name, by model, the best there is, or all of a ladder."""

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from drakegpt import paths
from drakegpt.config import LADDER, MODEL_NAMES, SIZES, TrainConfig, filled, incidental_settings
from drakegpt.config_files import named_settings
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError, RunError, UsageError, did_you_mean
from drakegpt.evaluation.scoring import Score, known_tail, known_validation
from drakegpt.training.author import Author, author_in_file, author_of
from drakegpt.training.recorder import in_training
from drakegpt.training.run import CHANGEABLE, Run, all_runs, open_run, with_changes
from drakegpt.wording import command

log = logging.getLogger("drakegpt")

# Settings that may differ between runs that count as the same.
INCIDENTAL = incidental_settings()
# What a run of the ladder has set unless asked otherwise.
LADDERS_OWN = {"bits": "full", "init_from": "", "preset": "none"}
# What runs that are compared need not share; model, size and data are not asked about.
NOT_SHARED = ("seed", *INCIDENTAL)
# Beside the settings: how a run came about if not by one training here.
TRAINED_BY = "origin"


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
            f"{did_you_mean(target, MODEL_NAMES)}Models: {', '.join(MODEL_NAMES)}. "
            f"Runs: {_some_names()}.",
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
        on = f" on '{ranked}'" if ranked else ""
        raise RunError(
            f"There is no{' scaled' if scaled else ''} run{f' of {model}' if model else ''}{on}.",
            f"Train it: `{command('train', model or 'TransformerLM', scaled=scaled, data=data)}`.",
        )
    if not model:
        return _best(runs)
    if whole := [run for run in runs if not run.sweep]:
        return whole[-1]
    return _best([run for run in runs if run.sweep == runs[-1].sweep])


def _best(runs: Sequence[Run]) -> Run:
    """The run with the lowest validation loss whose weights are whole; others are told of."""
    problem: RunError | None = None
    for run in sorted(runs, key=chosen_by):
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
    named = paths.runs() / target
    if Path(target).name == target and named.is_dir():
        return named
    return Path(os.path.abspath(target)) if Path(target).is_dir() else None  # noqa: PTH100


def find_author(target: str | None, *, scaled: bool = False, data: str | None = None) -> Author:
    """Who writes: the run that `find_run` finds, or a file of weights if `target` is one."""
    if target and not _folder_of(target) and Path(target).is_file():
        if scaled or data:
            raise UsageError(
                f"The weights in {target} have a size and a dataset.",
                "Leave --scaled and --data out.",
            )
        return author_in_file(Path(target))
    return author_of(find_run(target, scaled=scaled, data=data))


def runs_on(data: Dataset) -> list[Run]:
    """The runs on this very version of a dataset that have a checkpoint, oldest first."""
    return [
        run
        for run in all_runs()
        if (run.config.data, run.info["dataset_version"]) == (data.name, data.metadata.version)
    ]


def find_finished(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """Those of `runs`, oldest first, that finished with these very settings; the latest first."""
    return [run for run in _alike(runs, config) if run.finished]


def find_begun(runs: Sequence[Run], config: TrainConfig) -> Run | None:
    """The latest of `runs`, oldest first, that was interrupted with these very settings."""
    begun = (run for run in _alike(runs, config) if not run.finished and not run.sweep)
    return next((run for run in begun if not in_training(run)), None)


def _alike(runs: Sequence[Run], config: TrainConfig) -> list[Run]:
    """The runs, latest first, with these settings, wherever they computed and were kept.

    Not those that had another length at first.
    """
    wanted = essential(config)
    return [
        run
        for run in reversed(runs)
        if essential(run.config) == wanted and not run.derived and run.plain
    ]


def essential(config: TrainConfig) -> dict[str, Any]:
    """The settings that make a run what it is: all but `INCIDENTAL`."""
    return {name: value for name, value in asdict(config).items() if name not in INCIDENTAL}


def kept_as(run: Run, config: TrainConfig) -> Run:
    """The run, from now on computed and kept where `config` says."""
    return with_changes(run, {key: getattr(config, key) for key in CHANGEABLE if key in INCIDENTAL})


Agreement = tuple[tuple[str, Any], ...]


def agreement(run: Run) -> Agreement:
    """What runs must share to be compared: the settings that the shortest command names.

    But for model, size, data and seed, and what is incidental. How it came about
    counts too: of an imported run the settings are not known.
    """
    return _agreement(_comparable(run.config), run.origin)


@cache
def _comparable(config: TrainConfig) -> TrainConfig:
    """The settings, but for what runs that are compared need not share: that is as by default."""
    return replace(config, **_defaults())


@cache
def _defaults() -> dict[str, Any]:
    settings = filled(LADDER[0], "default", "")
    return {name: settings[name] for name in NOT_SHARED}


@cache
def _agreement(config: TrainConfig, origin: str) -> Agreement:
    named = {name: v for name, v in named_settings(config).items() if name not in NOT_SHARED}
    return tuple((named | ({TRAINED_BY: origin} if origin else {})).items())


def agrees(run: Run, shared: Agreement) -> bool:
    """Whether a run is what the command that names these settings trains of its model."""
    return not _departures(run, shared)


def leading_agreement(runs: Sequence[Run]) -> Agreement:
    """What the largest group of these runs shares: that of the most models, then the newest."""
    # By all their settings, for among thousands of runs there may be as many groups.
    alike: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        alike.setdefault(tuple(_ours(run).values()), []).append(run)
    asked = {(run.config.model, run.config.size, run.config.data) for run in runs}

    def rank(shared: Agreement) -> tuple[int, str]:
        found = (alike.get(tuple(_theirs(*each, shared).values()), []) for each in asked)
        group = list(chain.from_iterable(found))
        models = {run.config.model for run in group}
        return len(models), max(str(run.info["created_at"]) for run in group)

    return max(dict.fromkeys(map(agreement, runs)), key=rank)


def differences(run: Run, shared: Agreement) -> dict[str, tuple[Any, Any]]:
    """The settings in which a run departs from what others share: its value and theirs.

    Theirs is what its model would have been trained with. What only follows from
    others of these settings is left out.
    """
    found = _departures(run, shared)
    named = dict(agreement(run)).keys() | dict(shared).keys()
    return {name: values for name, values in found.items() if name in named} or found


def _departures(run: Run, shared: Agreement) -> dict[str, tuple[Any, Any]]:
    """All settings in which it does."""
    theirs = _theirs(run.config.model, run.config.size, run.config.data, shared)
    return {
        name: (value, theirs[name]) for name, value in _ours(run).items() if value != theirs[name]
    }


def _ours(run: Run) -> dict[str, Any]:
    """All settings of a run that others may share, in the order of `TrainConfig`."""
    return {name: getattr(run.config, name) for name in _SHARED} | {TRAINED_BY: run.origin}


@lru_cache(maxsize=64)
def _theirs(model: str, size: str, data: str, shared: Agreement) -> dict[str, Any]:
    """Those of a run of that model that is trained with what others share."""
    others = dict(shared)
    derived = others.pop(TRAINED_BY, "")
    settings = filled(model, size, data, others)
    return {name: settings[name] for name in _SHARED} | {TRAINED_BY: derived}


_SHARED = tuple(field.name for field in fields(TrainConfig) if field.name not in NOT_SHARED)


def select_runs(
    data: Dataset,
    sizes: Sequence[str] = SIZES,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
) -> dict[tuple[str, str], list[Run]]:
    """Finished runs of each model and size that agree, in the order of the ladder.

    Of each size the largest group of runs that agree: that of the most models, then
    the newest. A model without a run in it has its newest run. With each come those
    that differ from it in their seed alone.

    Only runs on this very version of the dataset count, and only those that were
    trained with `settings` and one of `seeds`, where any are given; if not in full
    precision, from the beginning.
    """
    runs = _of_the_ladder(data, settings, seeds)
    return {
        (model, size): chosen
        for size in sizes
        for model, chosen in _of_size([r for r in runs if r.config.size == size]).items()
    }


def _of_size(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """What `select_runs` takes of the runs of one size, oldest first."""
    if not runs:
        return {}
    leading = leading_agreement(runs)
    agreeing = [run for run in runs if agrees(run, leading)]
    latest = {run.config.model: run for run in [*runs, *agreeing]}
    return {model: _of_all_seeds(latest[model], runs) for model in LADDER if model in latest}


def select_agreeing(
    data: Dataset, configs: Iterable[TrainConfig], seeds: Sequence[int] = ()
) -> dict[tuple[str, str], list[Run]]:
    """The finished runs, with any of `seeds`, that agree with these settings of one model each."""
    runs = [run for run in runs_on(data) if _stands_for(run, {}, seeds)]
    found: dict[tuple[str, str], list[Run]] = {}
    for config in configs:
        wanted = (config.model, config.size, _agreement(config, ""))
        if alike := [r for r in runs if (r.config.model, r.config.size, agreement(r)) == wanted]:
            found[config.model, config.size] = _of_all_seeds(alike[-1], alike)
    return found


def newer_runs(
    data: Dataset,
    chosen: Mapping[tuple[str, str], Sequence[Run]],
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
) -> list[Run]:
    """The newest run of each model and size where that is not among those `chosen`."""
    latest = {
        (run.config.model, run.config.size): run
        for run in _of_the_ladder(data, settings, seeds)
        if (run.config.model, run.config.size) in chosen
    }
    return [run for key, run in latest.items() if agreement(run) != agreement(chosen[key][0])]


def _of_the_ladder(
    data: Dataset, settings: Mapping[str, Any] | None, seeds: Sequence[int]
) -> list[Run]:
    """The runs of the ladder, oldest first, that may stand for their models."""
    wanted = LADDERS_OWN | dict(settings or {})
    runs = [run for run in runs_on(data) if run.config.model in LADDER]
    return [run for run in runs if _stands_for(run, wanted, seeds)]


def select_others(
    data: Dataset,
    sizes: Sequence[str] = SIZES,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
) -> list[list[Run]]:
    """The latest finished runs on the same text that are not of the ladder.

    One for each model, size, system and dataset, with its other seeds: other
    models, published systems, and whatever reads the same text in other tokens.
    `settings` and `seeds` choose as for the ladder.
    """
    wanted = {"bits": "full"} | dict(settings or {})
    runs = [
        run
        for of_same_text in [data, *_in_other_tokens(data)]
        for run in runs_on(of_same_text)
        if _stands_for(run, wanted, seeds)
        and run.config.size in sizes
        and not (
            run.config.data == data.name
            and run.config.model in LADDER
            and run.config.preset == wanted.get("preset", "none")
        )
    ]
    latest = {
        (run.config.model, run.config.size, run.config.preset, run.config.data): run for run in runs
    }
    return [_of_all_seeds(run, runs) for run in latest.values()]


def _stands_for(run: Run, wanted: Mapping[str, Any], seeds: Sequence[int]) -> bool:
    """Whether a run may stand for its model: finished, as wanted, no copy, no trial of many."""
    return (
        run.finished
        and run.derived != "packed"
        and not run.sweep
        and (run.plain or "iters" not in wanted)
        and (not seeds or run.config.seed in seeds)
        and all(getattr(run.config, key) == value for key, value in wanted.items())
    )


def _of_all_seeds(run: Run, runs: Sequence[Run]) -> list[Run]:
    """The latest run of each seed among those of `runs` that are else like `run`, by seed."""
    wanted = _identity(run)
    found = {other.config.seed: other for other in runs if _identity(other) == wanted}
    return [found[seed] for seed in sorted(found)]


def _identity(run: Run) -> tuple[Any, ...]:
    """All that makes a run's result what it is, but its seed."""
    config = run.config
    return config.model, config.size, config.data, agreement(run)


def _in_other_tokens(data: Dataset) -> list[Dataset]:
    """The datasets of the same text that have another tokenizer; damaged ones are passed over."""
    found = []
    for name in dataset.names():
        with suppress(CorpusError):
            other = dataset.load(name)
            same_text = other.metadata.text_sha256 == data.metadata.text_sha256 != ""
            if same_text and other.tokenizer.to_json() != data.tokenizer.to_json():
                found.append(other)
    return found


def missing_models(
    runs: Mapping[tuple[str, str], Any], sizes: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """(model, size) pairs without a run: of `sizes`, or of each size that has been begun."""
    wanted = sizes or [s for s in SIZES if any(size == s for _, size in runs)] or ["default"]
    return tuple((model, size) for size in wanted for model in LADDER if (model, size) not in runs)


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


def chosen_by(run: Run) -> float:
    """The loss by which a run is ranked among the trials of its sweep, known as in `val_loss`."""
    return _loss(run, known_tail(run)) if run.config.holds_out_tail else val_loss(run)


def _loss(run: Run, exact: Score | None) -> float:
    if exact:
        loss = exact.loss
    else:
        loss = float(run.evaluations[-1]["val_loss"]) if run.evaluations else math.inf
    return loss if math.isfinite(loss) else math.inf


def _some_names() -> str:
    names = [run.name for run in all_runs()]
    return ", ".join(names[-5:]) or "none yet; `drakegpt train TransformerLM` makes one"
