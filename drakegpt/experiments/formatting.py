"""What the screen, the figures and the page say alike.

Loads nothing else, so that help is quick.
"""

from collections.abc import Iterable, Sequence

NOISE = "≈: within noise, neither gain nor loss."


def or_blank(value: float | None, form: str) -> str:
    """A number in the given format; nothing where it is not known."""
    return "" if value is None else format(value, form)


def signed(value: float) -> str:
    """A difference of losses with its sign; what rounds to zero has a plus."""
    return f"{round(value, 4) + 0.0:+.4f}"


def measured(value: float, *, within_noise: bool) -> str:
    """A difference of losses in a table, marked where it is noise."""
    return f"≈ {signed(value)}" if within_noise else signed(value)


def of_seeds(counts: Iterable[int]) -> str:
    """What means and ± are of, for rows of so many seeds; nothing where there are no means."""
    different = sorted(set(counts))
    if different[-1:] <= [1]:
        return ""
    return f"Means of {from_to(different)} seeds each; ±: their sample standard deviation."


def from_to(numbers: Sequence[int]) -> str:
    """Whole numbers in ascending order as people say them: 700, or 385 to 560."""
    ends = dict.fromkeys([*numbers[:1], *numbers[-1:]])
    return " to ".join(f"{number:,}" for number in ends)
