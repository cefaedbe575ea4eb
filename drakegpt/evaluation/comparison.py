"""The ladder side by side: one row per model and size, the gain of each rung, the claims.

Every figure in a row is exact (whole splits) or measured (times); the curves
are the estimates recorded while training. The original's claims are computed
from these runs, whether they come out true or not.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from drakegpt.config import MODEL_NAMES, SIZES
from drakegpt.evaluation.parameters import count_parameters, published_parameters
from drakegpt.evaluation.scoring import score
from drakegpt.training.run import Run, latest_run

# A rise of the validation loss by less than this since its lowest estimate may be chance.
OVERFITTING_NATS = 0.01


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run in the comparison. Losses in nats per character, over whole splits."""

    model: str
    size: str
    parameters: int
    published: int
    train_loss: float
    val_loss: float
    bits_per_character: float
    perplexity: float
    train_gain: float | None  # how far the loss fell against the rung before
    val_gain: float | None
    tokens_per_second: float | None  # None for imported runs
    seconds: float | None
    iterations: int | None
    seed: int
    run: str
    evaluations: tuple[dict[str, Any], ...]

    @property
    def label(self) -> str:
        """The model's name, with its size where that is not the default."""
        return self.model + (" (scaled)" if self.size == "scaled" else "")


@dataclass(frozen=True)
class Claim:
    """A statement of the original's documentation, tested on these runs."""

    claim: str
    holds: bool
    finding: str


@dataclass(frozen=True)
class Comparison:
    """All rows of a dataset, and what follows from them."""

    data: str
    rows: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]  # (model, size) without a run
    claims: tuple[Claim, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "data": self.data,
            "rows": [asdict(row) for row in self.rows],
            "missing": [{"model": model, "size": size} for model, size in self.missing],
            "claims": [asdict(claim) for claim in self.claims],
        }


def latest_runs(data: str) -> dict[tuple[str, str], Run]:
    """The latest run of each model and size on a dataset, in the order of the ladder."""
    found = {
        (model, size): latest_run(model, size, data) for size in SIZES for model in MODEL_NAMES
    }
    return {key: run for key, run in found.items() if run is not None}


def missing_models(data: str, sizes: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """(model, size) pairs without a run: of `sizes`, or of each size that has been begun."""
    runs = latest_runs(data)
    wanted = sizes or [s for s in SIZES if any(size == s for _, size in runs)] or ["default"]
    return tuple(
        (model, size) for size in wanted for model in MODEL_NAMES if (model, size) not in runs
    )


def compare(data: str, device_name: str = "auto") -> Comparison:
    """Score the latest run of each model and size on `data` and set them side by side."""
    rows: list[Row] = []
    for run in latest_runs(data).values():
        before = rows[-1] if rows and rows[-1].size == run.config.size else None
        rows.append(_row(run, before, device_name))
    claims = [claim for size in SIZES for claim in _claims(size, rows)]
    return Comparison(data, tuple(rows), missing_models(data), tuple(claims))


def _row(run: Run, before: Row | None, device_name: str) -> Row:
    scores = score(run, device_name)
    evaluations = run.evaluations
    last = evaluations[-1] if evaluations else {}
    return Row(
        model=run.config.model,
        size=run.config.size,
        parameters=sum(count_parameters(run.model_config).values()),
        published=published_parameters(run.model_config),
        train_loss=scores.train.loss,
        val_loss=scores.val.loss,
        bits_per_character=scores.val.bits_per_character,
        perplexity=scores.val.perplexity,
        train_gain=before.train_loss - scores.train.loss if before else None,
        val_gain=before.val_loss - scores.val.loss if before else None,
        tokens_per_second=last.get("tokens_per_second"),
        seconds=last.get("seconds"),
        iterations=last.get("iteration"),
        seed=run.config.seed,
        run=run.name,
        evaluations=tuple(evaluations),
    )


def _claims(size: str, all_rows: Sequence[Row]) -> list[Claim]:
    """The original's three claims, for the rows of one size; none of a single row."""
    rows = [row for row in all_rows if row.size == size]
    if len(rows) < 2:
        return []
    claims = [_falls_at_each_rung(size, rows), _several_overfit(size, rows)]
    if rows[-1].model == MODEL_NAMES[-1]:
        claims.insert(1, _last_is_ahead(size, rows))
    return claims


def _falls_at_each_rung(size: str, rows: Sequence[Row]) -> Claim:
    pairs = list(pairwise(rows))
    rises = [(a, b) for a, b in pairs if b.train_loss >= a.train_loss]
    finding = "; ".join(
        f"{b.model} is {b.train_loss - a.train_loss:.3f} nats above {a.model}" for a, b in rises
    )
    return Claim(
        f"The training loss falls with each added component ({size} size).",
        not rises,
        (finding or f"It falls at each of {len(pairs)} steps") + ".",
    )


def _last_is_ahead(size: str, rows: Sequence[Row]) -> Claim:
    last, others = rows[-1], rows[:-1]
    next_best = min(others, key=lambda row: row.train_loss)
    ahead = next_best.train_loss - last.train_loss
    factor = f", a factor of {math.exp(ahead):.2f}" if ahead > 0 else ""
    where = "ahead of" if ahead > 0 else "behind"
    published = " (published, scaled: 1.35 nats, a factor of 3.86)" if size == "scaled" else ""
    return Claim(
        f"{last.model} has the lowest training loss ({size} size).",
        ahead > 0,
        f"It ends {abs(ahead):.3f} nats {where} {next_best.model}{factor}{published}.",
    )


def _several_overfit(size: str, rows: Sequence[Row]) -> Claim:
    rises = {}
    for row in rows:
        if not row.evaluations:
            continue
        losses = [evaluation["val_loss"] for evaluation in row.evaluations]
        rise = losses[-1] - min(losses)
        fell_since = row.evaluations[losses.index(min(losses))]["train_loss"]
        if rise > OVERFITTING_NATS and row.evaluations[-1]["train_loss"] < fell_since:
            rises[row.model] = rise
    named = ", ".join(f"{model} (+{rise:.3f} nats)" for model, rise in rises.items()) or "none"
    return Claim(
        f"Several models overfit: validation rises while training falls ({size} size).",
        len(rises) > 1,
        f"Validation is above its lowest estimate by more than {OVERFITTING_NATS} nats "
        f"while training fell on: {named}.",
    )
