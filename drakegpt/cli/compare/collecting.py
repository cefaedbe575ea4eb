"""The runs of a comparison: collect them, and tell which are damaged or missing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from drakegpt.cli import console
from drakegpt.errors import RunError
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.experiment import Collection, Experiment


def collect_runs(
    experiment: "Experiment", data: "Dataset", *, train: bool, quiet: bool
) -> "Collection":
    """Collect the runs of an experiment; with `train`, train those that are missing."""
    from drakegpt.cli.run_launcher import RunLauncher
    from drakegpt.experiments.experiment import collect

    collected = collect(experiment, data, RunLauncher(data, quiet=quiet) if train else None)
    warn_of_damaged(collected.damaged)
    return collected


def collect_all_runs(
    experiment: "Experiment", data: "Dataset", *, train: bool, quiet: bool
) -> "Collection":
    """Do the same; raises `RunError` if a run was never trained."""
    collected = collect_runs(experiment, data, train=train, quiet=quiet)
    if missing := len(collected.missing):
        needed = len(experiment.variants) * len(experiment.seeds)
        raise RunError(
            f"The table needs {pluralize(needed, 'run')} on '{data.name}'; not trained yet: "
            f"{missing}.",
            "Train them: the same command with --train.",
        )
    return collected


def warn_of_damaged(damaged: Mapping[str, str]) -> None:
    """Name the runs that are left out, and what is wrong with each."""
    for run, problem in damaged.items():
        console.warn(f"{run} is damaged and left out. {problem}")


def damaged_to_json(damaged: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the same as plain values."""
    return [{"run": run, "problem": problem} for run, problem in damaged.items()]
