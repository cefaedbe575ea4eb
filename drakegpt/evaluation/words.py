"""What the screen, the figures and the page say alike.

Loads nothing else, so that help is quick.
"""

from collections.abc import Sequence


def or_blank(value: float | None, form: str) -> str:
    """A number in the given format; nothing where it is not known."""
    return "" if value is None else format(value, form)


def from_to(numbers: Sequence[int]) -> str:
    """Whole numbers in ascending order as people say them: 700, or 385 to 560."""
    ends = dict.fromkeys([*numbers[:1], *numbers[-1:]])
    return " to ".join(f"{number:,}" for number in ends)


def counted(number: int, noun: str) -> str:
    """So many of something: 1 run, 2,000 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
