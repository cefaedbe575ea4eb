"""The ladder side by side: a row for each model and size, the gain of each rung, the claims.

Every figure in a row is exact (whole splits) or measured (times); the curves
are the estimates recorded while training. The original's claims are computed
from these runs, whether they come out true or not. Beside the rows stand the
floors, what counting alone reaches on the same text.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from drakegpt.config import LADDER, SIZES
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.ngrams import Floor, floors
from drakegpt.evaluation.parameters import count_parameters, published_parameters
from drakegpt.evaluation.rows import OVERFITTING_NATS, Result, Row
from drakegpt.evaluation.scoring import score
from drakegpt.evaluation.selection import missing_models
from drakegpt.training.run import Run

PAIRS = 2  # the order whose counts BigramLM could learn
MOST_FACTOR_NATS = 10.0  # a model that is so far behind has not learnt at all


@dataclass(frozen=True)
class Claim:
    """A statement of the original's documentation, tested on these runs."""

    claim: str
    holds: bool | None  # None: these runs cannot tell
    finding: str


@dataclass(frozen=True)
class Comparison:
    """All rows of a dataset, and what follows from them."""

    data: str
    rows: tuple[Row, ...]
    missing: tuple[tuple[str, str], ...]  # (model, size) without a run
    claims: tuple[Claim, ...]
    others: tuple[Row, ...] = ()  # models and systems beside the ladder, on the same text
    floors: tuple[Floor, ...] = ()  # in windows of the longest of `context_lengths`
    context_lengths: tuple[int, ...] = ()  # of the ladder's runs, or else of the others; sorted

    @property
    def lowest_floor(self) -> Floor | None:
        """The furthest that counting reaches, where there are floors."""
        return min(self.floors, key=lambda floor: floor.score.loss, default=None)

    @property
    def floors_in_sight(self) -> tuple[Floor, ...]:
        """The floors to draw: the lowest, and that of single tokens."""
        lowest = self.lowest_floor
        return tuple(floor for floor in self.floors if floor.order == 1 or floor is lowest)

    @property
    def beyond_pairs(self) -> tuple[Row, ...]:
        """The rows, of the others too, that predict better than counted pairs of tokens do.

        In bits per character, for others may have other tokens; where the
        tokens are the same, that ranks as the loss does.
        """
        reached = [f.score.bits_per_character for f in self.floors if f.order == PAIRS]
        every = (*self.rows, *self.others)
        return tuple(row for row in every if row.bits_per_character < min(reached, default=0.0))

    @property
    def unit(self) -> str:
        """What the ladder's losses are per."""
        return (self.rows or self.others)[0].unit

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "data": self.data,
            "rows": [row.to_json() for row in self.rows],
            "others": [row.to_json() for row in self.others],
            "missing": [{"model": model, "size": size} for model, size in self.missing],
            "claims": [asdict(claim) for claim in self.claims],
            "floors": [floor.to_json() for floor in self.floors],
            "beyond_pairs": [run for row in self.beyond_pairs for run in row.runs],
        }


def compare(
    data: Dataset,
    runs: Mapping[tuple[str, str], Sequence[Run]],
    device_name: str = "auto",
    others: Sequence[Sequence[Run]] = (),
) -> Comparison:
    """Score the runs on `data` and set them side by side, the others and the floors below them.

    Runs that stand together, differing in their seed, become one row.

    The floors are scored in the windows of the ladder's runs; where these have
    several context lengths, in the longest, and where there are none, in the
    longest of the others.
    """
    rows: list[Row] = []
    for (model, size), of_model in runs.items():
        place = LADDER.index(model)
        before = rows[-1] if rows and place and rows[-1].size == size else None
        if before and before.model != LADDER[place - 1]:
            before = None
        rows.append(row_of(of_model, device_name, before))
    claims = [claim for size in SIZES for claim in _claims(size, rows)]
    beside = tuple(row_of(of_other, device_name) for of_other in others)
    compared = list(runs.values()) or others
    lengths = tuple(sorted({run.config.context_length for some in compared for run in some}))
    return Comparison(
        data.name,
        tuple(rows),
        missing_models(runs),
        tuple(claims),
        beside,
        floors(data, lengths[-1]) if lengths else (),
        lengths,
    )


def row_of(runs: Sequence[Run], device_name: str = "auto", before: Row | None = None) -> Row:
    """Score runs that differ in their seed alone, as one row, which may follow on another."""
    first = runs[0]
    row = Row(
        model=first.config.model,
        size=first.config.size,
        preset=first.config.preset,
        tokenizer=first.tokenizer.kind,
        vocab_size=first.tokenizer.vocab_size,
        parameters=sum(count_parameters(first.model_config).values()),
        published=published_parameters(first.model_config),
        results=tuple(_result(run, device_name) for run in runs),
    )
    if before is None:
        return row
    return replace(
        row,
        train_gain=before.train_loss - row.train_loss,
        val_gain=before.val_loss - row.val_loss,
    )


def _result(run: Run, device_name: str) -> Result:
    scores = score(run, device_name)
    evaluations = run.evaluations
    last = evaluations[-1] if evaluations else {}
    return Result(
        run=run.name,
        seed=run.config.seed,
        train_loss=scores.train.loss,
        val_loss=scores.val.loss,
        best_val_loss=scores.best_val.loss,
        bits_per_character=scores.val.bits_per_character,
        tokens_per_second=last.get("tokens_per_second"),
        seconds=last.get("seconds"),
        iterations=last.get("iteration"),
        evaluations=tuple(evaluations),
    )


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
