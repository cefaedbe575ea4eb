"""The search space of a sweep: each hyperparameter with its choices or its range.

Parsed from `name=64,128`, `name=1e-4..1e-2:log` or a configuration file, and checked
against the bounds of the setting. Values are drawn in `study`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_origin

from drakegpt import errors
from drakegpt.config import check_setting, parse_value, searchable_settings, setting_of, type_of
from drakegpt.errors import UsageError, shorten, suggest_or_list

Value = bool | int | float | str

SEARCHABLE = searchable_settings()
SYNTAX = "`--param embedding_dim=32,64` or `--param max_lr=1e-4..1e-2:log`"
DIGITS = 4  # significant digits of a number drawn from a range, so that it is short to type


@dataclass(frozen=True)
class Choices:
    """A hyperparameter that takes one of several values."""

    values: tuple[Value, ...]

    def to_json(self) -> list[Value]:
        """Return the values."""
        return list(self.values)

    def shorten(self, value: Value) -> Value:
        """Return the value itself."""
        return value


@dataclass(frozen=True)
class Range:
    """A number between two others, inclusive; an integer if `low` is one."""

    low: float
    high: float
    log: bool = False  # drawn uniformly in the logarithm

    def to_json(self) -> dict[str, Any]:
        """Return both ends and whether it is logarithmic."""
        return dataclasses.asdict(self)

    def shorten(self, value: Value) -> Value:
        """Round a drawn number to few digits, if it stays within the range.

        Raises `ValueError` for a word, which SQLite can hold in place of a number.
        """
        if isinstance(value, str):
            raise ValueError(f"{value!r:.40} is not a number")
        if not isinstance(value, float):
            return value
        short = round_to_digits(value)
        return short if self.low <= short <= self.high else value


Axis = Choices | Range
Space = Mapping[str, Axis]


def round_to_digits(value: float) -> float:
    """Round a number to `DIGITS` significant digits."""
    return float(f"{value:.{DIGITS}g}")


def parse_param(text: str) -> tuple[str, Axis]:
    """Parse a value of `--param` into a name and its choices or range; raises `UsageError`."""
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals:
        raise UsageError(
            f"--param {errors.show_value(text)} has no values.", f"Write it like {SYNTAX}."
        )
    return name, parse_axis(name, values)


def parse_axis(name: str, values: Any) -> Axis:
    """Parse choices or a range for a setting: a text, a list, or a table with low and high.

    Raises `UsageError` if the setting cannot be searched, or has a value out of bounds.
    """
    _check_searchable(name)
    if isinstance(values, str) and ".." in values:
        values = _split_range(values)
    if isinstance(values, Mapping):
        return _make_range(name, values)
    listed = values.split(",") if isinstance(values, str) else values
    if not isinstance(listed, Sequence) or not listed:
        raise UsageError(
            f"{name} has neither choices nor a range: {errors.show_value(values)}.",
            "In a file, write a list, \"low..high\", \"low..high:log\", or a table with low and "
            f"high; on the command line {SYNTAX}.",
        )  # fmt: skip
    choices = tuple(_parse_choice(name, value) for value in listed)
    for value in choices:
        if choices.count(value) > 1:
            raise UsageError(f"{name} lists {format_value(value)} twice.", "Leave one of them out.")
    return Choices(choices)


def count_combinations(space: Space) -> int | None:
    """Count the combinations; `None` if there is a range, which has infinitely many."""
    axes = space.values()
    if any(isinstance(axis, Range) for axis in axes):
        return None
    return math.prod(len(axis.values) for axis in axes if isinstance(axis, Choices))


def list_combinations(space: Space) -> list[dict[str, Value]]:
    """List every combination of choices, the last hyperparameter varying fastest."""
    values = [axis.values for axis in space.values() if isinstance(axis, Choices)]
    return [dict(zip(space, point, strict=True)) for point in product(*values)]


def format_value(value: Value) -> str:
    """Format a value for people."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _check_searchable(name: Any) -> None:
    if name in SEARCHABLE:
        return
    raise UsageError(
        f"'{shorten(str(name))}' cannot be searched.",
        suggest_or_list(str(name), SEARCHABLE, "Searchable"),
    )


def _split_range(text: str) -> dict[str, Any]:
    """Split `low..high` or `low..high:log` into its parts."""
    ends, _, scale = text.partition(":")
    low, _, high = ends.partition("..")
    if high.startswith("."):  # 1e-4...1e-2 is ambiguous
        raise UsageError(f"'{text}' has three dots in a row.", "Write low..high, as in 0..0.5.")
    if scale.strip() not in ("", "log"):
        raise UsageError(f"'{text}' ends in ':{scale}'.", "A range may end in `:log` only.")
    return {"low": low, "high": high, "log": scale.strip() == "log"}


def _make_range(name: str, table: Mapping[str, Any]) -> Range:
    problem = ""
    if type_of(name) not in (int, float):
        raise UsageError(f"{name} is not a number, so it has no range.", f"List choices: {SYNTAX}.")
    if not {"low", "high"} <= table.keys() <= {"low", "high", "log"}:
        raise UsageError(
            f"The range of {name} is incomplete.", "It needs low and high, and optionally log."
        )
    low, high = (_parse_choice(name, table[end]) for end in ("low", "high"))
    log = table.get("log", False)
    assert not isinstance(low, str)
    assert not isinstance(high, str)
    if not isinstance(log, bool):
        problem = f"log is {errors.show_value(log)}, neither true nor false"
    elif low >= high:
        problem = f"{format_value(low)} is not below {format_value(high)}"
    elif log and low <= 0:
        problem = "a logarithmic range starts above 0"
    if problem:
        raise UsageError(f"The range of {name} is invalid: {problem}.", f"Write it like {SYNTAX}.")
    return Range(low, high, log)


def _parse_choice(name: str, value: Any) -> Value:
    """Parse one value of the setting's type, within its bounds."""
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
