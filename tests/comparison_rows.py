"""Made-up rows of a comparison."""

import dataclasses

from drakegpt.config import LADDER
from drakegpt.experiments.results import ResultRow, RunResult

RESULT = RunResult(
    run="r", seed=1, train_loss=2.5, val_loss=2.5, best_val_loss=2.5, bits_per_character=3.6,
    tokens_per_second=1.0, seconds=1.0, iterations=10,
    evaluations=({"iteration": 5, "train_loss": 2.6, "val_loss": 2.6},
                 {"iteration": 10, "train_loss": 2.5, "val_loss": 2.5}),
)  # fmt: skip
BLANK = ResultRow(model="BigramLM", size="default", parameters=1, results=(RESULT,))


def row(*results, **changes):
    """A row of runs that differ from the blank one in what is given for each."""
    made = tuple(dataclasses.replace(RESULT, **values) for values in results or ({},))
    return dataclasses.replace(BLANK, results=made, **changes)


def rows(*losses):
    """Neighbouring rungs from the first on, with these losses."""
    return [
        row({"train_loss": loss}, model=name) for name, loss in zip(LADDER, losses, strict=False)
    ]


def evaluated(*losses):
    """Evaluations with these training and validation losses, every ten iterations."""
    return tuple(
        {"iteration": 10 * number, "train_loss": train_loss, "val_loss": val_loss}
        for number, (train_loss, val_loss) in enumerate(losses, 1)
    )
