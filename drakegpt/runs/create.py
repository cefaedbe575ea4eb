"""Makes the folder of a new run and names it.

The folder takes its name once all of it is on the disk; a run never overwrites another.
"""

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from drakegpt import files, home
from drakegpt.compute.device import choose_device
from drakegpt.config import MODEL_NAMES, TrainConfig
from drakegpt.config import files as config_files
from drakegpt.data.dataset import Dataset
from drakegpt.errors import RunError, UsageError
from drakegpt.runs.checkpoint import save_weights
from drakegpt.runs.info import FORMAT
from drakegpt.runs.run import OlderRunError, Run, open_run
from drakegpt.version import __version__
from drakegpt.wording import format_command, pluralize

LONGEST_NAME = 200  # bytes; temporary names, which are longer, must fit too


def create_run(
    config: TrainConfig,
    data: Dataset,
    name: str | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    fill: Callable[[Run], object] | None = None,
    root: Path | None = None,
) -> Run:
    """Make the folder of a new run, after checking that it can be trained.

    `facts`: added to run.json. `initial`: the weights of the run `config.init_from`.
    `fill`: writes further files into the folder before it takes its name, such as
    weights that were made elsewhere. `root`: the folder it is put into, with its name; by
    default that of all runs.

    Raises `UsageError` if `name` is taken or not valid, if the device is missing, or
    for settings that would be ignored; `CorpusError` for a dataset that is too short
    for the context.
    """
    if name is not None and root is None:
        check_new_name(name)
    _check_final(config, initial, made_elsewhere=fill is not None)
    data.check_context(config.context_length, tail=config.holds_out_tail)
    device = choose_device(config.device)
    info = {
        "format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(),
        "dataset_version": data.metadata.version,
        "drakegpt": __version__,
        "torch": torch.__version__,
        "device": str(device),
        "machine": _describe_machine(device),
        **(facts or {}),
    }
    with files.temporary_folder(root or home.runs()) as temporary:
        run = Run(temporary / "run", config, info, data.tokenizer)
        if initial is not None:
            save_weights(run.initial_weights, initial, run.describe_weights(0))
        files.write_text(run.folder / "tokenizer.json", data.tokenizer.to_json())
        files.write_text(run.folder / "run.json", json.dumps(info, indent=2))
        files.write_text(run.folder / "config.toml", config_files.to_toml(config))
        if fill:
            fill(run)
        return replace(run, folder=_move_to_name(run.folder, root, name, data.name))


def _check_final(
    config: TrainConfig, initial: Mapping[str, Tensor] | None, *, made_elsewhere: bool
) -> None:
    """Raise `UsageError` for settings that a run would record but not follow."""
    if config.epochs:
        raise UsageError(
            f"A run is made with a number of iterations, not with "
            f"{pluralize(config.epochs, 'epoch')}.",
            "Resolve its settings with resolve_run, or give iters.",
        )
    if not made_elsewhere and (initial is not None) != bool(config.init_from):
        named = f"init_from names {config.init_from}" if config.init_from else "init_from is empty"
        raise UsageError(
            f"{named}, but its weights are {'missing' if initial is None else 'given'}.",
            "Give both, or neither; start_run takes the weights from the run that is named.",
        )


def _describe_machine(device: torch.device) -> str:
    """Describe the machine that a run is trained on: system, cores and GPU."""
    processor = (
        f"{platform.system()} {platform.machine()}, {pluralize(os.cpu_count() or 1, 'core')}"
    )
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{processor}{gpu}"


def check_name(name: str, what: str = "run") -> None:
    """Raise `UsageError` if `name` cannot name a folder, or would be read as an option or model."""
    if (
        not name.strip()
        or Path(name).name != name
        or "\\" in name
        or name.startswith((".", "-"))
        or not name.isprintable()
        or len(name.encode()) > LONGEST_NAME
        or name.lower() in map(str.lower, MODEL_NAMES)
    ):
        fix = (
            "Use a plain name without '/', '\\' or control characters, of at most "
            f"{LONGEST_NAME} bytes, that does not begin with '.' or '-' and is not a model's name."
        )
        raise UsageError(f"{name!r} cannot name a {what}.", fix)


def check_new_name(name: str) -> None:
    """Raise `UsageError` if `name` is not valid for a run, or is taken."""
    check_name(name)
    if (home.runs() / name).exists():
        raise _explain_taken(name)


def _explain_taken(name: str) -> UsageError:
    """Return an error that says what has that name."""
    folder = home.runs() / name
    problem = f"There is a run named '{name}' already, in {folder}."
    try:
        open_run(folder)
    except OlderRunError:
        pass
    except RunError:
        problem = f"There is something named '{name}' already, which is not a whole run: {folder}."
        return UsageError(
            problem, f"Take another --name, or remove it: `{format_command('runs remove', name)}`."
        )
    return UsageError(problem, "Take another --name; a run never overwrites another.")


def _move_to_name(made: Path, root: Path | None, name: str | None, data: str) -> Path:
    """Move a finished folder to `name`, or to a name of the dataset's and the next number."""
    number = 0 if name else _find_last_number(data) + 1
    while True:
        folder = (root or home.runs()) / (name or f"{data}-{number}")
        try:
            files.move_exclusively(made, folder)
        except FileExistsError:
            if name:
                raise _explain_taken(name) from None
            number += 1
        else:
            return folder


def _find_last_number(data: str) -> int:
    """Return the highest number in the names `DATA-NUMBER` of runs; 0 if there are none."""
    pattern = re.compile(re.escape(data) + "-([1-9][0-9]{0,8})", re.IGNORECASE)
    folders = home.runs().iterdir() if home.runs().is_dir() else ()
    numbers = (found[1] for each in folders if (found := pattern.fullmatch(each.name)))
    return max(map(int, numbers), default=0)
