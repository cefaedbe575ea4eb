"""The ladder side by side: one row per model and size, the gain of each rung, the claims.

Every figure in a row is exact (whole splits) or measured (times); the curves
are the estimates recorded while training. The original's claims are computed
from these runs, whether they come out true or not. Beside the rows stand the
floors, what counting alone reaches on the same text.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from drakegpt.config import LADDER, SIZES
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError
from drakegpt.evaluation.ngrams import Floor, floors
from drakegpt.evaluation.parameters import count_parameters, published_parameters
from drakegpt.evaluation.scoring import score
from drakegpt.evaluation.selection import runs_on
from drakegpt.training.run import Run

# What a run of the ladder has set unless asked otherwise.
LADDERS_OWN = {"bits": "full", "init_from": "", "preset": "none"}
# Below this, the last weights count as no worse than the best.
OVERFITTING_NATS = 0.01
PAIRS = 2  # the order whose counts BigramLM could learn


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run in the comparison. Losses in nats per token, over whole splits."""

    model: str
    size: str
    preset: str = "none"
    tokenizer: str = "char"
    vocab_size: int = 0
    parameters: int
    published: int | None
    train_loss: float
    val_loss: float
    best_val_loss: float  # of the weights whose estimate was lowest
    bits_per_character: float
    perplexity: float
    train_gain: float | None  # how far the loss fell against the rung before, if that is there
    val_gain: float | None
    tokens_per_second: float | None  # None for imported runs
    seconds: float | None
    iterations: int | None
    seed: int
    run: str
    evaluations: tuple[dict[str, Any], ...]

    @property
    def label(self) -> str:
        """The model's name, with its size, its system and its tokens where these are special."""
        special = [what for what in (self.size, self.preset) if what not in ("default", "none")]
        if not self.per_character:
            special.append(f"{self.vocab_size:,} {self.tokenizer.upper()} tokens")
        return self.model + (f" ({', '.join(special)})" if special else "")

    @property
    def per_character(self) -> bool:
        """Whether its losses are per character."""
        return self.tokenizer == "char"

    @property
    def unit(self) -> str:
        """What its losses are per; only those of the same unit can be compared."""
        return "character" if self.per_character else f"token of {self.vocab_size:,}"


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
    def floors_in_sight(self) -> tuple[Floor, ...]:
        """The floors to draw: the lowest, and that of single tokens."""
        ranked = sorted(self.floors, key=lambda floor: floor.score.loss)
        return tuple(floor for floor in self.floors if floor.order == 1 or floor is ranked[0])

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
            "rows": [asdict(row) for row in self.rows],
            "others": [asdict(row) for row in self.others],
            "missing": [{"model": model, "size": size} for model, size in self.missing],
            "claims": [asdict(claim) for claim in self.claims],
            "floors": [floor.to_json() for floor in self.floors],
            "beyond_pairs": [row.run for row in self.beyond_pairs],
        }


def select_runs(
    data: Dataset, sizes: Sequence[str] = SIZES, settings: Mapping[str, Any] | None = None
) -> dict[tuple[str, str], Run]:
    """The latest finished run of each model and size, in the order of the ladder.

    Only runs on this very version of the dataset count, and only those that
    were trained with `settings`, where any are given; if not in full precision,
    from the beginning.
    """
    wanted = (LADDERS_OWN | dict(settings or {})).items()
    latest = {
        (run.config.model, run.config.size): run
        for run in runs_on(data)
        if _stands_for_its_model(run)
        and all(getattr(run.config, key, None) == value for key, value in wanted)
    }
    ladder = [(model, size) for size in sizes for model in LADDER]
    return {key: latest[key] for key in ladder if key in latest}


def select_others(
    data: Dataset, sizes: Sequence[str] = SIZES, settings: Mapping[str, Any] | None = None
) -> list[Run]:
    """The latest finished runs on the same text that are not of the ladder.

    One for each model, size, system and dataset: other models, published systems,
    and whatever reads the same text in other tokens. `settings` choose as for the ladder.
    """
    wanted = ({"bits": "full"} | dict(settings or {})).items()
    latest = {
        (run.config.model, run.config.size, run.config.preset, run.config.data): run
        for of_same_text in [data, *_in_other_tokens(data)]
        for run in runs_on(of_same_text)
        if _stands_for_its_model(run)
        and run.config.size in sizes
        and all(getattr(run.config, key, None) == value for key, value in wanted)
        and not (run.config.data == data.name and _of_ladder(run))
    }
    return list(latest.values())


def _stands_for_its_model(run: Run) -> bool:
    """Whether a run is whole and meant as such: not a packed copy, not one trial of many."""
    return run.finished and run.derived != "packed" and not run.sweep


def _of_ladder(run: Run) -> bool:
    return run.config.model in LADDER and run.config.preset == "none"


def _in_other_tokens(data: Dataset) -> list[Dataset]:
    """The datasets of the same text that have another tokenizer; damaged ones are passed over."""
    found = []
    for name in dataset.names():
        with suppress(CorpusError):
            other = dataset.load(name)
            same_text = other.metadata.text_sha256 == data.metadata.text_sha256 != ""
            if same_text and other.tokenizer.to_json() != data.tokenizer.to_json():
                found.append(other)
    return found


def missing_models(
    runs: Mapping[tuple[str, str], Run], sizes: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """(model, size) pairs without a run: of `sizes`, or of each size that has been begun."""
    wanted = sizes or [s for s in SIZES if any(size == s for _, size in runs)] or ["default"]
    return tuple((model, size) for size in wanted for model in LADDER if (model, size) not in runs)


def compare(
    data: Dataset,
    runs: Mapping[tuple[str, str], Run],
    device_name: str = "auto",
    others: Sequence[Run] = (),
) -> Comparison:
    """Score the runs on `data` and set them side by side, the others and the floors below them.

    The floors are scored in the windows of the ladder's runs; where these have
    several context lengths, in the longest, and where there are none, in the
    longest of the others.
    """
    rows: list[Row] = []
    for (model, size), run in runs.items():
        place = LADDER.index(model)
        before = rows[-1] if rows and place and rows[-1].size == size else None
        if before and before.model != LADDER[place - 1]:
            before = None
        rows.append(_row(run, before, device_name))
    claims = [claim for size in SIZES for claim in _claims(size, rows)]
    beside = tuple(_row(run, None, device_name) for run in others)
    compared = list(runs.values()) or others
    lengths = tuple(sorted({run.config.context_length for run in compared}))
    return Comparison(
        data.name,
        tuple(rows),
        missing_models(runs),
        tuple(claims),
        beside,
        floors(data, lengths[-1]) if lengths else (),
        lengths,
    )


def _row(run: Run, before: Row | None, device_name: str) -> Row:
    scores = score(run, device_name)
    evaluations = run.evaluations
    last = evaluations[-1] if evaluations else {}
    return Row(
        model=run.config.model,
        size=run.config.size,
        preset=run.config.preset,
        tokenizer=run.tokenizer.kind,
        vocab_size=run.tokenizer.vocab_size,
        parameters=sum(count_parameters(run.model_config).values()),
        published=published_parameters(run.model_config),
        train_loss=scores.train.loss,
        val_loss=scores.val.loss,
        best_val_loss=scores.best_val.loss,
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
    return Claim(
        f"The training loss falls with each added component ({size} size).",
        False if rises else (True if complete else None),
        (finding or f"It falls at each of the {len(steps)} steps between neighbours") + ".",
    )


def _last_is_ahead(size: str, rows: Sequence[Row]) -> Claim:
    last, others = rows[-1], rows[:-1]
    next_best = min(others, key=lambda row: row.train_loss)
    ahead = next_best.train_loss - last.train_loss
    factor = f", a factor of {math.exp(ahead):.2f}" if ahead > 0 else ""
    where = "ahead of" if ahead > 0 else "behind"
    published = " (published, scaled: 1.35 nats, a factor of 3.86)" if size == "scaled" else ""
    complete = len(rows) == len(LADDER)
    return Claim(
        f"{last.model} has the lowest training loss ({size} size).",
        False if ahead <= 0 else (True if complete else None),
        f"It ends {abs(ahead):.3f} nats {where} {next_best.model}{factor}{published}.",
    )


def _several_overfit(size: str, rows: Sequence[Row]) -> Claim:
    """Exact losses of the last against the best weights: estimates alone would be noise."""
    rises = {row.model: row.val_loss - row.best_val_loss for row in rows}
    named = ", ".join(
        f"{model} (+{rise:.3f} nats)" for model, rise in rises.items() if rise > OVERFITTING_NATS
    )
    return Claim(
        f"Several models overfit: training longer has raised the validation loss ({size} size).",
        named.count("nats") > 1,
        f"The last weights are worse than the best by more than {OVERFITTING_NATS} nats on the "
        f"whole validation split: {named or 'none'}.",
    )
