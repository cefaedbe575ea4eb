"""What each idea of the best recipe brings: TransformerLM trained with one more idea at a time.

The first variant is a usual recipe, AdamW as nanoGPT uses it. Each further one takes over some
settings of recipe best; the last is recipe best. Ideas that the recipe does not use at the given
size or length are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drakegpt.data.dataset import Dataset
from drakegpt.errors import RunError, UsageError
from drakegpt.evaluation.noise import Difference
from drakegpt.experiments.experiment import Collection, Experiment
from drakegpt.experiments.formatting import format_difference
from drakegpt.experiments.results import ResultRow, aggregate_runs, compare_losses, val_loss
from drakegpt.runs.start import resolve_run

MODEL = "TransformerLM"
# A size that a laptop trains in minutes.
SHAPE: dict[str, Any] = {
    "context_length": 128, "embedding_dim": 128, "num_heads": 4, "num_layers": 4, "batch_size": 16,
}  # fmt: skip
USUAL = "AdamW"
# https://github.com/karpathy/nanoGPT, config/train_shakespeare_char.py, with a linear decay.
USUAL_RECIPE: dict[str, Any] = {
    "optimizer": "adamw", "schedule": "hold", "hold_share": 0.0, "max_lr": 1e-3, "base_lr": 1e-4,
    "warmup_iters": 100, "weight_decay": 0.1, "weight_decay_on": "matrices", "adam_beta2": 0.99,
    "grad_clip": 1.0, "ema": 0.0, "dropout": 0.0, "embedding_dropout": 0.0, "token_dropout": 0.0,
    "positions": "learned", "init": "gpt2",
}  # fmt: skip
# The settings that each idea takes over from recipe best.
IDEAS: dict[str, tuple[str, ...]] = {
    "Muon": (
        "optimizer", "muon_lr", "muon_momentum", "muon_weight_decay", "muon_split_qkv", "max_lr",
        "adam_beta2", "weight_decay", "weight_decay_on", "grad_clip",
    ),
    "rate falls to 0, averaged weights": (
        "schedule", "hold_share", "base_lr", "warmup_iters", "ema"
    ),
    "dropout": ("dropout", "embedding_dropout"),
    "rotary positions": ("positions", "init"),
    "token dropout": ("token_dropout",),
}  # fmt: skip
LONGER = 3  # times as many iterations, of the first and the last variant
LONGER_USUAL = f"{USUAL}, longer"


def plan(given: Mapping[str, Any], size: str, data: Dataset, seeds: Sequence[int]) -> Experiment:
    """Plan a variant for each idea, and the first and the last one trained longer.

    `given` changes shape and length of all. Raises `UsageError` for a setting that an idea
    changes, and for a length in minutes or epochs.
    """
    fixed = {*USUAL_RECIPE, *(name for names in IDEAS.values() for name in names), "recipe"}
    if wrong := [name for name in given if name in fixed]:
        raise UsageError(
            f"{wrong[0]} is one of the settings that are compared.", f"Leave {wrong[0]} out."
        )
    if given.get("minutes") or given.get("epochs"):
        raise UsageError(
            "All variants have the same number of iterations.", "Give --iters, or leave it out."
        )
    common = {**(SHAPE if size == "default" else {}), **given, "recipe": "best"}
    best = resolve_run(MODEL, size, data, common)
    settings = dict(USUAL_RECIPE)
    variants = {USUAL: resolve_run(MODEL, size, data, common, settings)}
    for name, adopted in IDEAS.items():
        settings |= {key: getattr(best, key) for key in adopted}
        variant = resolve_run(MODEL, size, data, common, settings)
        if variant not in variants.values():
            variants[f"+ {name}"] = variant
    longer = {"iters": LONGER * best.iters}
    variants[LONGER_USUAL] = resolve_run(MODEL, size, data, common, USUAL_RECIPE, longer)
    variants["all, longer"] = resolve_run(MODEL, size, data, common, longer)
    return Experiment(variants, seeds)


@dataclass(frozen=True)
class StepRow:
    """A variant, its results, and how its loss differs from the variant before it."""

    name: str
    result: ResultRow
    change: Difference | None = None  # none for the first, and for the longer of the usual recipe

    @property
    def formatted_change(self) -> str:
        """The change of the validation loss, with a mark if it is noise."""
        if not self.change:
            return ""
        return format_difference(-self.change.decrease, within_noise=self.change.within_noise)

    def to_json(self) -> dict[str, Any]:
        """Return the row's figures, and the change of the validation loss in nats."""
        change = {"change": -self.change.decrease} if self.change else {}
        return {"recipe": self.name, **change, **self.result.to_json()}


def score_rows(collection: Collection, device_name: str) -> list[StepRow]:
    """Score all runs: a row for each variant; raises `RunError` if one has none."""
    found = {name: list(runs.values()) for name, runs in collection.runs.items()}
    if lacking := [name for name, runs in found.items() if not runs]:
        problem = next(iter(collection.damaged.values()), f"The variant {lacking[0]} is missing.")
        raise RunError(problem, "Train it again: the same command with --train.")
    results = {name: aggregate_runs(runs, device_name) for name, runs in found.items()}
    rows: list[StepRow] = []
    for name, result in results.items():
        first = not rows or name == LONGER_USUAL
        change = None if first else compare_losses(rows[-1].result, result, val_loss)
        rows.append(StepRow(name, result, change))
    return rows
