"""The JavaScript of the page: the engine that runs models, and the views of it.

The files are joined in a fixed order; nothing is compiled. The engine is there to be read, with
its comments; those of the views stay out of pages, which are sent around.
"""

import re
from importlib import resources

# Each file uses only what stands before it.
ENGINE = ("weights", "models", "tokenizers", "sampling", "ngrams", "guesses", "worker")
VIEWS = (
    "elements", "page", "write", "ladder", "guess_game", "guess_board", "guess_result", "guess",
    "surprise", "attention", "learning",
)  # fmt: skip


def read_engine() -> str:
    """Return the engine, which a worker of the page runs."""
    return _join("engine", ENGINE)


def read_views() -> str:
    """Return the script of the page, which draws the views and asks the engine."""
    return _without_comments(_join("views", VIEWS))


def read_views_style() -> str:
    """Return the style of the views, which stands after that of the page."""
    source = resources.files("drakegpt.report") / "views" / "views.css"
    return _without_comments(source.read_text(encoding="utf-8"))


def _without_comments(text: str) -> str:
    """Remove the comments that begin a line and end one."""
    return re.sub(r"^ */\*.*?\*/\n|^ *//[^\n]*\n", "", text, flags=re.MULTILINE | re.DOTALL)


def _join(folder: str, names: tuple[str, ...]) -> str:
    source = resources.files("drakegpt.report") / folder
    return "\n".join((source / f"{name}.js").read_text(encoding="utf-8") for name in names)
