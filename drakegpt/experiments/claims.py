"""The claims of the original DrakeGPT's documentation, checked on these runs.

Each claim is stated as strongly as in the original, and checked on each set of rows that could
support it: the six models of one size, and the set that the original shows, TransformerLM at
scaled size beside the five others at default size. A claim is true or false only by differences
beyond noise, else unknown. Rows with other settings or non-finite losses are excluded.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from drakegpt.config import ORIGINAL_MODELS, SIZES
from drakegpt.evaluation import noise
from drakegpt.evaluation.noise import Difference
from drakegpt.experiments.results import ResultRow, RunResult, compare_losses

TITLE = "The original's claims, checked"
MAX_FACTOR_NATS = 10.0  # a model that is further behind has diverged
# Overfitting: from half-way on, training loss falls by more than this and validation does not.
PLATEAU_NATS = 0.01
VERDICTS = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True)
class Claim:
    """A statement of the original's documentation, checked on these runs."""

    claim: str
    holds: bool | None  # None: unknown from these runs
    finding: str

    @property
    def verdict(self) -> str:
        """The verdict in one word."""
        return VERDICTS[self.holds]


def check_claims(rows: Sequence[ResultRow]) -> list[Claim]:
    """Check each claim on each set of at least two of the ladder's `rows`; presets excluded."""
    rows = [
        row
        for row in rows
        if row.preset == "none" and not row.differs and row.model in ORIGINAL_MODELS
    ]
    sets = {f"{size} size": [row for row in rows if row.size == size] for size in SIZES}
    *small, _ = ORIGINAL_MODELS
    shown = [row for row in rows if row.size == "default" and row.model in small]
    large = [row for row in rows if row.size == "scaled" and row.model == ORIGINAL_MODELS[-1]]
    if shown and large and shown[0].shared == large[0].shared:
        sets["as the original shows it: the last one scaled"] = [*shown, *large]
    return [
        claim
        for name, of_set in sets.items()
        if len(of_set) > 1
        for claim in _check_set(name, of_set)
    ]


def _check_set(name: str, rows: Sequence[ResultRow]) -> list[Claim]:
    """Check the claims on one set of rows, in the order of the ladder."""
    claims = [_check_steps(name, rows), _check_overfitting(name, rows)]
    if rows[-1].model == ORIGINAL_MODELS[-1]:
        claims.insert(1, _check_last_is_lowest(name, rows))
    return claims


def _decide(rows: Sequence[ResultRow], found: Sequence[Difference]) -> bool | None:
    """Decide whether the loss decreases in all of these steps; true needs all models."""
    if any(step.higher for step in found):
        return False
    complete = len(rows) == len(ORIGINAL_MODELS)
    return True if complete and all(step.lower for step in found) else None


def get_train_loss(result: RunResult) -> float:
    """Return the loss by which the original compares models."""
    return result.train_loss


def _check_steps(name: str, rows: Sequence[ResultRow]) -> Claim:
    steps = [
        (row, compare_losses(before, row, get_train_loss))
        for before, row in pairwise(rows)
        if ORIGINAL_MODELS.index(row.model) == ORIGINAL_MODELS.index(before.model) + 1
    ]
    findings = [_describe_step(row, step) for row, step in steps if not step.lower]
    if not findings:
        falls = f"It falls at {_count_steps(len(steps))} between neighbours"
        findings = [falls if steps else "No neighbouring models to compare"]
    return Claim(
        f"The training loss falls with each added component ({name}).",
        _decide(rows, [step for _, step in steps]),
        f"{'; '.join(findings)}.{_note_single_seeds(rows)}",
    )


def _count_steps(count: int) -> str:
    return "the only step" if count == 1 else f"each of the {count} steps"


def _describe_step(row: ResultRow, step: Difference) -> str:
    """Describe a step at which the loss does not fall."""
    if not step.finite:
        return f"{row.model} or the model before has a loss that is not finite"
    where = step.where("below", "above", "level with")
    return f"{row.model} is {where} the model before{step.remarks}"


def _note_single_seeds(rows: Sequence[ResultRow]) -> str:
    """Name the rows of a single seed among means over several; empty if there are none."""
    single = [row.model for row in rows if len(row.seeds) == 1]
    if not single or len(single) == len(rows):
        return ""
    return f" Single seed, compared with means over several: {', '.join(single)}."


def _check_last_is_lowest(name: str, rows: Sequence[ResultRow]) -> Claim:
    last, others = rows[-1], rows[:-1]
    known = [row for row in others if math.isfinite(row.train_loss)]
    found = [compare_losses(row, last, get_train_loss) for row in others]
    finding = "No finite losses to compare"
    if known and math.isfinite(last.train_loss):
        next_best = min(known, key=lambda row: row.train_loss)
        finding = _describe_lead(next_best, compare_losses(next_best, last, get_train_loss))
    published = ""
    if last.size == "scaled":
        published = " Published: 1.35 nats, called 4.85 times better; e^1.35 = 3.86."
    return Claim(
        f"{last.model} has the lowest training loss ({name}).",
        _decide(rows, found),
        f"{finding}.{published}",
    )


def _describe_lead(next_best: ResultRow, ahead: Difference) -> str:
    """Describe by how much the last model is ahead of the lowest of the others."""
    factor = ""
    if ahead.lower and ahead.decrease < MAX_FACTOR_NATS:
        factor = f", e^{ahead.decrease:.2f} = {math.exp(ahead.decrease):.2f} times"
    where = ahead.where("ahead of", "behind", "level with")
    return f"It ends {where} {next_best.model}{factor}{ahead.remarks}"


def _check_overfitting(name: str, rows: Sequence[ResultRow]) -> Claim:
    """Check that some models overfit; the original names neither models nor amounts."""
    moves = {row.model: _measure_second_half(row) if row.comparable else None for row in rows}
    found = {model: m for model, m in moves.items() if m and m[0].lower and not m[1].lower}
    named = "; ".join(
        f"{model}: training falls by {train.amount}, validation {_describe_change(val)}"
        for model, (train, val) in found.items()
    )
    # A run without a recorded curve may have overfitted.
    complete = len(rows) == len(ORIGINAL_MODELS) and all(moves.values())
    return Claim(
        "For some of the models, training loss goes on falling while validation loss plateaus "
        f"or increases ({name}).",
        True if found else (False if complete else None),
        f"Estimates from half-way to the end, by more than {PLATEAU_NATS} nats: {named or 'none'}.",
    )


def _measure_second_half(row: ResultRow) -> tuple[Difference, Difference] | None:
    """Return the decrease of training and validation loss from half-way to the end.

    Computed for each run by itself, so that the noise is that of the decreases. `None`
    without a curve for each run, or where a loss is not finite.
    """
    if len(row.histories) < len(row.results) or any(len(h) < 2 for h in row.histories):
        return None
    falls = tuple(
        noise.compare_within_runs(
            [_decrease_from_halfway(history, key) for history in row.histories], PLATEAU_NATS
        )
        for key in ("train_loss", "val_loss")
    )
    train, val = falls
    return (train, val) if train.finite and val.finite else None


def _decrease_from_halfway(history: Sequence[Mapping[str, Any]], key: str) -> float:
    *before, last = history
    half = last["iteration"] / 2
    middle = next((line for line in before if line["iteration"] >= half), before[-1])
    return float(middle[key] - last[key])


def _describe_change(change: Difference) -> str:
    return f"rises by {change.amount}" if change.higher else "stays level"
