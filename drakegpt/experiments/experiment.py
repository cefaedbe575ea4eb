"""An experiment: several variants of the settings on one dataset, each with several seeds.

`collect` finds the finished runs, resumes those that were interrupted and trains the
rest. The ladder, the regularizers and the low-bit table are each a list of variants
and a summary of their runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from drakegpt.config import TrainConfig
from drakegpt.config.presets import SIZE_SETTINGS
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError, RunError
from drakegpt.experiments.launcher import Job
from drakegpt.runs.lookup import find_finished, list_runs_on
from drakegpt.runs.run import Run

# Trains a run for each job, resuming interrupted ones, like `launcher.train_runs`.
Train = Callable[[Sequence[Job]], object]


@dataclass(frozen=True)
class Experiment:
    """Variants of the settings to compare, each trained with all seeds."""

    variants: Mapping[str, TrainConfig]
    seeds: Sequence[int]
    # Variants that start from the last weights of another variant with the same seed.
    origins: Mapping[str, str] = field(default_factory=dict)


class Damaged(dict[str, str]):
    """The problem of each run that cannot be used, by its name; each run is checked once."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: set[str] = set()

    def leave_out(self, runs: Iterable[Run]) -> list[Run]:
        """Return the runs whose weights and data can be used; record the others here."""
        return [run for run in runs if self._is_whole(run)]

    def _is_whole(self, run: Run) -> bool:
        if run.name not in self and run.name not in self._whole:
            try:
                run.load_model(torch.device("cpu"))
                run.load_dataset().verify()
                self._whole.add(run.name)
            except (RunError, CorpusError) as error:
                self[run.name] = error.problem
        return run.name in self._whole


@dataclass(frozen=True)
class Collection:
    """The runs of an experiment."""

    runs: Mapping[str, Mapping[int, Run]]  # by variant and seed
    missing: tuple[tuple[str, int], ...]  # variants and seeds that were never trained
    damaged: Mapping[str, str]  # the problem of runs that were skipped, by name

    def with_seed(self, seed: int) -> dict[str, Run]:
        """Return the run of each variant that has one with that seed."""
        return {name: runs[seed] for name, runs in self.runs.items() if seed in runs}


def list_seeds(settings: Mapping[str, object], count: int) -> range:
    """List `count` seeds, starting at the setting `seed`."""
    first = int(str(settings.get("seed", SIZE_SETTINGS["default"]["seed"])))
    return range(first, first + count)


def collect(
    experiment: Experiment,
    data: Dataset,
    train: Train | None = None,
    damaged: Damaged | None = None,
) -> Collection:
    """Find an intact, finished run of each variant and seed; with `train`, train the missing.

    A variant that starts from another is trained after it. Of several runs with the
    same settings the latest counts.
    """
    damaged = Damaged() if damaged is None else damaged
    search = _Search(experiment, data, damaged)
    if train:
        independent = [name for name in experiment.variants if name not in experiment.origins]
        for stage in (independent, list(experiment.origins)):
            if jobs := search.list_missing(stage):
                train(jobs)
                search = _Search(experiment, data, damaged)
    runs = {
        name: {seed: run for seed in experiment.seeds if (run := search.find(name, seed))}
        for name in experiment.variants
    }
    missing = [
        (name, seed)
        for name in experiment.variants
        for seed in experiment.seeds
        if not search.was_trained(name, seed)
    ]
    return Collection(runs, tuple(missing), damaged)


class _Search:
    """Finds the runs of an experiment among the existing ones."""

    def __init__(self, experiment: Experiment, data: Dataset, damaged: Damaged) -> None:
        self._experiment, self._damaged = experiment, damaged
        # Read once: each is a folder of files. Trials of sweeps do not count.
        self._runs = [run for run in list_runs_on(data) if not run.sweep]

    def find(self, variant: str, seed: int) -> Run | None:
        """Find the latest intact run of a variant with that seed, if any."""
        return next(iter(self._damaged.leave_out(self._list_finished(variant, seed))), None)

    def was_trained(self, variant: str, seed: int) -> bool:
        """Whether a variant has been trained with that seed, though its run may be damaged."""
        return bool(self._list_finished(variant, seed))

    def list_missing(self, variants: Sequence[str]) -> list[Job]:
        """List the jobs to train for these variants, seed by seed."""
        return [
            Job(config, variant)
            for seed in self._experiment.seeds
            for variant in variants
            if not self.find(variant, seed) and (config := self._make_config(variant, seed))
        ]

    def _make_config(self, variant: str, seed: int) -> TrainConfig | None:
        """Return the settings to train a variant with; `None` while its origin has no run."""
        config = replace(self._experiment.variants[variant], seed=seed)
        if not (origin := self._experiment.origins.get(variant)):
            return config
        start = self.find(origin, seed)
        return replace(config, init_from=start.name) if start else None

    def _list_finished(self, variant: str, seed: int) -> list[Run]:
        """List the finished runs of a variant with that seed, latest first, of any origin."""
        config = replace(self._experiment.variants[variant], seed=seed)
        if not (origin := self._experiment.origins.get(variant)):
            return find_finished(self._runs, config)
        configs = [replace(config, init_from=run.name) for run in self._list_finished(origin, seed)]
        return [run for each in configs for run in find_finished(self._runs, each)]
