"""What a sweep searches: each hyperparameter with its choices or its range.

Read from `name=64,128`, `name=1e-4..1e-2:log` or a configuration file, and
checked against the bounds of the setting. Nothing is drawn here: see `study`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_origin

from drakegpt import errors
from drakegpt.config import TrainConfig, check_setting, parse_value, setting_of, type_of
from drakegpt.errors import UsageError, shorten, suggest_name

Value = bool | int | float | str

# What says which model it is, and how a run is measured and kept, not what it learns.
_APART = (
    "model", "size", "preset", "data", "init_from", "minutes", "epochs", "eval_interval",
    "eval_iters", "device", "dtype", "compile", "wandb", "save_interval",
    "select_on",
)  # fmt: skip
SEARCHABLE = tuple(
    field.name for field in dataclasses.fields(TrainConfig) if field.name not in _APART
)
FORMS = "`--param embedding_dim=32,64` or `--param max_lr=1e-4..1e-2:log`"
DIGITS = 4  # of a number drawn from a range: enough to learn from, short enough to type


@dataclass(frozen=True)
class Choices:
    """A hyperparameter that takes one of several values."""

    values: tuple[Value, ...]

    def to_json(self) -> list[Value]:
        """The values."""
        return list(self.values)

    def settled(self, value: Value) -> Value:
        """The value itself."""
        return value


@dataclass(frozen=True)
class Range:
    """A number between two others, both included; all are whole if `low` is."""

    low: float
    high: float
    log: bool = False  # drawn evenly over the logarithm

    def to_json(self) -> dict[str, Any]:
        """Both ends, and how it is drawn."""
        return dataclasses.asdict(self)

    def settled(self, value: Value) -> Value:
        """A number drawn from here as it is used: with few digits, still within."""
        if not isinstance(value, float):
            return value
        short = rounded(value)
        return short if self.low <= short <= self.high else value


Axis = Choices | Range
Space = Mapping[str, Axis]


def rounded(value: float) -> float:
    """The number with as many digits as `DIGITS` says."""
    return float(f"{value:.{DIGITS}g}")


def param_from_text(text: str) -> tuple[str, Axis]:
    """What `--param` says, as a name and its choices or range; raises `UsageError`."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals:
        raise UsageError(
            f"--param {errors.show_value(text)} has no values.", f"Write it like {FORMS}."
        )
    return name, axis_from(name, values)


def axis_from(name: str, values: Any) -> Axis:
    """Choices or a range for a setting: from a text, a list, or a table with low and high.

    Raises `UsageError` if the setting cannot be searched, or cannot be one of them.
    """
    _check_searchable(name)
    if isinstance(values, str) and ".." in values:
        values = _table(values)
    if isinstance(values, Mapping):
        return _range(name, values)
    listed = values.split(",") if isinstance(values, str) else values
    if not isinstance(listed, Sequence) or not listed:
        raise UsageError(
            f"{name} has neither choices nor a range: {errors.show_value(values)}.",
            "In a file, write a list, \"low..high\", \"low..high:log\", or a table with low and "
            f"high; on the command line {FORMS}.",
        )  # fmt: skip
    choices = tuple(_value(name, value) for value in listed)
    for value in choices:
        if choices.count(value) > 1:
            raise UsageError(f"{name} lists {shown(value)} twice.", "Leave one of them out.")
    return Choices(choices)


def size_of(space: Space) -> int | None:
    """How many combinations there are; `None` if a range has no end of them."""
    axes = space.values()
    if any(isinstance(axis, Range) for axis in axes):
        return None
    return math.prod(len(axis.values) for axis in axes if isinstance(axis, Choices))


def combinations(space: Space) -> list[dict[str, Value]]:
    """Every combination of choices, the last hyperparameter varying first."""
    values = [axis.values for axis in space.values() if isinstance(axis, Choices)]
    return [dict(zip(space, point, strict=True)) for point in product(*values)]


def shown(value: Value) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _check_searchable(name: Any) -> None:
    if name in SEARCHABLE:
        return
    raise UsageError(
        f"'{shorten(str(name))}' cannot be searched.",
        f"{suggest_name(str(name), SEARCHABLE)}What can be: {', '.join(SEARCHABLE)}.",
    )


def _table(text: str) -> dict[str, Any]:
    """The parts of `low..high` or `low..high:log`."""
    ends, _, scale = text.partition(":")
    low, _, high = ends.partition("..")
    if high.startswith("."):  # of 1e-4...1e-2 nobody can tell where the end begins
        raise UsageError(f"'{text}' has three dots in a row.", "Write low..high, as in 0..0.5.")
    if scale.strip() not in ("", "log"):
        raise UsageError(f"'{text}' ends in ':{scale}'.", "A range may end in `:log` only.")
    return {"low": low, "high": high, "log": scale.strip() == "log"}


def _range(name: str, table: Mapping[str, Any]) -> Range:
    problem = ""
    if type_of(name) not in (int, float):
        raise UsageError(f"{name} is no number, so it has no range.", f"List choices: {FORMS}.")
    if not {"low", "high"} <= table.keys() <= {"low", "high", "log"}:
        raise UsageError(f"The range of {name} is not clear.", "It has low, high and maybe log.")
    low, high = (_value(name, table[end]) for end in ("low", "high"))
    log = table.get("log", False)
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    if not isinstance(log, bool):
        problem = f"log is {errors.show_value(log)}, neither true nor false"
    elif low >= high:
        problem = f"{shown(low)} is not below {shown(high)}"
    elif log and low <= 0:
        problem = "a logarithmic range begins above 0"
    if problem:
        raise UsageError(f"The range of {name} is none: {problem}.", f"Write it like {FORMS}.")
    return Range(low, high, log)


def _value(name: str, value: Any) -> Value:
    """One value of the setting's type, within its bounds."""
    kind = type_of(name)
    if get_origin(kind) is Literal and type(value) in (int, float):
        value = str(value)  # bits = [1.58, 1]
    elif kind is float and type(value) is int:
        value = float(value)
    try:
        if isinstance(value, str):
            value = parse_value(name, value)
        else:
            check_setting(name, value)
    except UsageError as error:
        help_ = setting_of(name).help
        raise UsageError(error.problem, f"Give {name} other values. It is: {help_}") from error
    found: Value = value
    return found


assert all(
    get_origin(type_of(name)) is Literal or type_of(name) in (int, float, bool)
    for name in SEARCHABLE
)
