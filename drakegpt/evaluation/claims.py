"""What the documentation of the original DrakeGPT claims, tested on the runs that are here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from drakegpt.config import LADDER, SIZES
from drakegpt.evaluation.rows import OVERFITTING_NATS, Row

INTRODUCTION = "What the original DrakeGPT's documentation claims of its runs, tested on these:"
MOST_FACTOR_NATS = 10.0  # a model that is so far behind has not learnt at all


@dataclass(frozen=True)
class Claim:
    """A statement of the original's documentation, tested on these runs."""

    claim: str
    holds: bool | None  # None: these runs cannot tell
    finding: str


def check_claims(rows: Sequence[Row]) -> list[Claim]:
    """Each claim, for each size that the ladder's `rows` have."""
    return [claim for size in SIZES for claim in _claims(size, rows)]


def _claims(size: str, all_rows: Sequence[Row]) -> list[Claim]:
    """The original's three claims, for the rows of one size; none of a single row."""
    rows = [row for row in all_rows if row.size == size]
    if len(rows) < 2:
        return []
    claims = [_falls_at_each_rung(size, rows), _several_overfit(size, rows)]
    if rows[-1].model == LADDER[-1]:
        claims.insert(1, _last_is_ahead(size, rows))
    return claims


def _falls_at_each_rung(size: str, rows: Sequence[Row]) -> Claim:
    steps = [row for row in rows if row.train_gain is not None]
    rises = [row for row in steps if (row.train_gain or 0.0) <= 0]
    finding = "; ".join(
        f"{row.model} is {-(row.train_gain or 0.0):.3f} nats above the rung before" for row in rises
    )
    complete = len(rows) == len(LADDER)
    falls = f"It falls at each of the {len(steps)} steps between neighbours"
    return Claim(
        f"The training loss falls with each added component ({size} size).",
        False if rises else (True if complete else None),
        (finding or (falls if steps else "None of these are neighbours")) + ".",
    )


def _last_is_ahead(size: str, rows: Sequence[Row]) -> Claim:
    last, others = rows[-1], rows[:-1]
    next_best = min(others, key=lambda row: row.train_loss)
    ahead = next_best.train_loss - last.train_loss
    factor = f", a factor of {math.exp(ahead):.2f}" if 0 < ahead < MOST_FACTOR_NATS else ""
    where = "ahead of" if ahead > 0 else "behind"
    published = " (published, scaled: 1.35 nats, a factor of 3.86)" if size == "scaled" else ""
    complete = len(rows) == len(LADDER)
    return Claim(
        f"{last.model} has the lowest training loss ({size} size).",
        False if ahead <= 0 else (True if complete else None),
        f"It ends {abs(ahead):.3f} nats {where} {next_best.model}{factor}{published}.",
    )


def _several_overfit(size: str, rows: Sequence[Row]) -> Claim:
    overfit = [row for row in rows if row.overfits_from is not None]
    named = "; ".join(
        f"{row.model} by {row.overfits_by:.3f} nats, from iteration {row.overfits_from:,} on"
        for row in overfit
    )
    # A run whose training is not on record may have overfitted unseen.
    told = len(rows) == len(LADDER) and all(row.evaluations for row in rows)
    return Claim(
        f"Several models overfit: validation rises while training falls ({size} size).",
        True if len(overfit) > 1 else (False if told else None),
        f"By more than {OVERFITTING_NATS} nats on the whole validation split: {named or 'none'}.",
    )
