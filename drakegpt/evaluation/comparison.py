"""The ladder side by side: a row for each model and size, the gain of each rung.

Every figure in a row is exact (whole splits) or measured (times); the curves
are the estimates recorded while training. Beside the rows stands the baseline,
what counting alone reaches on the same text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from drakegpt.config import LADDER, resolve
from drakegpt.config_files import to_command
from drakegpt.data.dataset import Dataset
from drakegpt.evaluation.baseline import Floor, floors
from drakegpt.evaluation.parameters import count_parameters
from drakegpt.evaluation.rows import Result, Row
from drakegpt.evaluation.scoring import score
from drakegpt.evaluation.selection import missing_models
from drakegpt.training.run import Run

PAIRS = 2  # the order whose counts BigramLM could learn


@dataclass(frozen=True)
class Missing:
    """A model of the ladder without a run, and the command that makes one for this comparison."""

    model: str
    size: str
    command: str


@dataclass(frozen=True)
class Comparison:
    """All rows of a dataset, and what follows from them."""

    data: str
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]
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
        return self._below(min(reached, default=0.0))

    @property
    def beyond_counting(self) -> tuple[Row, ...]:
        """The rows, of the others too, that predict better than counting does at any order."""
        return self._below(min((f.score.bits_per_character for f in self.floors), default=0.0))

    def _below(self, bits_per_character: float) -> tuple[Row, ...]:
        every = (*self.rows, *self.others)
        return tuple(row for row in every if row.bits_per_character < bits_per_character)

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
            "missing": [asdict(missing) for missing in self.missing],
            "floors": [floor.to_json() for floor in self.floors],
            "beyond_pairs": [run for row in self.beyond_pairs for run in row.runs],
            "beyond_counting": [run for row in self.beyond_counting for run in row.runs],
        }


def compare(
    data: Dataset,
    runs: Mapping[tuple[str, str], Sequence[Run]],
    device_name: str = "auto",
    others: Sequence[Sequence[Run]] = (),
    settings: Mapping[str, Any] | None = None,
) -> Comparison:
    """Score the runs on `data` and set them side by side, the others and the baseline with them.

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
    beside = tuple(row_of(of_other, device_name) for of_other in others)
    compared = list(runs.values()) or others
    lengths = tuple(sorted({run.config.context_length for some in compared for run in some}))
    return Comparison(
        data.name,
        tuple(rows),
        tuple(_missing(*of, data, settings or {}) for of in missing_models(runs)),
        beside,
        floors(data, lengths[-1]) if lengths else (),
        lengths,
    )


def _missing(model: str, size: str, data: Dataset, settings: Mapping[str, Any]) -> Missing:
    return Missing(model, size, to_command(resolve(model, size, data.name, settings)))


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
        results=tuple(_result(run, device_name) for run in runs),
    )
    if before is None:
        return row
    return replace(
        row,
        val_gain=before.val_loss - row.val_loss,
    )


def _result(run: Run, device_name: str) -> Result:
    scores = score(run, device_name)
    reached = run.last_checkpoint().iteration  # less than was recorded if the last is damaged
    evaluations = [line for line in run.evaluations if line["iteration"] <= reached]
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
        history=run.history,
    )
