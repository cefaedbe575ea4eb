"""An experiment: the same text, several variants of the settings, each with several seeds.

`collect` finds the runs that there are, resumes those that were interrupted and
trains the rest. The ladder, the regularizers and the table of low-bit weights are
each a list of variants, and what is told of their runs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from drakegpt.config import TrainConfig
from drakegpt.config.presets import PRESETS
from drakegpt.data.dataset import Dataset
from drakegpt.errors import CorpusError, RunError
from drakegpt.experiments.launcher import Job
from drakegpt.runs.lookup import find_finished, list_runs_on
from drakegpt.runs.run import Run

# Trains a run for each job, resuming what was interrupted, like `launcher.train_runs`.
Train = Callable[[Sequence[Job]], object]


@dataclass(frozen=True)
class Experiment:
    """What is to be compared: variants of the settings, each trained with all seeds."""

    variants: Mapping[str, TrainConfig]
    seeds: Sequence[int]
    # Variants that start from the last weights of another, trained with the same seed.
    origins: Mapping[str, str] = field(default_factory=dict)


class Damaged(dict[str, str]):
    """What is wrong with each run that cannot be used, by its name; each is looked at once."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: set[str] = set()

    def leave_out(self, runs: Iterable[Run]) -> list[Run]:
        """Those of the runs whose weights and data can be used; the others are noted here."""
        return [run for run in runs if self._is_whole(run)]

    def _is_whole(self, run: Run) -> bool:
        if run.name not in self and run.name not in self._whole:
            try:
                run.load_model(torch.device("cpu"))
                run.dataset().verify()
                self._whole.add(run.name)
            except (RunError, CorpusError) as error:
                self[run.name] = error.problem
        return run.name in self._whole


@dataclass(frozen=True)
class Collection:
    """The runs of an experiment."""

    runs: Mapping[str, Mapping[int, Run]]  # of each variant, by seed; empty where there are none
    missing: tuple[tuple[str, int], ...]  # variants and seeds that were never trained
    damaged: Mapping[str, str]  # what is wrong with runs that were passed over, by their names

    def with_seed(self, seed: int) -> dict[str, Run]:
        """The run of each variant that has one with that seed."""
        return {name: runs[seed] for name, runs in self.runs.items() if seed in runs}


def list_seeds(settings: Mapping[str, object], count: int) -> range:
    """As many seeds, starting at the one that is set."""
    first = int(str(settings.get("seed", PRESETS["default"]["seed"])))
    return range(first, first + count)


def collect(
    experiment: Experiment,
    data: Dataset,
    train: Train | None = None,
    damaged: Damaged | None = None,
) -> Collection:
    """Find a whole, finished run of each variant and seed; with `train`, train those missing.

    A variant that starts from another is trained once that is. Of several runs with
    the same settings the latest counts.
    """
    damaged = Damaged() if damaged is None else damaged
    search = _Search(experiment, data, damaged)
    if train:
        plain = [name for name in experiment.variants if name not in experiment.origins]
        for stage in (plain, list(experiment.origins)):
            if jobs := search.missing_jobs(stage):
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
    """Looks for the runs of an experiment among those that there are now."""

    def __init__(self, experiment: Experiment, data: Dataset, damaged: Damaged) -> None:
        self._experiment, self._damaged = experiment, damaged
        # Read once: each is a folder of files. A trial of a sweep stands for no variant.
        self._runs = [run for run in list_runs_on(data) if not run.sweep]

    def find(self, variant: str, seed: int) -> Run | None:
        """The latest whole run of a variant with that seed, if there is one."""
        return next(iter(self._damaged.leave_out(self._trained(variant, seed))), None)

    def was_trained(self, variant: str, seed: int) -> bool:
        """Whether a variant has been trained with that seed, though its run may be damaged."""
        return bool(self._trained(variant, seed))

    def missing_jobs(self, variants: Sequence[str]) -> list[Job]:
        """What is to be trained of these variants, seed by seed."""
        return [
            Job(config, variant)
            for seed in self._experiment.seeds
            for variant in variants
            if not self.find(variant, seed) and (config := self._to_train(variant, seed))
        ]

    def _to_train(self, variant: str, seed: int) -> TrainConfig | None:
        """The settings to train a variant with; `None` while there is nothing it can start from."""
        config = replace(self._experiment.variants[variant], seed=seed)
        if not (origin := self._experiment.origins.get(variant)):
            return config
        start = self.find(origin, seed)
        return replace(config, init_from=start.name) if start else None

    def _trained(self, variant: str, seed: int) -> list[Run]:
        """The finished runs of a variant with that seed, latest first, from any origin."""
        config = replace(self._experiment.variants[variant], seed=seed)
        if not (origin := self._experiment.origins.get(variant)):
            return find_finished(self._runs, config)
        begun = [replace(config, init_from=run.name) for run in self._trained(origin, seed)]
        return [run for each in begun for run in find_finished(self._runs, each)]
