"""Compare the models of the ladder: a row for each model and size, with its gain.

Losses in a row are exact, over whole splits, and times are measured; the curves are
the estimates recorded while training. N-gram baselines on the same text are included.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from drakegpt.config import LADDER, resolve
from drakegpt.config.files import to_command
from drakegpt.config.presets import CLASS
from drakegpt.data.dataset import Dataset
from drakegpt.display import Displayable, Table
from drakegpt.errors import UsageError
from drakegpt.evaluation.baseline import BIGRAM, TRIGRAM, Baseline, score_ngram_baselines
from drakegpt.evaluation.noise import Difference, compare_with_level
from drakegpt.experiments.agreement import (
    ORIGIN,
    Agreement,
    agrees,
    find_differences,
    find_largest_group,
    find_newer_runs,
    list_missing_models,
    select_agreeing,
    select_others,
    select_runs,
)
from drakegpt.experiments.experiment import Damaged, Experiment, Train, collect, list_seeds
from drakegpt.experiments.results import (
    ResultRow,
    aggregate_runs,
    compare_losses,
    nats_per_character,
    val_loss,
)
from drakegpt.progress import Progress, silent
from drakegpt.runs.lookup import INCIDENTAL, list_runs
from drakegpt.runs.run import Run
from drakegpt.runs.start import resolve_run


@dataclass(frozen=True)
class Missing:
    """A model of the ladder without a run, and the command that trains it for this comparison.

    The command is empty if such a run cannot be trained; `why` then says why not.
    """

    model: str
    size: str
    command: str
    why: str = ""


@dataclass(frozen=True, repr=False)
class Comparison(Displayable):
    """All rows of a dataset, with the n-gram baselines."""

    data: str
    rows: tuple[ResultRow, ...]
    missing: tuple[Missing, ...]
    others: tuple[ResultRow, ...] = ()  # other models and presets on the same text
    baselines: tuple[Baseline, ...] = ()  # scored with the longest of `context_lengths`
    context_lengths: tuple[int, ...] = ()  # sorted; of the ladder's runs, or else of the others

    @property
    def lowest_row(self) -> ResultRow:
        """The row with the fewest bits per character; any if none has finite losses."""
        rows = (*self.rows, *self.others)
        finite = [row for row in rows if math.isfinite(row.bits_per_character)]
        return min(finite or rows, key=lambda row: row.bits_per_character)

    @property
    def lowest_baseline(self) -> Baseline | None:
        """The baseline with the lowest loss, if there are baselines."""
        return min(self.baselines, key=lambda baseline: baseline.score.loss, default=None)

    @property
    def drawn_baselines(self) -> tuple[Baseline, ...]:
        """The baselines to draw: counts of pairs and threes, and the one with the lowest loss."""
        lowest = self.lowest_baseline
        return tuple(
            baseline
            for baseline in self.baselines
            if baseline.order in (BIGRAM, TRIGRAM) or baseline is lowest
        )

    @property
    def bigram_baseline(self) -> Baseline | None:
        """The baseline of bigram counts, if there is one."""
        return next((baseline for baseline in self.baselines if baseline.order == BIGRAM), None)

    def rank_against(
        self, baseline: Baseline | None
    ) -> tuple[list[ResultRow], list[ResultRow], list[ResultRow]]:
        """Split all rows into those better than a baseline, within noise of it, and worse.

        Compared in nats per character, as other models may have another tokenizer.
        Rows that are not comparable are in none of the three.
        """
        better: list[ResultRow] = []
        tied: list[ResultRow] = []
        worse: list[ResultRow] = []
        for row in (*self.rows, *self.others):
            if baseline and row.comparable:
                losses = [nats_per_character(result) for result in row.results]
                found = compare_with_level(baseline.score.bits_per_character * math.log(2), losses)
                (better if found.lower else worse if found.higher else tied).append(row)
        return better, tied, worse

    @property
    def unit(self) -> str:
        """The unit that the ladder's losses are per."""
        return (self.rows or self.others)[0].unit

    def without_missing(self) -> "Comparison":
        """The same, of which nothing is said of models that have no run."""
        return replace(self, missing=())

    def to_table(self) -> Table:
        """A row for each model, and for the lowest baseline."""
        rows = [
            (
                row.marked_label,
                f"{row.parameters:,}",
                f"{row.train_loss:.4f}",
                f"{row.val_loss:.4f}",
                f"{row.bits_per_character:.3f}",
                row.formatted_gain,
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
        """Return everything as plain values."""
        return {
            "data": self.data,
            "rows": [row.to_json() for row in self.rows],
            "others": [row.to_json() for row in self.others],
            "missing": [asdict(missing) for missing in self.missing],
            "baselines": [baseline.to_json() for baseline in self.baselines],
            "better_than_bigrams": _list_run_names(self.rank_against(self.bigram_baseline)[0]),
            "better_than_baselines": _list_run_names(self.rank_against(self.lowest_baseline)[0]),
        }


def _list_run_names(rows: Sequence[ResultRow]) -> list[str]:
    return [run for row in rows for run in row.runs]


@dataclass(frozen=True)
class Selection:
    """The runs of a comparison."""

    runs: Mapping[tuple[str, str], Sequence[Run]]  # by model and size, one for each seed
    others: Sequence[Sequence[Run]] = ()  # other models and presets on the same text
    # Newer runs that do not agree with the rest, each with the one selected instead.
    left_out: Sequence[tuple[Run, Run]] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)  # the problem, by run name

    @property
    def by_row(self) -> list[Sequence[Run]]:
        """The runs of each row, those of the ladder first."""
        return [*self.runs.values(), *self.others]

    def add(self, run: Run) -> "Selection":
        """The same with one more run beside the ladder."""
        return replace(self, others=[*self.others, [run]])


def choose_trained_settings(size: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of runs to train: those of a lesson, if nothing about them is given."""
    about_the_run = settings.keys() - {*INCIDENTAL, "seed"}
    return dict(settings) if size or about_the_run else {"preset": CLASS, **settings}


def collect_ladder(
    data: Dataset, size: str, settings: Mapping[str, Any], seeds: int | None, train: Train
) -> Selection:
    """Collect the runs of each model with these settings, and train the missing ones.

    `seeds`: their number; `None` for all seeds that have runs. Raises `UsageError` for a
    length in minutes.
    """
    if settings.get("minutes"):
        raise UsageError(
            "minutes would give each run a different number of iterations.", "Give --iters instead."
        )
    damaged = Damaged()
    configs = {model: resolve_run(model, size, data, settings) for model in LADDER}
    if seeds:
        experiment = Experiment(configs, list_seeds(settings, seeds))
        collected = collect(experiment, data, train, damaged).runs
        found = {(model, size): list(runs.values()) for model, runs in collected.items()}
        return Selection({key: runs for key, runs in found.items() if runs}, damaged=damaged)
    wanted = [settings["seed"]] if "seed" in settings else []

    def agreeing() -> dict[tuple[str, str], list[Run]]:
        return select_agreeing(data, configs.values(), wanted, damaged.leave_out)

    found = agreeing()
    if missing := {model: c for model, c in configs.items() if (model, size) not in found}:
        collect(Experiment(missing, [configs[LADDER[0]].seed]), data, train, damaged)
        found = agreeing()
    return Selection(found, damaged=damaged)


def select_ladder(
    data: Dataset, sizes: Sequence[str], settings: Mapping[str, Any], seeds: int | None
) -> Selection:
    """Select among the finished runs those that agree, with these settings and seeds."""
    settings = resolve_epochs(data, sizes[0], settings)
    identity = {name: value for name, value in settings.items() if name not in INCIDENTAL}
    wanted = list_seeds(identity, seeds or 0)
    if seeds:
        identity.pop("seed", None)
    everything = list_runs()  # once: each is a folder of files
    runs = select_runs(data, sizes, identity, wanted, everything)
    left_out = [
        (run, runs[run.config.model, run.config.size][0])
        for run in find_newer_runs(data, runs, identity, wanted, everything)
    ]
    damaged = Damaged()
    whole = _leave_out_damaged(runs, damaged)
    others = map(damaged.leave_out, select_others(data, sizes, identity, wanted, everything))
    return Selection(whole, [of_row for of_row in others if of_row], left_out, damaged)


def arrange_runs(runs: Sequence[Run]) -> Selection:
    """Arrange runs that were named one by one: as rungs of the ladder, or beside it.

    A rung is the first run of a model of the ladder, from two such models on.
    """
    rungs: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.config.model in LADDER:
            rungs.setdefault((run.config.model, run.config.size), [run])
    if len({model for model, _ in rungs}) < 2:
        rungs = {}
    order = sorted(rungs, key=lambda key: (key[1], LADDER.index(key[0])))
    placed = [run.name for of_row in rungs.values() for run in of_row]
    others = [[run] for run in runs if run.name not in placed]
    return Selection({key: rungs[key] for key in order}, others)


def resolve_epochs(data: Dataset, size: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace epochs by iterations, whose number is the same for each model."""
    if not settings.get("epochs"):
        return dict(settings)
    resolved = resolve_run("TransformerLM", size, data, settings)
    return {**settings, "iters": resolved.iters, "epochs": 0, "window_order": resolved.window_order}


def _leave_out_damaged(
    runs: Mapping[tuple[str, str], Sequence[Run]], damaged: Damaged
) -> dict[tuple[str, str], list[Run]]:
    return {key: whole for key, of_row in runs.items() if (whole := damaged.leave_out(of_row))}


def compare(
    data: Dataset,
    runs: Mapping[tuple[str, str], Sequence[Run]],
    device_name: str = "auto",
    others: Sequence[Sequence[Run]] = (),
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Score the runs and make a row of each group of seeds; add n-gram baselines.

    A row that does not agree with the largest group of its size lists its differences
    and has no gain.

    The baselines are scored with the longest context length of the ladder's runs that
    agree, or else of the others.
    """
    shared = _find_shared_settings(runs)
    rows: list[ResultRow] = []
    for (model, size), of_model in runs.items():
        row = aggregate_runs(of_model, device_name, progress)
        if differs := find_differences(of_model[0], shared[size]):
            missing = _describe_missing(model, size, data, settings or {}, shared[size])
            row = replace(row, differs=differs, command=missing.command)
        rows.append(row)
    other_rows = tuple(aggregate_runs(of_other, device_name, progress) for of_other in others)
    agreeing = [group for (_, size), group in runs.items() if agrees(group[0], shared[size])]
    compared = agreeing or others
    progress("scoring n-gram baselines", 0, 1)
    lengths = tuple(sorted({run.config.context_length for group in compared for run in group}))
    return Comparison(
        data.name,
        add_gains(rows),
        tuple(
            _describe_missing(model, size, data, settings or {}, shared.get(size, ()))
            for model, size in list_missing_models(runs)
        ),
        other_rows,
        score_ngram_baselines(data, lengths[-1]) if lengths else (),
        lengths,
    )


def _find_shared_settings(runs: Mapping[tuple[str, str], Sequence[Run]]) -> dict[str, Agreement]:
    """Return what the largest group of runs that agree shares, for each size."""
    return {
        size: find_largest_group(
            [run for (_, s), group in runs.items() if s == size for run in group]
        )
        for size in dict.fromkeys(size for _, size in runs)
    }


def add_gains(rows: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    """Add to each row its gain over the model before; rows are in order, grouped by size."""
    return tuple(
        replace(row, gain=_compute_gain(*pair))
        for row, pair in zip(rows, pairwise([None, *rows]), strict=True)
    )


def _compute_gain(before: ResultRow | None, row: ResultRow | None) -> Difference | None:
    """Return the decrease of the validation loss, if both rows are comparable neighbours."""
    if before is None or row is None or before.size != row.size:
        return None
    follows = LADDER.index(row.model) == LADDER.index(before.model) + 1
    return (
        compare_losses(before, row, val_loss)
        if follows and before.comparable and row.comparable
        else None
    )


def _describe_missing(
    model: str, size: str, data: Dataset, settings: Mapping[str, Any], shared: Agreement
) -> Missing:
    """Describe how to train a model so that it agrees with the runs that share these settings."""
    named = {name: value for name, value in shared if name != ORIGIN}
    try:
        command = to_command(resolve(model, size, data.name, settings, named))
    except UsageError as error:  # a model without heads accepts any number of them
        return Missing(model, size, "", error.problem)
    return Missing(model, size, command)
