"""What each idea of the best recipe brings: TransformerLM trained with one more idea at a time.

The first variant is a usual recipe, AdamW as nanoGPT uses it. Each further one takes over some
settings of recipe best, the last one all of them; ideas that the recipe does not use at the
given size or length are left out. Then come the recipe mixed with n-gram counts, and an ensemble
of the seeds. The first and the last recipe are trained longer as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import torch

from drakegpt.compute.device import choose_device
from drakegpt.data.dataset import Dataset
from drakegpt.errors import RunError, UsageError
from drakegpt.evaluation.noise import Difference, compare_losses
from drakegpt.experiments.experiment import Collection, Experiment
from drakegpt.experiments.formatting import format_difference
from drakegpt.experiments.results import aggregate_runs
from drakegpt.runs.mixtures import load_run_mixture, score_run_mixture
from drakegpt.runs.run import Run
from drakegpt.runs.start import resolve_run

MODEL = "TransformerLM"
# A size that a laptop trains in minutes.
SHAPE: dict[str, Any] = {
    "context_length": 128, "embedding_dim": 128, "num_heads": 4, "num_layers": 4, "batch_size": 16,
}  # fmt: skip
# https://github.com/karpathy/nanoGPT, config/train_shakespeare_char.py, with a linear decay.
USUAL_RECIPE: dict[str, Any] = {
    "optimizer": "adamw", "schedule": "hold", "hold_share": 0.0, "max_lr": 1e-3, "base_lr": 1e-4,
    "warmup_iters": 100, "weight_decay": 0.1, "weight_decay_on": "matrices", "adam_beta2": 0.99,
    "grad_clip": 1.0, "ema": 0.0, "dropout": 0.0, "embedding_dropout": 0.0, "token_dropout": 0.0,
    "positions": "learned", "init": "gpt2",
}  # fmt: skip
# The settings that each idea takes over from recipe best.
IDEAS: dict[str, tuple[str, ...]] = {
    "+ Muon": (
        "optimizer", "muon_lr", "muon_momentum", "muon_weight_decay", "muon_split_qkv", "max_lr",
        "adam_beta2", "weight_decay", "weight_decay_on", "grad_clip", "init",
    ),
    "+ rate falls to 0, averaged weights": (
        "schedule", "hold_share", "base_lr", "warmup_iters", "ema",
    ),
    "+ rotary positions": ("positions",),
    "+ dropout": ("dropout", "embedding_dropout"),
    "+ token dropout": ("token_dropout",),
}  # fmt: skip
USUAL, COUNTED = "AdamW", "with n-gram counts"
LONGER = 3  # times as many iterations
LONGER_USUAL, LONGER_BEST = "AdamW, longer", "recipe best, longer"


def plan(given: Mapping[str, Any], size: str, data: Dataset, seeds: Sequence[int]) -> Experiment:
    """Plan all variants; `given` changes the shape and the length of all.

    Raises `UsageError` for a setting that an idea changes, and for a length in minutes or epochs.
    """
    fixed = {
        "recipe",
        *USUAL_RECIPE,
        *(name for idea in IDEAS.values() for name in idea),
    }
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
            variants[name] = variant
    longer = {"iters": LONGER * best.iters}
    variants[LONGER_USUAL] = resolve_run(MODEL, size, data, common, USUAL_RECIPE, longer)
    variants[LONGER_BEST] = resolve_run(MODEL, size, data, common, longer)
    return Experiment(variants, seeds)


@dataclass(frozen=True)
class StepRow:
    """A recipe, the losses of its runs, and how they differ from those of another row."""

    name: str
    iterations: int
    val_losses: tuple[float, ...]  # exact, nats per token: one for each seed, or of an ensemble
    seconds: float | None = None
    change: Difference | None = None  # from the row above; of mixtures, from the recipe

    @property
    def val_loss(self) -> float:
        """The mean of the losses."""
        return fmean(self.val_losses)

    @property
    def spread(self) -> float | None:
        """The sample standard deviation of the losses, if there are several."""
        return stdev(self.val_losses) if len(self.val_losses) > 1 else None

    @property
    def formatted_change(self) -> str:
        """The change of the validation loss, with a mark if it is noise."""
        if not self.change:
            return ""
        return format_difference(-self.change.decrease, within_noise=self.change.within_noise)

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the row; the change is that of the mean loss."""
        row = {"recipe": self.name, "iterations": self.iterations, "seconds": self.seconds}
        figures = {"val_loss": self.val_loss, "val_losses": self.val_losses, "spread": self.spread}
        return row | figures | ({"change": -self.change.decrease} if self.change else {})


def score_rows(collection: Collection, device_name: str) -> list[StepRow]:
    """Score all runs, ensembles and mixtures; raises `RunError` if a variant has no run."""
    found = {name: list(runs.values()) for name, runs in collection.runs.items()}
    if lacking := [name for name, runs in found.items() if not runs]:
        problem = next(iter(collection.damaged.values()), f"The variant {lacking[0]} is missing.")
        raise RunError(problem, "Train it again: the same command with --train.")
    rows: list[StepRow] = []
    for (name, runs), following in zip(found.items(), [*list(found)[1:], ""], strict=True):
        before = rows[-1] if rows and name != LONGER_USUAL else None
        rows.append(_score_recipe(name, runs, before, device_name))
        if following in (LONGER_USUAL, ""):
            rows += _score_mixtures(runs, rows[-1], choose_device(device_name))
    return rows


def _score_recipe(
    name: str, runs: Sequence[Run], before: StepRow | None, device_name: str
) -> StepRow:
    scored = aggregate_runs(runs, device_name)
    losses = tuple(result.val_loss for result in scored.results)
    change = compare_losses(before.val_losses, losses) if before else None
    return StepRow(name, runs[0].config.iters, losses, scored.seconds, change)


def _score_mixtures(
    runs: Sequence[Run], recipe: StepRow, device: torch.device
) -> Iterator[StepRow]:
    """Score runs of a recipe each mixed with counts, and if there are several, as an ensemble."""
    mixed = [score_run_mixture(load_run_mixture([run], device, counts=True)) for run in runs]
    losses = tuple(scores.mixture.loss for scores in mixed if scores.mixture)
    change = compare_losses(recipe.val_losses, losses)
    yield replace(recipe, name=COUNTED, val_losses=losses, change=change)
    if len(runs) == 1:
        return
    scores = score_run_mixture(load_run_mixture(runs, device, counts=True))
    seconds = recipe.seconds and recipe.seconds * len(runs)
    name = f"ensemble of {len(runs)} seeds"
    for title, score in ((name, scores.ensemble), (f"{name}, {COUNTED}", scores.mixture)):
        if score:
            change = compare_losses(recipe.val_losses, [score.loss])
            yield StepRow(title, recipe.iterations, (score.loss,), seconds, change)
