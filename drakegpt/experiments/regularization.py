"""An ablation of regularizers: one overfitting model, trained with each of them.

A model overfits when its training loss still falls while its validation loss rises.
`OVERFITTING` are settings of a model that does; `REGULARIZERS` change one thing each.
The variants are compared by exact losses.
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
# Large for a text of some hundred thousand characters, without dropout, at a high constant
# learning rate: on the bundled lyrics validation loss is lowest after half of the iterations.
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
# Each changes one thing: the end of training, the learning rate schedule, or dropout.
REGULARIZERS: dict[str, dict[str, Any]] = {
    NONE: {},
    "early stopping": {"patience": 3},
    "step decay": {"schedule": "step", "decay_factor": 0.5},
    "plateau decay": {"schedule": "plateau", "decay_factor": 0.5},
    "dropout 0.2": {"dropout": 0.2},
    "dropout 0.3": {"dropout": 0.3},
}
DECAY_STEPS = 5  # of step decay in a run
# The settings that regularizers change, which cannot be given.
COMPARED = ("patience", "schedule", "decay_factor", "decay_interval", "dropout")


def plan(given: Mapping[str, Any], size: str, data: Dataset, seeds: Sequence[int]) -> Experiment:
    """Plan the model without a regularizer and with each; `given` changes the settings of all.

    Raises `UsageError` for a setting that a regularizer changes, and for a length in
    minutes or epochs.
    """
    if given.get("minutes") or given.get("epochs"):
        raise UsageError(
            "All variants have the same number of iterations.", "Give --iters, or leave it out."
        )
    for name in COMPARED:
        if name in given:
            raise UsageError(
                f"{name} is one of the settings that are compared.", f"Leave {name} out."
            )
    common = OVERFITTING | dict(given)
    common["base_lr"] = min(common["base_lr"], common["max_lr"])
    common["decay_interval"] = max(1, common["iters"] // DECAY_STEPS)
    variants = {
        name: resolve_run(MODEL, size, data, common, changes)
        for name, changes in REGULARIZERS.items()
    }
    return Experiment(variants, seeds)


def score_rows(collection: Collection, device_name: str) -> dict[str, ResultRow]:
    """Score all runs: a row for each variant that has runs.

    Raises `RunError` if the model without a regularizer has none.
    """
    found = {name: list(runs.values()) for name, runs in collection.runs.items()}
    if not found[NONE]:
        problem = next(
            iter(collection.damaged.values()), "The model without a regularizer is missing."
        )
        raise RunError(problem, "Train it again: the same command with --train.")
    return {name: aggregate_runs(runs, device_name) for name, runs in found.items() if runs}


def summarize(regularized: Mapping[str, ResultRow]) -> list[str]:
    """Summarize the rows in sentences: whether the model overfits, and what helps most."""
    plain = regularized[NONE]
    if plain.overfits_from is None:
        return ["This model does not overfit, so regularizers have nothing to improve."]
    sentences = [
        "Without a regularizer the validation loss is lowest after "
        f"{pluralize(plain.overfits_from, 'iteration')} and then rises by "
        f"{plain.overfits_by:.3f} nats, while the training loss falls to {plain.train_loss:.3f}."
    ]
    for name, row in regularized.items():
        final = compare_losses(plain, row, val_loss)
        best = compare_losses(plain, row, best_val_loss)
        if name != NONE and final.finite and best.finite:
            sentences.append(
                f"{name.capitalize()}: final loss {_describe(final)}; best weights "
                f"{_describe(best)}."
            )
    return [*sentences, *_describe_lowest(regularized)]


def best_val_loss(result: RunResult) -> float:
    """Return the validation loss of the weights with the lowest estimate."""
    return result.best_val_loss


def _describe(change: Difference) -> str:
    return change.where("lower", "higher", "level") + change.remarks


def _describe_lowest(regularized: Mapping[str, ResultRow]) -> list[str]:
    """Name the variant with the lowest final loss, and those within noise of it."""
    lowest = find_lowest(regularized.values(), val_loss)
    if not lowest:
        return []
    best, *tied = [name for row in lowest for name, other in regularized.items() if other is row]
    near = f"; within noise of it: {', '.join(tied)}" if tied else ""
    return [f"The lowest final loss, {lowest[0].val_loss:.3f}: {best}{near}."]
