"""Changes the settings of a run that is resumed, where that is allowed, and records them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from drakegpt import config as settings
from drakegpt import files
from drakegpt.errors import UsageError
from drakegpt.runs.info import CHANGEABLE
from drakegpt.runs.run import Run
from drakegpt.wording import pluralize


def change_settings(run: Run, given: Mapping[str, Any]) -> Run:
    """Return the run with other settings; its folder stays as it is until `record_changes`.

    Raises `UsageError` that names each setting that cannot change.
    """
    current = asdict(run.config)
    changes = {key: value for key, value in given.items() if current.get(key) != value}
    if not changes:
        return run
    if refused := [key for key in changes if key not in CHANGEABLE]:
        listed = ", ".join(f"{key} ({current.get(key)} → {changes[key]})" for key in refused)
        raise UsageError(
            f"A resumed run keeps its settings; these cannot change: {listed}.",
            f"Leave them out, or start a new run. These can change: {', '.join(CHANGEABLE)}.",
        )
    if "iters" in changes and run.config.minutes and not changes.get("minutes"):
        changes |= {"minutes": 0.0, "max_epochs": 0}  # from now on a fixed length
    done = run.checkpoints[-1].iteration if run.checkpoints else 0
    if done and changes.get("iters", done + 1) <= done:
        raise UsageError(
            f"{run.name} has been trained for {pluralize(done, 'iteration')} already.",
            f"Give --iters above {done}, or leave it out.",
        )
    config = settings.resolve(run.config.model, run.config.size, run.config.data, current, changes)
    pairs = {key: (current[key], value) for key, value in changes.items()}
    return replace(run, config=config, changes={**run.changes, **pairs})


def record_changes(run: Run, done: int) -> None:
    """Write into run.json, and into `run.info`, which settings change after `done` iterations.

    Earlier changes after a later iteration move to `done`: training goes on from there, so
    what was trained between is lost.
    """
    known = run.info.get("changes", [])
    changes = [change | {"iteration": min(change["iteration"], done)} for change in known]
    latest = {name: new for change in known for name, (_, new) in change["settings"].items()}
    if fresh := {
        name: [old, new] for name, (old, new) in run.changes.items() if latest.get(name, old) != new
    }:
        changes.append({"iteration": done, "settings": fresh})
    if changes != known:
        info = run.info | {"changes": changes}
        files.write_text(run.folder / "run.json", json.dumps(info, indent=2))
        run.info.update(info)
