"""Select the runs of a comparison: those that agree in their settings.

Runs agree if the shortest commands that train them name the same settings, apart from
model, size, dataset, seed and incidental settings such as the device. Settings in which
a run differs from the others are listed by `find_differences`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache, lru_cache
from itertools import chain
from typing import Any

from drakegpt.config import LADDER, SIZES, TrainConfig, merge_layers
from drakegpt.config.files import named_settings
from drakegpt.config.presets import CLASS
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError
from drakegpt.runs.lookup import INCIDENTAL, list_runs, list_runs_on
from drakegpt.runs.run import Run

# Settings of the ladder's runs unless others are given.
LADDER_DEFAULTS = {"bits": "full", "init_from": ""}
LADDER_PRESETS = ("none", CLASS)  # each a ladder of its own; other presets are of one model
# Settings that comparable runs need not share, besides model, size and data.
NOT_SHARED = ("seed", *INCIDENTAL)
# Listed like a setting: where a run comes from if it was not trained here in one part.
ORIGIN = "origin"

Agreement = tuple[tuple[str, Any], ...]


def get_shared_settings(run: Run) -> Agreement:
    """Return what runs must share to be compared: the settings that the shortest command names.

    Without model, size, data, seed and incidental settings. The origin of the run counts
    too: the settings of an imported run are not known.
    """
    return _name_settings(_without_incidental(run.config), run.provenance)


@cache
def _without_incidental(config: TrainConfig) -> TrainConfig:
    """Reset the settings that comparable runs need not share to their defaults."""
    return replace(config, **_default_settings())


@cache
def _default_settings() -> dict[str, Any]:
    settings = merge_layers(LADDER[0], "default", "")
    return {name: settings[name] for name in NOT_SHARED}


@cache
def _name_settings(config: TrainConfig, origin: str) -> Agreement:
    named = {name: v for name, v in named_settings(config).items() if name not in NOT_SHARED}
    return tuple((named | ({ORIGIN: origin} if origin else {})).items())


def agrees(run: Run, shared: Agreement) -> bool:
    """Whether a run has the settings that its model is trained with by this agreement."""
    return not _find_departures(run, shared)


def find_largest_group(runs: Sequence[Run]) -> Agreement:
    """Find what the largest group of these runs shares: most models first, then the newest."""
    # Grouped by all settings first: thousands of runs may form as many groups.
    by_settings: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        by_settings.setdefault(tuple(_settings_of(run).values()), []).append(run)
    models = {(run.config.model, run.config.size, run.config.data) for run in runs}

    def rank(shared: Agreement) -> tuple[int, str]:
        found = (
            by_settings.get(tuple(_expected_settings(*model, shared).values()), [])
            for model in models
        )
        group = list(chain.from_iterable(found))
        return len({run.config.model for run in group}), max(
            str(run.info["created_at"]) for run in group
        )

    return max(dict.fromkeys(map(get_shared_settings, runs)), key=rank)


def find_differences(run: Run, shared: Agreement) -> dict[str, tuple[Any, Any]]:
    """Find the settings in which a run differs from what others share: its value and theirs.

    Theirs is the value that its model would have been trained with. Settings that only
    follow from others of these are left out.
    """
    found = _find_departures(run, shared)
    named = dict(get_shared_settings(run)).keys() | dict(shared).keys()
    return {name: values for name, values in found.items() if name in named} or found


def _find_departures(run: Run, shared: Agreement) -> dict[str, tuple[Any, Any]]:
    """Find all settings in which a run differs from what others share."""
    theirs = _expected_settings(run.config.model, run.config.size, run.config.data, shared)
    return {
        name: (value, theirs[name])
        for name, value in _settings_of(run).items()
        if value != theirs[name]
    }


def _settings_of(run: Run) -> dict[str, Any]:
    """Return all settings of a run that others may share, in the order of `TrainConfig`."""
    return {name: getattr(run.config, name) for name in _SHARED} | {ORIGIN: run.provenance}


@lru_cache(maxsize=64)
def _expected_settings(model: str, size: str, data: str, shared: Agreement) -> dict[str, Any]:
    """Return the settings that a model is trained with by this agreement."""
    others = dict(shared)
    derived = others.pop(ORIGIN, "")
    settings = merge_layers(model, size, data, others)
    return {name: settings[name] for name in _SHARED} | {ORIGIN: derived}


_SHARED = tuple(field.name for field in fields(TrainConfig) if field.name not in NOT_SHARED)


def select_runs(
    data: Dataset,
    sizes: Sequence[str] = SIZES,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    runs: Sequence[Run] | None = None,
) -> dict[tuple[str, str], list[Run]]:
    """Select finished runs of each model and size that agree, in the order of the ladder.

    For each size the largest group of runs that agree: most models first, then the
    newest. A model without a run in that group has its newest run. Runs that differ
    from a selected one in their seed alone are selected with it.

    Only runs on this version of the dataset count, trained with `settings` and one of
    `seeds` if any are given; by default in full precision and from random weights.
    `runs`: all runs, if they were listed already.
    """
    candidates = _filter_ladder_runs(data, settings, seeds, runs)
    by_size = {size: [run for run in candidates if run.config.size == size] for size in sizes}
    return {
        (model, size): selected
        for size, of_size in by_size.items()
        for model, selected in _select_of_size(of_size).items()
    }


def _select_of_size(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Select among the runs of one size, oldest first, as `select_runs` does."""
    if not runs:
        return {}
    shared = find_largest_group(runs)
    agreeing = [run for run in runs if agrees(run, shared)]
    latest = {run.config.model: run for run in [*runs, *agreeing]}
    return {model: _collect_seeds(latest[model], runs) for model in LADDER if model in latest}


def select_agreeing(
    data: Dataset,
    configs: Iterable[TrainConfig],
    seeds: Sequence[int] = (),
    usable: Callable[[Iterable[Run]], list[Run]] = list,
) -> dict[tuple[str, str], list[Run]]:
    """Select finished runs, with any of `seeds`, that agree with one of these configurations.

    `usable` filters out runs that cannot be used for another reason.
    """
    runs = [run for run in list_runs_on(data) if _is_candidate(run, {}, seeds)]
    found: dict[tuple[str, str], list[Run]] = {}
    for config in configs:
        wanted = (config.model, config.size, _name_settings(config, ""))
        agreeing = (
            r for r in runs if (r.config.model, r.config.size, get_shared_settings(r)) == wanted
        )
        if whole := usable(agreeing):
            found[config.model, config.size] = _collect_seeds(whole[-1], whole)
    return found


def find_newer_runs(
    data: Dataset,
    selected: Mapping[tuple[str, str], Sequence[Run]],
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    runs: Sequence[Run] | None = None,
) -> list[Run]:
    """Find the newest run of each model and size that has other settings than `selected`."""
    latest = {
        (run.config.model, run.config.size): run
        for run in _filter_ladder_runs(data, settings, seeds, runs)
        if (run.config.model, run.config.size) in selected
    }
    return [
        run
        for key, run in latest.items()
        if get_shared_settings(run) != get_shared_settings(selected[key][0])
    ]


def _filter_ladder_runs(
    data: Dataset,
    settings: Mapping[str, Any] | None,
    seeds: Sequence[int],
    runs: Sequence[Run] | None,
) -> list[Run]:
    """List the runs of the ladder, oldest first, that may represent their models."""
    wanted = LADDER_DEFAULTS | dict(settings or {})
    presets = (wanted["preset"],) if "preset" in wanted else LADDER_PRESETS
    of_ladder = [
        run
        for run in list_runs_on(data, runs)
        if run.config.model in LADDER and run.config.preset in presets
    ]
    return [run for run in of_ladder if _is_candidate(run, wanted, seeds)]


def select_others(
    data: Dataset,
    sizes: Sequence[str] = SIZES,
    settings: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (),
    runs: Sequence[Run] | None = None,
) -> list[list[Run]]:
    """Select the latest finished runs on the same text that are not of the ladder.

    One for each model, size, preset and dataset, with its other seeds: other models,
    presets, and models that read the same text with another tokenizer. `settings`,
    `seeds` and `runs` as for `select_runs`.
    """
    wanted = {"bits": "full"} | dict(settings or {})
    runs = list_runs() if runs is None else runs
    others = [
        run
        for of_same_text in [data, *_find_retokenized(data)]
        for run in list_runs_on(of_same_text, runs)
        if _is_candidate(run, wanted, seeds)
        and run.config.size in sizes
        and not (
            run.config.data == data.name
            and run.config.model in LADDER
            and run.config.preset in LADDER_PRESETS
        )
    ]
    latest = {
        (run.config.model, run.config.size, run.config.preset, run.config.data): run
        for run in others
    }
    return [_collect_seeds(run, others) for run in latest.values()]


def _is_candidate(run: Run, wanted: Mapping[str, Any], seeds: Sequence[int]) -> bool:
    """Whether a run may represent its model: finished, as wanted, not packed, not a trial."""
    return (
        run.finished
        and run.derived != "packed"
        and not run.sweep
        and (run.has_single_part or "iters" not in wanted)
        and (not seeds or run.config.seed in seeds)
        and all(getattr(run.config, key) == value for key, value in wanted.items())
    )


def _collect_seeds(run: Run, runs: Sequence[Run]) -> list[Run]:
    """Collect the latest run of each seed among `runs` that otherwise equal `run`, by seed."""
    wanted = _identify(run)
    found = {other.config.seed: other for other in runs if _identify(other) == wanted}
    return [found[seed] for seed in sorted(found)]


def _identify(run: Run) -> tuple[Any, ...]:
    """Return what determines a run's result, apart from its seed."""
    config = run.config
    return config.model, config.size, config.data, get_shared_settings(run)


def _find_retokenized(data: Dataset) -> list[Dataset]:
    """Find the datasets of the same text with another tokenizer; damaged ones are skipped."""
    found = []
    for name in dataset.list_names():
        with suppress(CorpusError):
            other = dataset.load(name)
            same_text = other.metadata.text_sha256 == data.metadata.text_sha256 != ""
            same_text = same_text and other.metadata.split == data.metadata.split
            if same_text and other.tokenizer.to_json() != data.tokenizer.to_json():
                found.append(other)
    return found


def list_missing_models(
    runs: Mapping[tuple[str, str], Any], sizes: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """List (model, size) pairs without a run: of `sizes`, or else of each size with a run."""
    wanted = sizes or [s for s in SIZES if any(size == s for _, size in runs)] or ["default"]
    return tuple((model, size) for size in wanted for model in LADDER if (model, size) not in runs)
