"""Reference runs: what models and recipes reached on known texts, kept as data.

A loss alone says little; beside the runs in `reference_runs.json` one sees whether it is what
this model and recipe reach on this text. A run belongs to a reference if it is on the same text
with the same tokenizer and agrees in all settings that decide its loss, but for the seed and the
number of iterations.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

from drakegpt import config as settings
from drakegpt.config import TrainConfig
from drakegpt.config.lookup import incidental_settings
from drakegpt.evaluation.verdict import Reference
from drakegpt.runs.run import Run

FILE = Path(__file__).with_name("reference_runs.json")
# Settings that may differ: they follow from the length, or move the loss by less than noise.
FREE = {"data", "seed", "iters", "eval_interval", "eval_iters", "dtype", "compile", "patience"}


def find_reference(run: Run) -> Reference | None:
    """Find the reference of a run that was trained here in one part, if there is one."""
    if run.provenance or run.sweep:
        return None
    version = run.info["dataset_version"]
    for record in _read_records():
        if record["version"] == version and _agrees(run.config, record):
            names = ("iterations", "mean", "spread", "seeds")
            return Reference(**{name: record[name] for name in names})
    return None


@cache
def _read_records() -> list[dict[str, Any]]:
    return list(json.loads(FILE.read_text(encoding="utf-8"))["runs"])


def _agrees(config: TrainConfig, record: Mapping[str, Any]) -> bool:
    """Whether a run's settings are those of a reference, but for `FREE` and incidental ones."""
    if (config.model, config.recipe) != (record["model"], record["recipe"]):
        return False
    given = {"recipe": record["recipe"], "iters": config.iters}
    reference = settings.resolve(record["model"], "default", config.data, given)
    names = (field.name for field in fields(TrainConfig))
    free = FREE.union(incidental_settings())
    return all(getattr(config, n) == getattr(reference, n) for n in names if n not in free)
