"""The identity of a sweep: model, dataset, fixed settings and search space.

Two commands with the same definition work on the same study. The number of trials, the
storage and the device are not part of it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from drakegpt.config import TrainConfig, check_setting, merge_layers
from drakegpt.config.presets import PRESETS, SIZE_SETTINGS
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError, UsageError
from drakegpt.runs.create import check_name
from drakegpt.runs.lookup import INCIDENTAL
from drakegpt.runs.start import resolve_run
from drakegpt.sweep.samplers import Sampler
from drakegpt.sweep.space import (
    Axis,
    Choices,
    Space,
    Value,
    count_combinations,
    list_combinations,
    round_to_digits,
)
from drakegpt.training.memory import check_memory

# Settings that determine a run's length, with the function that picks the longest.
_LONGEST: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "iters": max, "batch_size": min, "grad_accumulation": min, "context_length": min,
}  # fmt: skip
# The settings of a run that trains on the whole training split, as `train` does.
_WITHOUT_TAIL = {"select_on": "validation"}

# Settings that determine a run's memory, with the function that picks the smallest.
_SMALLEST: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "context_length": min, "embedding_dim": min, "num_layers": min,
    "batch_size": min, "grad_accumulation": min,
    "optimizer": lambda names: "muon" if "muon" in names else "adamw",
    "window_order": lambda names: "epoch" if "epoch" in names else "random",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A sweep, before any trial; created and checked by `define`."""

    name: str
    model: str
    size: str
    data: Dataset
    settings: Mapping[str, Any]  # given, the same for all trials
    space: Space
    sampler: Sampler = "tpe"
    prune: bool = True
    incidental: Mapping[str, Any] = field(default_factory=dict)  # the device and such

    @property
    def seed(self) -> int:
        """The seed of the runs and of the sampler."""
        seed: int = self.settings.get("seed", SIZE_SETTINGS["default"]["seed"])
        return seed

    @cached_property
    def select_on(self) -> str:
        """The split that trials are ranked and pruned by: "training-tail" or "validation"."""
        settings = merge_layers(self.model, self.size, self.data.name, self.settings)
        return str(settings["select_on"])

    @cached_property
    def grid(self) -> list[dict[str, Value]]:
        """All combinations, for the grid sampler."""
        return list_combinations(self.space)

    def identity(self) -> dict[str, Any]:
        """Return what identifies the sweep, as plain values."""
        return {
            "model": self.model,
            "size": self.size,
            "data": self.data.name,
            "data_version": self.data.metadata.version,
            "settings": dict(self.settings),
            "space": {name: axis.to_json() for name, axis in self.space.items()},
            "sampler": self.sampler,
            "prune": self.prune,
        }

    def shorten(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """Shorten drawn values to what a run uses, in the order of the space."""
        return {name: axis.shorten(drawn[name]) for name, axis in self.space.items()}

    def config(self, params: Mapping[str, Value]) -> TrainConfig:
        """Return the settings of a run with these values.

        Raises `UsageError` or `CorpusError` for an impossible combination.
        """
        return self._config({**self.settings, **self.incidental, **params})

    def config_without_tail(self, params: Mapping[str, Value]) -> TrainConfig:
        """Return the settings of a run with these values on the whole training split."""
        return self._config({**self.settings, **self.incidental, **params} | _WITHOUT_TAIL)

    def _config(self, given: Mapping[str, Any]) -> TrainConfig:
        given = dict(given)
        given |= self._scale_base_lr(given)
        config = resolve_run(self.model, self.size, self.data, given)
        self.data.check_context(config.context_length, tail=config.holds_out_tail)
        return config

    def longest_config(self) -> TrainConfig | None:
        """Return the settings of the longest possible run; `None` if they are impossible."""
        searched = _LONGEST.keys() & self.space.keys()
        ends = {name: _LONGEST[name](_list_extremes(self.space[name])) for name in searched}
        try:
            return self.config(ends)
        except (UsageError, CorpusError):
            return None

    def check_memory(self) -> None:
        """Raise `NotEnoughMemoryError` if not even the smallest run fits into memory.

        Not checked if recipes are searched, as the smallest run is then unknown.
        """
        searched = _SMALLEST.keys() & self.space.keys()
        smallest = {name: _SMALLEST[name](_list_extremes(self.space[name])) for name in searched}
        if "recipe" not in self.space:
            with suppress(UsageError, CorpusError):
                check_memory(self.config(smallest), self.data)

    def _scale_base_lr(self, given: Mapping[str, Any]) -> dict[str, float]:
        """Scale `base_lr` with a given `max_lr`, in the proportion that the preset has.

        Otherwise a low `max_lr` would be below the preset's `base_lr`, which is an error.
        """
        if "max_lr" not in given or "base_lr" in given:
            return {}
        others = {name: value for name, value in given.items() if name != "max_lr"}
        usual = merge_layers(self.model, self.size, self.data.name, others)
        return {"base_lr": round_to_digits(given["max_lr"] * usual["base_lr"] / usual["max_lr"])}


def define(
    name: str | None,
    model: str,
    size: str,
    data: Dataset,
    given: Mapping[str, Any],
    space: Space,
    *,
    sampler: Sampler,
    prune: bool,
) -> Definition:
    """Define a sweep of `model` with the settings `given`; `name` is derived if `None`.

    Trials are ranked by the tail of the training split unless `select_on` is given, so
    that the validation split stays unused. Raises `UsageError` for settings that are
    impossible, alone or together with the space.
    """
    if name is not None:
        check_name(name, "sweep")
    _check_definition(given, space, sampler)
    settings = {key: value for key, value in given.items() if key not in INCIDENTAL}
    preset = PRESETS.get(str(given.get("preset")))
    if not (preset and "select_on" in preset.settings):
        settings.setdefault("select_on", "training-tail")
    incidental = {key: value for key, value in given.items() if key in INCIDENTAL}
    unnamed = Definition(
        name="",
        model=model,
        size=size,
        data=data,
        settings=settings,
        space=space,
        sampler=sampler,
        prune=prune,
        incidental=incidental,
    )
    identity = json.dumps(unnamed.identity(), sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return replace(unnamed, name=name or f"{model}_{data.name}_{digest}")


def _list_extremes(axis: Axis) -> tuple[Value, ...]:
    """Return values of a hyperparameter that include the lowest and the highest."""
    return axis.values if isinstance(axis, Choices) else (axis.low, axis.high)


def _check_definition(given: Mapping[str, Any], space: Space, sampler: str) -> None:
    for key, value in given.items():
        check_setting(key, value)
    if not space:
        raise UsageError(
            "Nothing is searched.",
            "Name what: `--param embedding_dim=32,64,128 --param max_lr=1e-4..1e-2:log`.",
        )
    if sampler == "grid" and count_combinations(space) is None:
        ranges = [name for name, axis in space.items() if count_combinations({name: axis}) is None]
        raise UsageError(
            f"A grid over the range of {', '.join(ranges)} has infinitely many points.",
            f"List choices: `--param {ranges[0]}=A,B,C`; or take --sampler tpe or random.",
        )
    if given.get("epochs") and ("iters" in given or "iters" in space):
        raise UsageError("epochs and iters both set the length.", "Give one of them.")
