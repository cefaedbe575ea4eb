"""Formats that the command line, the plots and the report share.

Imports nothing, so that `--help` stays fast.
"""

from collections.abc import Iterable, Sequence

NOISE = "≈: within noise, neither a gain nor a loss."


def format_or_blank(value: float | None, form: str) -> str:
    """Format a number; an unknown one as an empty text."""
    return "" if value is None else format(value, form)


def format_with_spread(loss: float, spread: float | None) -> str:
    """Format a mean loss with its standard deviation over seeds, if that is known."""
    return f"{loss:.4f}" if spread is None else f"{loss:.4f} ± {spread:.4f}"


def format_signed(value: float) -> str:
    """Format a difference of losses with its sign; what rounds to zero has a plus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def format_difference(value: float, *, within_noise: bool) -> str:
    """Format a difference of losses for a table, with a mark if it is noise."""
    return f"≈ {format_signed(value)}" if within_noise else format_signed(value)


def describe_seeds(counts: Iterable[int]) -> str:
    """Explain means and ± for rows with these numbers of seeds; empty if all have one."""
    distinct = sorted(set(counts))
    if distinct[-1:] <= [1]:
        return ""
    return f"Means of {format_range(distinct)} seeds each; ±: their sample standard deviation."


def format_range(numbers: Sequence[int]) -> str:
    """Format the range of whole numbers in ascending order: 700, or 385 to 560."""
    ends = dict.fromkeys([*numbers[:1], *numbers[-1:]])
    return " to ".join(f"{number:,}" for number in ends)
