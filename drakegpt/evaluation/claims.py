"""What the documentation of the original DrakeGPT claims, tested on the runs that are here.

Each claim is stated as strongly as it stands there, and tested on each set of rows that could
show it: six models of one size, and the set that the original shows, TransformerLM at scaled
size beside the five others at default size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from drakegpt.config import LADDER, SIZES
from drakegpt.evaluation.rows import Row

INTRODUCTION = "What the original DrakeGPT's documentation claims of its runs, tested on these"
MOST_FACTOR_NATS = 10.0  # a model that is so far behind has not learnt at all
# From half-way on: training falls by more than this, and validation does not.
PLATEAU_NATS = 0.01
VERDICTS = {True: "true", False: "false", None: "unknown"}


@dataclass(frozen=True)
class Claim:
    """A statement of the original's documentation, tested on these runs."""

    claim: str
    holds: bool | None  # None: these runs cannot tell
    finding: str

    @property
    def verdict(self) -> str:
        """In one word."""
        return VERDICTS[self.holds]


def check_claims(rows: Sequence[Row]) -> list[Claim]:
    """Each claim, on each set of at least two of the ladder's `rows`; none of a preset's."""
    rows = [row for row in rows if row.preset == "none"]
    sets = {f"{size} size": [row for row in rows if row.size == size] for size in SIZES}
    *small, _ = LADDER
    shown = [row for row in rows if row.size == "default" and row.model in small]
    large = [row for row in rows if row.size == "scaled" and row.model == LADDER[-1]]
    if shown and large:
        sets["as the original shows it: the last one scaled"] = [*shown, *large]
    return [
        claim for name, of_set in sets.items() if len(of_set) > 1 for claim in _claims(name, of_set)
    ]


def _claims(name: str, rows: Sequence[Row]) -> list[Claim]:
    """The claims on one set of rows, in the order of the ladder."""
    claims = [_falls_with_each_component(name, rows), _some_overfit(name, rows)]
    if rows[-1].model == LADDER[-1]:
        claims.insert(1, _last_is_lowest(name, rows))
    return claims


def _can_tell(rows: Sequence[Row]) -> bool:
    """Whether all models are there, each with losses that are numbers."""
    return len(rows) == len(LADDER) and all(math.isfinite(row.train_loss) for row in rows)


def _falls_with_each_component(name: str, rows: Sequence[Row]) -> Claim:
    steps = [
        (row, before.train_loss - row.train_loss)
        for before, row in pairwise(rows)
        if LADDER.index(row.model) == LADDER.index(before.model) + 1
    ]
    rises = [(row, fall) for row, fall in steps if fall <= 0]
    finding = "; ".join(
        f"{row.model} is {-fall:.3f} nats above the model before" for row, fall in rises
    )
    if not finding:
        falls = f"It falls at each of the {len(steps)} steps between neighbours"
        finding = falls if steps and all(fall > 0 for _, fall in steps) else "No step can tell"
    return Claim(
        f"The training loss falls with each added component ({name}).",
        False if rises else (True if _can_tell(rows) else None),
        f"{finding}.",
    )


def _last_is_lowest(name: str, rows: Sequence[Row]) -> Claim:
    last, others = rows[-1], rows[:-1]
    next_best = min(others, key=lambda row: row.train_loss)
    ahead = next_best.train_loss - last.train_loss
    factor = ""
    if 0 < ahead < MOST_FACTOR_NATS:
        factor = f", e^{ahead:.2f} = {math.exp(ahead):.2f} times"
    where = "ahead of" if ahead > 0 else "behind"
    published = ""
    if last.size == "scaled":
        published = " Published: 1.35 nats, called 4.85 times better; e^1.35 = 3.86."
    return Claim(
        f"{last.model} has the lowest training loss ({name}).",
        False if ahead <= 0 else (True if _can_tell(rows) else None),
        f"It ends {abs(ahead):.3f} nats {where} {next_best.model}{factor}.{published}",
    )


def _some_overfit(name: str, rows: Sequence[Row]) -> Claim:
    """The original says neither which models nor by how much."""
    moves = {row.model: _second_half(row) for row in rows}
    found = {
        model: move
        for model, move in moves.items()
        if move and move[0] > PLATEAU_NATS and move[1] <= PLATEAU_NATS
    }
    named = "; ".join(
        f"{model}: training falls by {train:.3f}, validation {_moved(val)}"
        for model, (train, val) in found.items()
    )
    # A run whose curve is not on record may have overfitted unseen.
    told = _can_tell(rows) and all(moves.values())
    return Claim(
        "For some of the models, training loss goes on falling while validation loss plateaus "
        f"or increases ({name}).",
        True if found else (False if told else None),
        f"Estimates from half-way to the end, by more than {PLATEAU_NATS} nats: {named or 'none'}.",
    )


def _second_half(row: Row) -> tuple[float, float] | None:
    """How far training and validation fell from half-way to the end; `None` without a curve."""
    if len(row.evaluations) < 2:
        return None
    *before, last = row.evaluations
    half = last["iteration"] / 2
    middle = next((line for line in before if line["iteration"] >= half), before[-1])
    falls = (
        middle["train_loss"] - last["train_loss"],
        middle["val_loss"] - last["val_loss"],
    )
    return falls if all(map(math.isfinite, falls)) else None


def _moved(fall: float) -> str:
    return f"falls by {fall:.3f}" if fall > 0 else f"rises by {-fall:.3f}"
