"""Which runs can be compared: those that agree in all that they need not differ in.

A run may stand for its model in a comparison with any settings; here the runs
are found that share theirs, and what the others depart in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache, lru_cache
from itertools import chain
from typing import Any

from drakegpt.config import LADDER, SIZES, TrainConfig, merge_layers
from drakegpt.config.files import named_settings
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError
from drakegpt.runs.lookup import INCIDENTAL, list_runs_on
from drakegpt.runs.run import Run

# What a run of the ladder has set unless asked otherwise.
LADDERS_OWN = {"bits": "full", "init_from": "", "preset": "none"}
# What runs that are compared need not share; model, size and data are not asked about.
NOT_SHARED = ("seed", *INCIDENTAL)
# Beside the settings: how a run came about if not by one training here.
TRAINED_BY = "origin"

Agreement = tuple[tuple[str, Any], ...]


def shared_settings(run: Run) -> Agreement:
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
    settings = merge_layers(LADDER[0], "default", "")
    return {name: settings[name] for name in NOT_SHARED}


@cache
def _agreement(config: TrainConfig, origin: str) -> Agreement:
    named = {name: v for name, v in named_settings(config).items() if name not in NOT_SHARED}
    return tuple((named | ({TRAINED_BY: origin} if origin else {})).items())


def agrees(run: Run, shared: Agreement) -> bool:
    """Whether a run is what the command that names these settings trains of its model."""
    return not _departures(run, shared)


def largest_group(runs: Sequence[Run]) -> Agreement:
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

    return max(dict.fromkeys(map(shared_settings, runs)), key=rank)


def differences(run: Run, shared: Agreement) -> dict[str, tuple[Any, Any]]:
    """The settings in which a run departs from what others share: its value and theirs.

    Theirs is what its model would have been trained with. What only follows from
    others of these settings is left out.
    """
    found = _departures(run, shared)
    named = dict(shared_settings(run)).keys() | dict(shared).keys()
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
    settings = merge_layers(model, size, data, others)
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
    leading = largest_group(runs)
    agreeing = [run for run in runs if agrees(run, leading)]
    latest = {run.config.model: run for run in [*runs, *agreeing]}
    return {model: _of_all_seeds(latest[model], runs) for model in LADDER if model in latest}


def select_agreeing(
    data: Dataset,
    configs: Iterable[TrainConfig],
    seeds: Sequence[int] = (),
    usable: Callable[[Iterable[Run]], list[Run]] = list,
) -> dict[tuple[str, str], list[Run]]:
    """The finished runs, with any of `seeds`, that agree with these settings of one model each.

    `usable` leaves out runs that cannot be taken for another reason.
    """
    runs = [run for run in list_runs_on(data) if _stands_for(run, {}, seeds)]
    found: dict[tuple[str, str], list[Run]] = {}
    for config in configs:
        wanted = (config.model, config.size, _agreement(config, ""))
        agreeing = (
            r for r in runs if (r.config.model, r.config.size, shared_settings(r)) == wanted
        )
        if alike := usable(agreeing):
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
    return [
        run
        for key, run in latest.items()
        if shared_settings(run) != shared_settings(chosen[key][0])
    ]


def _of_the_ladder(
    data: Dataset, settings: Mapping[str, Any] | None, seeds: Sequence[int]
) -> list[Run]:
    """The runs of the ladder, oldest first, that may stand for their models."""
    wanted = LADDERS_OWN | dict(settings or {})
    runs = [run for run in list_runs_on(data) if run.config.model in LADDER]
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
        for run in list_runs_on(of_same_text)
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
    return config.model, config.size, config.data, shared_settings(run)


def _in_other_tokens(data: Dataset) -> list[Dataset]:
    """The datasets of the same text that have another tokenizer; damaged ones are passed over."""
    found = []
    for name in dataset.list_names():
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
