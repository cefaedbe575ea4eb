"""How long work says how far it is.

Not here: how that is shown (`cli.progress`), and what comes with the bytes of a text
(`data.corpus.StageProgress`).
"""

from collections.abc import Callable

Progress = Callable[[str, int, int], object]  # what is being done, how much is done, of how much


def silent(what: str, done: int, total: int) -> None:
    """Take a report and show nothing."""
