"""The JavaScript of the page: the engine that runs models, and the views of it.

The files are joined in a fixed order; nothing is compiled.
"""

from importlib import resources

# Each file uses only what stands before it.
ENGINE = ("weights", "models", "tokenizers", "sampling", "ngrams", "guesses", "worker")


def read_engine() -> str:
    """Return the engine, which a worker of the page runs."""
    return _join("engine", ENGINE)


def _join(folder: str, names: tuple[str, ...]) -> str:
    source = resources.files("drakegpt.report") / folder
    return "\n".join((source / f"{name}.js").read_text(encoding="utf-8") for name in names)
