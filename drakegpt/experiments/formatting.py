"""What the screen, the figures and the page say alike.

Loads nothing else, so that help is quick.
"""

from collections.abc import Iterable, Sequence

NOISE = "≈: within noise, neither gain nor loss."


def format_or_blank(value: float | None, form: str) -> str:
    """A number in the given format; nothing where it is not known."""
    return "" if value is None else format(value, form)


def format_signed(value: float) -> str:
    """A difference of losses with its sign; what rounds to zero has a plus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def format_difference(value: float, *, within_noise: bool) -> str:
    """A difference of losses in a table, marked where it is noise."""
    return f"≈ {format_signed(value)}" if within_noise else format_signed(value)


def describe_seeds(counts: Iterable[int]) -> str:
    """What means and ± are of, for rows of so many seeds; nothing where there are no means."""
    different = sorted(set(counts))
    if different[-1:] <= [1]:
        return ""
    return f"Means of {format_range(different)} seeds each; ±: their sample standard deviation."


def format_range(numbers: Sequence[int]) -> str:
    """Whole numbers in ascending order as people say them: 700, or 385 to 560."""
    ends = dict.fromkeys([*numbers[:1], *numbers[-1:]])
    return " to ".join(f"{number:,}" for number in ends)
