"""The ladder side by side: a row for each model and size, the gain of each rung.

Every figure in a row is exact (whole splits) or measured (times); the curves
are the estimates recorded while training. Beside the rows stands the baseline,
what counting alone reaches on the same text.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from drakegpt.config import LADDER, resolve
from drakegpt.config.files import to_command
from drakegpt.data.dataset import Dataset
from drakegpt.display import Displayable, Table
from drakegpt.errors import UsageError
from drakegpt.evaluation.baseline import Baseline, ngram_baselines
from drakegpt.evaluation.noise import Difference, below
from drakegpt.experiments.agreement import (
    TRAINED_BY,
    Agreement,
    agrees,
    differences,
    largest_group,
    missing_models,
    newer_runs,
    select_agreeing,
    select_others,
    select_runs,
)
from drakegpt.experiments.experiment import Damaged, Experiment, Train, collect, seeds_from
from drakegpt.experiments.results import (
    ResultRow,
    loss_decrease,
    nats_per_character,
    row_of,
    val_loss,
)
from drakegpt.runs.lookup import INCIDENTAL
from drakegpt.runs.run import Run
from drakegpt.runs.start import resolve_run

PAIRS = 2  # the order whose counts BigramLM could learn


@dataclass(frozen=True)
class Missing:
    """A model of the ladder without a run, and the command that makes one for this comparison.

    No command where such a run cannot be made; `why` says what prevents it.
    """

    model: str
    size: str
    command: str
    why: str = ""


@dataclass(frozen=True, repr=False)
class Comparison(Displayable):
    """All rows of a dataset, and what follows from them."""

    data: str
    rows: tuple[ResultRow, ...]
    missing: tuple[Missing, ...]
    others: tuple[ResultRow, ...] = ()  # models and systems beside the ladder, on the same text
    baselines: tuple[Baseline, ...] = ()  # in windows of the longest of `context_lengths`
    context_lengths: tuple[int, ...] = ()  # of the ladder's runs, or else of the others; sorted

    @property
    def lowest_baseline(self) -> Baseline | None:
        """The furthest that counting reaches, where there are baselines."""
        return min(self.baselines, key=lambda baseline: baseline.score.loss, default=None)

    @property
    def baselines_in_view(self) -> tuple[Baseline, ...]:
        """The baselines to draw: the lowest, and that of single tokens."""
        lowest = self.lowest_baseline
        return tuple(
            baseline for baseline in self.baselines if baseline.order == 1 or baseline is lowest
        )

    @property
    def pairs(self) -> Baseline | None:
        """What counted pairs of tokens reach, where there are baselines."""
        return next((baseline for baseline in self.baselines if baseline.order == PAIRS), None)

    def beside(
        self, baseline: Baseline | None
    ) -> tuple[list[ResultRow], list[ResultRow], list[ResultRow]]:
        """The rows, of the others too, that predict better than counting, as well, and worse.

        In nats per character, for others may have other tokens. Rows that cannot be
        compared are in none.
        """
        better: list[ResultRow] = []
        level: list[ResultRow] = []
        worse: list[ResultRow] = []
        for row in (*self.rows, *self.others):
            if baseline and row.comparable:
                losses = [nats_per_character(result) for result in row.results]
                apart = below(baseline.score.bits_per_character * math.log(2), losses)
                (better if apart.lower else worse if apart.higher else level).append(row)
        return better, level, worse

    @property
    def unit(self) -> str:
        """What the ladder's losses are per."""
        return (self.rows or self.others)[0].unit

    def to_table(self) -> Table:
        """A row for each model, and for the lowest baseline."""
        rows = [
            (
                row.marked_label,
                f"{row.parameters:,}",
                f"{row.train_loss:.4f}",
                f"{row.val_loss:.4f}",
                f"{row.bits_per_character:.3f}",
                row.gain_shown,
            )
            for row in (*self.rows, *self.others)
        ]
        if baseline := self.lowest_baseline:
            score = baseline.score
            figures = ("", "", f"{score.loss:.4f}", f"{score.bits_per_character:.3f}", "")
            rows.append((baseline.label, *figures))
        caption = f"Models on '{self.data}', losses in nats per token over whole splits"
        header = ("model", "parameters", "train", "validation", "bits/char", "gain")
        return Table(caption, rows, header)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain values."""
        return {
            "data": self.data,
            "rows": [row.to_json() for row in self.rows],
            "others": [row.to_json() for row in self.others],
            "missing": [asdict(missing) for missing in self.missing],
            "baselines": [baseline.to_json() for baseline in self.baselines],
            "beyond_pairs": _runs(self.beside(self.pairs)[0]),
            "beyond_counting": _runs(self.beside(self.lowest_baseline)[0]),
        }


def _runs(rows: Sequence[ResultRow]) -> list[str]:
    return [run for row in rows for run in row.runs]


@dataclass(frozen=True)
class Chosen:
    """The runs that stand for the ladder, several seeds of one model and size together."""

    runs: Mapping[tuple[str, str], Sequence[Run]]
    others: Sequence[Sequence[Run]] = ()  # models and systems beside the ladder, on the same text
    # Newer runs in whose place others are taken that agree with the rest, each with its stand-in.
    passed_over: Sequence[tuple[Run, Run]] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)  # what is wrong, by the run's name

    @property
    def together(self) -> list[Sequence[Run]]:
        """The runs of each row, those of the ladder first."""
        return [*self.runs.values(), *self.others]


def collect_ladder(
    data: Dataset, size: str, settings: Mapping[str, Any], seeds: int | None, train: Train
) -> Chosen:
    """Collect the runs of each model with these settings, or with the preset's; train the missing.

    Of as many `seeds`; if that is `None`, of all that there are. Raises `UsageError`
    for a length in minutes.
    """
    if settings.get("minutes"):
        raise UsageError("minutes would give each run other iterations.", "Give --iters instead.")
    damaged = Damaged()
    configs = {model: resolve_run(model, size, data, settings) for model in LADDER}
    if seeds:
        experiment = Experiment(configs, seeds_from(settings, seeds))
        collected = collect(experiment, data, train, damaged).runs
        found = {(model, size): list(runs.values()) for model, runs in collected.items()}
        return Chosen({key: runs for key, runs in found.items() if runs}, damaged=damaged)
    wanted = [settings["seed"]] if "seed" in settings else []

    def agreeing() -> dict[tuple[str, str], list[Run]]:
        return select_agreeing(data, configs.values(), wanted, damaged.leave_out)

    found = agreeing()
    if missing := {model: c for model, c in configs.items() if (model, size) not in found}:
        collect(Experiment(missing, [configs[LADDER[0]].seed]), data, train, damaged)
        found = agreeing()
    return Chosen(found, damaged=damaged)


def select_ladder(
    data: Dataset, sizes: Sequence[str], settings: Mapping[str, Any], seeds: int | None
) -> Chosen:
    """Choose among the runs that there are: those that agree, with these settings and seeds."""
    settings = in_iterations(data, sizes[0], settings)
    identity = {name: value for name, value in settings.items() if name not in INCIDENTAL}
    wanted = seeds_from(identity, seeds or 0)
    if seeds:
        identity.pop("seed", None)
    runs = select_runs(data, sizes, identity, wanted)
    passed_over = [
        (run, runs[run.config.model, run.config.size][0])
        for run in newer_runs(data, runs, identity, wanted)
    ]
    damaged = Damaged()
    whole = _whole(runs, damaged)
    others = map(damaged.leave_out, select_others(data, sizes, identity, wanted))
    return Chosen(whole, [some for some in others if some], passed_over, damaged)


def in_iterations(data: Dataset, size: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with epochs as iterations, which are as many for each model."""
    if not settings.get("epochs"):
        return dict(settings)
    resolved = resolve_run("TransformerLM", size, data, settings)
    return {**settings, "iters": resolved.iters, "epochs": 0, "windows": resolved.windows}


def _whole(
    runs: Mapping[tuple[str, str], Sequence[Run]], damaged: Damaged
) -> dict[tuple[str, str], list[Run]]:
    return {key: whole for key, some in runs.items() if (whole := damaged.leave_out(some))}


def compare(
    data: Dataset,
    runs: Mapping[tuple[str, str], Sequence[Run]],
    device_name: str = "auto",
    others: Sequence[Sequence[Run]] = (),
    settings: Mapping[str, Any] | None = None,
) -> Comparison:
    """Score the runs on `data` and set them side by side, the others and the baseline with them.

    Runs that stand together, differing in their seed, become one row. A row that
    does not agree with the largest group of its size is told apart and has no gain.

    The baselines are scored in the windows of the ladder's runs that agree; where these
    have several context lengths, in the longest, and where there are none, in the
    longest of the others.
    """
    leading = _leading(runs)
    rows: list[ResultRow] = []
    for (model, size), of_model in runs.items():
        row = row_of(of_model, device_name)
        if differs := differences(of_model[0], leading[size]):
            made = _missing(model, size, data, settings or {}, leading[size])
            row = replace(row, differs=differs, command=made.command)
        rows.append(row)
    beside = tuple(row_of(of_other, device_name) for of_other in others)
    agreeing = [some for (_, size), some in runs.items() if agrees(some[0], leading[size])]
    compared = agreeing or others
    lengths = tuple(sorted({run.config.context_length for some in compared for run in some}))
    return Comparison(
        data.name,
        with_gains(rows),
        tuple(
            _missing(model, size, data, settings or {}, leading.get(size, ()))
            for model, size in missing_models(runs)
        ),
        beside,
        ngram_baselines(data, lengths[-1]) if lengths else (),
        lengths,
    )


def _leading(runs: Mapping[tuple[str, str], Sequence[Run]]) -> dict[str, Agreement]:
    """What the largest group of runs that agree shares, for each size."""
    return {
        size: largest_group([run for (_, s), some in runs.items() if s == size for run in some])
        for size in dict.fromkeys(size for _, size in runs)
    }


def with_gains(rows: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    """The ladder's rows, those of a size together, with what each gained on the rung before."""
    return tuple(
        replace(row, gain=_gain(*pair))
        for row, pair in zip(rows, pairwise([None, *rows]), strict=True)
    )


def _gain(before: ResultRow | None, row: ResultRow | None) -> Difference | None:
    """How far the validation loss fell from the rung before, if both rows can tell."""
    if before is None or row is None or before.size != row.size:
        return None
    follows = LADDER.index(row.model) == LADDER.index(before.model) + 1
    return (
        loss_decrease(before, row, val_loss)
        if follows and before.comparable and row.comparable
        else None
    )


def _missing(
    model: str, size: str, data: Dataset, settings: Mapping[str, Any], shared: Agreement
) -> Missing:
    """How to train a model so that it agrees with the runs that share these settings."""
    named = {name: value for name, value in shared if name != TRAINED_BY}
    try:
        command = to_command(resolve(model, size, data.name, settings, named))
    except UsageError as error:  # a model without heads takes any number of them
        return Missing(model, size, "", error.problem)
    return Missing(model, size, command)
