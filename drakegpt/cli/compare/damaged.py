"""The damaged runs that a comparison leaves out."""

from collections.abc import Mapping

from drakegpt.cli import console


def warn_of_damaged(damaged: Mapping[str, str]) -> None:
    """Name the runs that are left out, and what is wrong with each."""
    for run, problem in damaged.items():
        console.warn(f"{run} is damaged and left out. {problem}")


def damaged_to_json(damaged: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the same as plain values."""
    return [{"run": run, "problem": problem} for run, problem in damaged.items()]
