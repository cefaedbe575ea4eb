"""A run: the folder that remembers one training from its settings to its weights.

    runs/<name>/config.toml       the settings, complete
    runs/<name>/run.json          what else identifies it: dataset version, device, versions
    runs/<name>/tokenizer.json
    runs/<name>/metrics.jsonl     a line per evaluation, and one when it is finished or given up
    runs/<name>/checkpoints/      the last states, to go on from and to use
    runs/<name>/best.safetensors  the weights with the lowest loss of an evaluation so far
    runs/<name>/initial.safetensors  those it began with, if from another run

A run never overwrites another. Here: opening, making and finding runs; what
fills the folder while a model learns is `recorder`.
"""

import json
import logging
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import drakegpt
from drakegpt import config as settings
from drakegpt import config_files, paths
from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers import tokenizer_from_json
from drakegpt.data.tokens import Tokenizer
from drakegpt.errors import RunError, UsageError
from drakegpt.models.build import choose_device, choose_threads, load_model
from drakegpt.models.layers import LanguageModel
from drakegpt.models.packed import Packing, pack_
from drakegpt.paths import parse_json
from drakegpt.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_weights,
    save_weights,
)

log = logging.getLogger("drakegpt")

TRAIN = "Run `drakegpt train MODEL` first."
# Of the folder. It grows where a run from before would be misread: settings that are gone or mean
# something else.
FORMAT = 2
LAST_LINES = 4096  # bytes that hold the last few lines of metrics.jsonl


class OlderRunError(RunError):
    """A run that an older drakegpt has made."""

    state = "from an older drakegpt"


@dataclass(frozen=True)
class Run:
    """A run on disk, opened. Reading it never changes it."""

    folder: Path
    config: TrainConfig
    info: dict[str, Any]
    tokenizer: Tokenizer

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def model_config(self) -> ModelConfig:
        """The shape of this run's model."""
        config = self.config.model_settings(self.tokenizer.vocab_size)
        return replace(config, final_norm=self.info.get("final_norm", True))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut off by a crash is left out."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"metrics.jsonl of {self.name} is damaged: {error}.", TRAIN) from error
        try:
            metrics = [parse_json(line) for line in lines[:-1]]
            for line in metrics:
                line["event"], line["iteration"]
                if line["event"] == "evaluation":
                    float(line["train_loss"]), float(line["val_loss"])
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"metrics.jsonl of {self.name} is damaged: {error}.", TRAIN) from error
        return metrics

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations made while training, oldest first."""
        return [line for line in self.metrics if line["event"] == "evaluation"]

    @property
    def last_evaluation(self) -> dict[str, Any]:
        """The newest evaluation, empty if there is none yet; read from the file's end alone."""
        try:
            with (self.folder / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_LINES))
                lines = file.read().split(b"\n")
            read = [parse_json(line.decode()) for line in lines[:-1] if line.startswith(b"{")]
            return next((line for line in reversed(read) if line["event"] == "evaluation"), {})
        except (OSError, ValueError, TypeError, KeyError):
            return {}

    @property
    def ending(self) -> dict[str, Any]:
        """How training came to its end; empty if it has not."""
        return next((line for line in self.metrics if line["event"] == "finished"), {})

    @property
    def finished(self) -> bool:
        """Whether training came to its end, here or in the original."""
        return bool(self.ending or self.derived)

    @property
    def stopped(self) -> str:
        """Why a sweep gave the run up before its end, if it did: "pruned", "diverged"."""
        lines = (line for line in self.metrics if line["event"] == "stopped")
        return next((str(line["reason"]) for line in lines), "")

    @property
    def sweep(self) -> str:
        """The study that this run is a trial of, or nothing.

        A trial goes on with its study, or by name, and stands for no model in a comparison.
        """
        return str(self.info.get("sweep", ""))

    @property
    def derived(self) -> str:
        """How the run came about if not by training here: "imported", "packed" or nothing."""
        if "packed" in self.info:
            return "packed"
        return "imported" if "imported_from" in self.info else ""

    @property
    def initial_weights(self) -> Path:
        """Where the weights of the run that this one started from are kept, if it did."""
        return self.folder / "initial.safetensors"

    def weights_metadata(self, iteration: int) -> dict[str, str]:
        """What a weights file says of itself, so that it can be used away from its run."""
        return {
            "model": json.dumps(asdict(self.model_config)),
            "tokenizer": self.tokenizer.to_json(),
            "dataset": self.config.data,
            "dataset_version": str(self.info["dataset_version"]),
            "iteration": str(iteration),
        }

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All that is saved of it, whole or not, oldest first."""
        return list_checkpoints(self.folder / "checkpoints")

    def last_checkpoint(self) -> Checkpoint:
        """The newest whole checkpoint; an older one, with a warning, where that is damaged.

        Raises `RunError` if nothing was saved yet or nothing is whole.
        """
        problem: RunError | None = None
        for checkpoint in reversed(self.checkpoints):
            try:
                checkpoint.verify()
            except RunError as error:
                problem = problem or error
                continue
            if problem:
                log.warning("%s Going back to iteration %d.", problem.problem, checkpoint.iteration)
            return checkpoint
        raise problem or RunError(f"The run {self.name} has no checkpoint yet.", TRAIN)

    def dataset(self) -> Dataset:
        """The very version of the dataset that this run was trained on.

        Raises `CorpusError` if it is gone, `RunError` if its tokens are not the run's.
        """
        data = dataset.load(self.config.data, self.info["dataset_version"])
        if data.tokenizer.to_json() != self.tokenizer.to_json():
            raise RunError(
                f"'{data.name}' is prepared with another tokenizer than that of {self.name}.",
                "One of the two was changed: take a copy of it, or train a new run.",
            )
        return data

    def load_model(self, device: torch.device, *, best: bool = False) -> LanguageModel:
        """The trained model on `device`, ready to evaluate: as it ended, or at its best."""
        choose_threads(self.model_config)
        path = self.folder / "best.safetensors" if best else self.last_checkpoint().weights
        tensors, _ = load_weights(path)
        try:
            packed = self.info.get("packed")
            packing = Packing(packed["bits"], packed["trained"]) if packed else None
            model = load_model(self.model_config, tensors, packing)
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"The weights of {self.name} do not fit its settings: {error}.",
                "Its config.toml or weights were changed; train again.",
            ) from error
        if self.config.bits != "full" and not packing:
            pack_(model)  # computes the same, without rounding its weights each time
        return model.to(device)


def create_run(
    config: TrainConfig,
    data: Dataset,
    name: str | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    initial: Mapping[str, Tensor] | None = None,
) -> Run:
    """Make the folder of a new run, once all it needs is known to be there.

    `facts` are added to run.json; `initial` are the weights of `config.init_from`.
    Raises `UsageError` if `name` is taken or cannot be one, or for a device that
    is not there, and `CorpusError` for a dataset too short for the context.
    """
    data.check_context(config.context_length, tail=config.holds_out_tail)
    device = choose_device(config.device)
    stamp = datetime.now()
    kind = config.size if config.bits == "full" else f"{config.size}_{config.bits}bit"
    folder = _new_folder(name, f"{config.model}_{kind}_{data.name}_{stamp:%Y%m%d_%H%M%S}")
    info = {
        "format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(),
        "dataset_version": data.metadata.version,
        "drakegpt": drakegpt.__version__,
        "torch": torch.__version__,
        "device": str(device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        **(facts or {}),
    }
    run = Run(folder, config, info, data.tokenizer)
    if initial is not None:
        save_weights(run.initial_weights, initial, run.weights_metadata(0))
    paths.write_text(folder / "tokenizer.json", data.tokenizer.to_json())
    paths.write_text(folder / "run.json", json.dumps(info, indent=2))
    paths.write_text(folder / "config.toml", config_files.to_toml(config))
    return run


# What may change when a run goes on: how long it trains and how it is kept, not what it computes.
CHANGEABLE = ("iters", "patience", "save_interval", "wandb", "device")


def with_changes(run: Run, given: Mapping[str, Any]) -> Run:
    """The same run with other settings where that makes sense, written to its folder.

    Raises `UsageError` that names each setting that cannot change.
    """
    current = asdict(run.config)
    changes = {key: value for key, value in given.items() if current.get(key) != value}
    if not changes:
        return run
    if refused := [key for key in changes if key not in CHANGEABLE]:
        listed = ", ".join(f"{key} ({current.get(key)} → {changes[key]})" for key in refused)
        raise UsageError(
            f"A run that goes on keeps its settings; these differ: {listed}.",
            f"Leave them out, or start a new run. What may change: {', '.join(CHANGEABLE)}.",
        )
    done = run.checkpoints[-1].iteration if run.checkpoints else 0
    if done and changes.get("iters", done + 1) <= done:
        raise UsageError(
            f"{run.name} has been trained for {done:,} iterations already.",
            f"Give --iters above {done}, or leave it out.",
        )
    config = settings.resolve(run.config.model, run.config.size, run.config.data, current, changes)
    paths.write_text(run.folder / "config.toml", config_files.to_toml(config))
    return replace(run, config=config)


def open_run(folder: Path) -> Run:
    """Open a run's folder; raises `RunError` if it is not one, is damaged or older."""
    try:
        info = parse_json((folder / "run.json").read_text(encoding="utf-8"))
        if not isinstance(known := info.get("format", 1), int) or known > FORMAT:
            raise ValueError(f"its format is {known}; a newer drakegpt may know it")
        if known < FORMAT:
            raise OlderRunError(
                f"{folder.name} is a run from an older drakegpt.",
                f"Train it again, or remove it: `drakegpt runs remove {folder.name}`.",
            )
        values = config_files.from_file(folder / "config.toml")
        config = settings.resolve(
            values.pop("model", ""), values.pop("size", ""), values.pop("data", ""), values
        )
        tokenizer = tokenizer_from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if not all(isinstance(info[key], str) for key in ("dataset_version", "created_at")):
            raise ValueError("run.json lacks its dataset or its date")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise RunError(f"{folder} is not a whole run: {error}", TRAIN) from error
    return Run(folder, config, info, tokenizer)


def all_runs(*, begun: bool = True) -> list[Run]:
    """Every whole run, oldest first; with `begun`, only those that have a checkpoint."""
    runs, _ = open_all_runs()
    return [run for run in runs if not begun or run.checkpoints]


def open_all_runs() -> tuple[list[Run], list[tuple[Path, RunError]]]:
    """Every whole run, oldest first, and each other folder with what is wrong with it, by name."""
    runs: list[Run] = []
    unreadable: list[tuple[Path, RunError]] = []
    folders = sorted(paths.runs().iterdir()) if paths.runs().is_dir() else []
    for folder in folders:
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        try:
            run = open_run(folder)
            _ = run.metrics  # which may be damaged, too
            runs.append(run)
        except RunError as error:
            unreadable.append((folder, error))
    return sorted(runs, key=lambda run: str(run.info["created_at"])), unreadable


def check_name(name: str, what: str = "run") -> None:
    """Raise `UsageError` if `name` cannot name a folder, or would be taken for a model."""
    if (
        not name
        or Path(name).name != name
        or name.startswith(".")
        or name.lower() in map(str.lower, settings.MODEL_NAMES)
    ):
        fix = "Use a plain name without '/' or '\\' that is no model's."
        raise UsageError(f"'{name}' cannot name a {what}.", fix)


def check_new(name: str) -> None:
    """Raise `UsageError` if a new run cannot have that name."""
    check_name(name)
    if (paths.runs() / name).exists():
        raise _taken(name)


def _taken(name: str) -> UsageError:
    return UsageError(
        f"There is a run named '{name}' already, in {paths.runs() / name}.",
        "Take another --name; a run never overwrites another.",
    )


def _new_folder(name: str | None, stem: str) -> Path:
    if name is not None:
        check_name(name)
    number = 1
    while True:
        folder = paths.runs() / (name or (stem if number == 1 else f"{stem}_{number}"))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if name:
                raise _taken(name) from None
            number += 1
        else:
            return folder
