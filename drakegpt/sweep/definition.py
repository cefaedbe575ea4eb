"""What makes a sweep this one and no other: the model, the text, what is fixed, what is searched.

Two commands with the same definition work on the same study. How many trials
there are, where they are kept and on which device they run is not part of it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from drakegpt.config import TrainConfig, check_setting, merge_layers
from drakegpt.config.presets import PRESETS, SYSTEMS
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError, UsageError
from drakegpt.runs.lookup import INCIDENTAL
from drakegpt.runs.run import check_name
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

# What says how long a run is, by its number of iterations or of windows, and which is longest.
_LONGEST: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "iters": max, "batch_size": min, "grad_accumulation": min, "context_length": min,
}  # fmt: skip
# How a run trains that holds out nothing, as `train` does.
_WITHOUT_TAIL = {"select_on": "validation"}


# What says how much memory a run takes, and which takes the least of it.
_SMALLEST: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "context_length": min, "embedding_dim": min, "num_layers": min,
    "batch_size": min, "grad_accumulation": min,
    "optimizer": lambda names: "muon" if "muon" in names else "adamw",
    "window_order": lambda names: "epoch" if "epoch" in names else "random",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A sweep, before any trial. Make it by `define`, which checks it."""

    name: str
    model: str
    size: str
    data: Dataset
    settings: Mapping[str, Any]  # given and the same for all trials
    space: Space
    sampler: Sampler = "tpe"
    prune: bool = True
    incidental: Mapping[str, Any] = field(default_factory=dict)  # the device and such

    @property
    def seed(self) -> int:
        """That of the runs and of the sampler."""
        seed: int = self.settings.get("seed", PRESETS["default"]["seed"])
        return seed

    @cached_property
    def select_on(self) -> str:
        """What trials are ranked and pruned by: "training-tail" or "validation"."""
        settings = merge_layers(self.model, self.size, self.data.name, self.settings)
        return str(settings["select_on"])

    @cached_property
    def grid(self) -> list[dict[str, Value]]:
        """All combinations, for a sampler that tries each."""
        return list_combinations(self.space)

    def identity(self) -> dict[str, Any]:
        """What two sweeps must have in common to be one, as plain values."""
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

    def used(self, drawn: Mapping[str, Value]) -> dict[str, Value]:
        """Values drawn from the space as a run takes them, in the order of the space."""
        return {name: axis.settled(drawn[name]) for name, axis in self.space.items()}

    def config(self, params: Mapping[str, Value]) -> TrainConfig:
        """The settings of the run with these values.

        Raises `UsageError` or `CorpusError` for a combination that cannot be.
        """
        return self._config({**self.settings, **self.incidental, **params})

    def whole_config(self, params: Mapping[str, Value]) -> TrainConfig:
        """The settings of a run with these values that holds out nothing of the training split."""
        return self._config({**self.settings, **self.incidental, **params} | _WITHOUT_TAIL)

    def _config(self, given: Mapping[str, Any]) -> TrainConfig:
        given = dict(given)
        given |= self._lowest_rate(given)
        config = resolve_run(self.model, self.size, self.data, given)
        self.data.check_context(config.context_length, tail=config.holds_out_tail)
        return config

    def longest(self) -> TrainConfig | None:
        """The settings of a run as long as any may be; `None` if there cannot be such a run."""
        searched = _LONGEST.keys() & self.space.keys()
        ends = {name: _LONGEST[name](_list_extremes(self.space[name])) for name in searched}
        try:
            return self.config(ends)
        except (UsageError, CorpusError):
            return None

    def check_memory(self) -> None:
        """Raise `NotEnoughMemoryError` if not even the smallest run would fit into memory.

        Which that is cannot be told where recipes are searched.
        """
        searched = _SMALLEST.keys() & self.space.keys()
        smallest = {name: _SMALLEST[name](_list_extremes(self.space[name])) for name in searched}
        if "recipe" not in self.space:
            with suppress(UsageError, CorpusError):
                check_memory(self.config(smallest), self.data)

    def _lowest_rate(self, given: Mapping[str, Any]) -> dict[str, float]:
        """A `base_lr` in the proportion to `max_lr` that it would have if neither were given.

        Else a low `max_lr` would be below the preset's `base_lr`, which no schedule allows.
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
    """A sweep of `model` with the settings `given`; its name follows from all that, if `None`.

    It chooses by the tail of the training split unless that is said otherwise, so that
    the validation split judges what was found. Raises `UsageError` for settings that
    cannot be, alone or beside the space.
    """
    if name is not None:
        check_name(name, "sweep")
    _check_definition(given, space, sampler)
    settings = {key: value for key, value in given.items() if key not in INCIDENTAL}
    system = SYSTEMS.get(str(given.get("preset")))
    if not (system and "select_on" in system.settings):
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
    """Values of a hyperparameter with the lowest and the highest among them."""
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
            f"A grid has no end of points in the range of {', '.join(ranges)}.",
            f"List choices: `--param {ranges[0]}=A,B,C`; or take --sampler tpe or random.",
        )
    if given.get("epochs") and ("iters" in given or "iters" in space):
        raise UsageError("epochs and iters both say how long.", "Give one of them.")
