"""What helps a model that overfits: the same model with each remedy, side by side.

A model overfits when it goes on learning its training text by heart while it
becomes worse at any other. Here is a model that does, and what is tried on it;
how far each falls is told by exact losses, as everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from drakegpt.data.dataset import Dataset
from drakegpt.errors import RunError, UsageError
from drakegpt.evaluation.noise import Difference
from drakegpt.experiments.experiment import Collection, Experiment
from drakegpt.experiments.results import (
    ResultRow,
    RunResult,
    aggregate_runs,
    compare_losses,
    find_lowest,
    val_loss,
)
from drakegpt.runs.start import resolve_run
from drakegpt.wording import pluralize

MODEL = "TransformerLM"
NONE = "none"
# Large for a text of some hundred thousand characters, nothing dropped, at a high rate that stays:
# on the bundled lyrics validation is lowest after half of these iterations.
OVERFITTING: dict[str, Any] = {
    "context_length": 64,
    "embedding_dim": 128,
    "num_layers": 4,
    "batch_size": 32,
    "dropout": 0.0,
    "optimizer": "muon",
    "muon_lr": 0.03,
    "muon_momentum": 0.85,
    "schedule": "constant",
    "base_lr": 1e-2,
    "max_lr": 1e-2,
    "iters": 700,
    "eval_iters": 20,
}
# Each changes one thing: when training ends, how its steps shrink, or what is dropped.
REGULARIZERS: dict[str, dict[str, Any]] = {
    NONE: {},
    "early stopping": {"patience": 3},
    "step decay": {"schedule": "step", "decay_factor": 0.5},
    "plateau decay": {"schedule": "plateau", "decay_factor": 0.5},
    "dropout 0.2": {"dropout": 0.2},
    "dropout 0.3": {"dropout": 0.3},
}
STEPS = 5  # of step decay in a run
# What the remedies change, so that it cannot be given.
COMPARED = ("patience", "schedule", "decay_factor", "decay_interval", "dropout")


def plan(given: Mapping[str, Any], size: str, data: Dataset, seeds: Sequence[int]) -> Experiment:
    """The model without a remedy and with each; `given` changes the settings of all.

    Raises `UsageError` for a setting that is a remedy itself, and for a length in
    minutes or epochs.
    """
    if given.get("minutes") or given.get("epochs"):
        raise UsageError("All remedies get as many iterations.", "Give --iters, or leave it out.")
    for name in COMPARED:
        if name in given:
            raise UsageError(f"{name} is what --remedies compares.", f"Leave {name} out.")
    common = OVERFITTING | dict(given)
    common["base_lr"] = min(common["base_lr"], common["max_lr"])
    common["decay_interval"] = max(1, common["iters"] // STEPS)
    variants = {
        name: resolve_run(MODEL, size, data, common, changes)
        for name, changes in REGULARIZERS.items()
    }
    return Experiment(variants, seeds)


def score_rows(collection: Collection, device_name: str) -> dict[str, ResultRow]:
    """Score all runs: a row for each remedy that has any.

    Raises `RunError` where the model without a remedy has none.
    """
    found = {name: list(runs.values()) for name, runs in collection.runs.items()}
    if not found[NONE]:
        problem = next(iter(collection.damaged.values()), "The model without a remedy is missing.")
        raise RunError(problem, "Train it again: the same command with --train.")
    return {name: aggregate_runs(runs, device_name) for name, runs in found.items() if runs}


def summarize(regularized: Mapping[str, ResultRow]) -> list[str]:
    """What the rows say, in sentences: whether the model overfits, and what helped most."""
    plain = regularized[NONE]
    if plain.overfits_from is None:
        return ["This model does not overfit, so there is nothing to remedy."]
    found = [
        f"Without a remedy validation is lowest after "
        f"{pluralize(plain.overfits_from, 'iteration')} and then "
        f"rises by {plain.overfits_by:.3f} nats, while training falls to {plain.train_loss:.3f}."
    ]
    for name, row in regularized.items():
        ends = compare_losses(plain, row, val_loss)
        best = compare_losses(plain, row, best_val_loss)
        if name != NONE and ends.finite and best.finite:
            found.append(
                f"{name.capitalize()} ends {_apart(ends)}; by the best weights of both, "
                f"{_apart(best)}."
            )
    return [*found, *_lowest(regularized)]


def best_val_loss(result: RunResult) -> float:
    """The loss of the weights whose estimate was lowest."""
    return result.best_val_loss


def _apart(ends: Difference) -> str:
    return ends.where("lower", "higher", "level") + ends.grounds


def _lowest(regularized: Mapping[str, ResultRow]) -> list[str]:
    """Which ends lowest, and what noise does not tell from it."""
    ends = find_lowest(regularized.values(), val_loss)
    least, *level = [
        name for row in ends for name, other in regularized.items() if other is row
    ] or [""]
    near = f"; within noise of it: {', '.join(level)}" if level else ""
    return [f"The lowest loss in the end, {ends[0].val_loss:.3f}: {least}{near}."] if ends else []
