"""drakegpt: how a GPT comes to be, on a songwriter's lyrics or your own text.

The command line is one way to use it; in a notebook or a script it is a library:

    import drakegpt as dg

    data = dg.load_dataset("sample")  # bundled; or a prepared dataset's name, or your file's path
    run = dg.train("TransformerLM", data, iters=2000, seed=1)
    scores = run.score()  # exact losses over whole splits
    print(scores.val.loss, scores.val.bits_per_character)
    print(run.generate("late night", length=200, seed=1))
    again = dg.load_run(run.name)  # every run is kept, and found by its name
    comparison = dg.compare(data, train=True, iters=2000, seed=1)
    print([(row.model, row.val_loss) for row in comparison.rows])
    dg.export_page("page.html", data=data)  # one file in which the models run, in any browser

`dg.fetch("shakespeare")` downloads a text; nothing else uses the network. Names are imported when
they are first used, so that `import drakegpt` does not load PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from drakegpt.version import __version__ as __version__

if TYPE_CHECKING:
    from drakegpt.config import ModelConfig, TrainConfig
    from drakegpt.library import (
        compare,
        export_page,
        fetch,
        generate,
        load_dataset,
        load_run,
        train,
    )

__all__ = [
    "ModelConfig",
    "TrainConfig",
    "compare",
    "export_page",
    "fetch",
    "generate",
    "load_dataset",
    "load_run",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "drakegpt.config" if name.endswith("Config") else "drakegpt.library"
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, imported or not, and what the module has besides."""
    return sorted({*globals(), *__all__})
