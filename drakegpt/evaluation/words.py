"""What the screen, the figures and the page say alike.

Loads nothing else, so that help is quick.
"""

ENTROPY = "entropy of the source"


def or_blank(value: float | None, form: str) -> str:
    """A number in the given format; nothing where it is not known."""
    return "" if value is None else format(value, form)
