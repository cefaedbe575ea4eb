"""A run: the folder that remembers one training from its settings to its weights.

    runs/<name>/config.toml       the settings, complete
    runs/<name>/run.json          what else identifies it: dataset version, device, versions
    runs/<name>/tokenizer.json
    runs/<name>/metrics.jsonl     a line per evaluation, and one when it is finished
    runs/<name>/checkpoints/      the last states, to go on from and to use
    runs/<name>/best.safetensors  the weights with the lowest validation loss so far

A run never overwrites another.
"""

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import drakegpt
from drakegpt import config as settings
from drakegpt import paths
from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers import Tokenizer, tokenizer_from_json
from drakegpt.errors import RunError, UsageError
from drakegpt.models.build import build_model, choose_device, choose_threads
from drakegpt.models.layers import LanguageModel
from drakegpt.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_weights,
    save_checkpoint,
    save_weights,
)
from drakegpt.training.trainer import Evaluation, Step, Trainer

LATEST = "Run `drakegpt train MODEL` first."


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
        return self.config.model_settings(self.tokenizer.vocab_size)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut off by a crash is left out."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[:-1]]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations made while training, oldest first."""
        return [line for line in self.metrics if line["event"] == "evaluation"]

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return any(line["event"] == "finished" for line in self.metrics)

    @property
    def last_checkpoint(self) -> Checkpoint:
        """The newest checkpoint; raises `RunError` if nothing was saved yet."""
        checkpoints = list_checkpoints(self.folder / "checkpoints")
        if not checkpoints:
            raise RunError(f"The run {self.name} has no checkpoint yet.", LATEST)
        return checkpoints[-1]

    def dataset(self) -> Dataset:
        """The very version of the dataset that this run was trained on."""
        return dataset.load(self.config.data, self.info["dataset_version"])

    def load_model(self, device: torch.device) -> LanguageModel:
        """The trained model on `device`, ready to evaluate."""
        choose_threads(self.model_config)
        checkpoint = self.last_checkpoint
        checkpoint.verify()
        tensors, _ = load_weights(checkpoint.weights)
        model = build_model(self.model_config)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise RunError(
                f"The weights of {self.name} do not fit its settings: {error}.",
                "Its config.toml or weights were changed; train again.",
            ) from error
        return model.to(device).eval()


def create_run(config: TrainConfig, data: Dataset, name: str | None = None) -> Run:
    """Make the folder of a new run, once all it needs is known to be there.

    Raises `UsageError` if `name` is taken or cannot be one, or for a device that
    is not there, and `CorpusError` for a dataset too short for the context.
    """
    data.check_context(config.context_length)
    device = choose_device(config.device)
    stamp = datetime.now()
    folder = _new_folder(name, f"{config.model}_{config.size}_{data.name}_{stamp:%Y%m%d_%H%M%S}")
    info = {
        "created_at": datetime.now(UTC).isoformat(),
        "dataset_version": data.metadata.version,
        "drakegpt": drakegpt.__version__,
        "torch": torch.__version__,
        "device": str(device),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }
    paths.write_text(folder / "tokenizer.json", data.tokenizer.to_json())
    paths.write_text(folder / "run.json", json.dumps(info, indent=2))
    paths.write_text(folder / "config.toml", settings.to_toml(config))
    return Run(folder, config, info, data.tokenizer)


def train_run(run: Run) -> Iterator[Step | Evaluation]:
    """Train a new run to its end, writing down what is worth keeping as it goes by.

    Yields the trainer's reports. Raises `RunError` when the loss fails.
    """
    data = run.dataset()
    device = choose_device(run.config.device)
    choose_threads(run.model_config)
    torch.manual_seed(run.config.seed)
    model = build_model(run.model_config).to(device)
    trainer = Trainer(run.config, model, data.split("train"), data.split("val"), device)
    best = float("inf")
    for report in trainer.reports():
        if isinstance(report, Evaluation):
            _append(run, "evaluation", asdict(report))
            weights = model.state_dict()
            _save(run, trainer, weights)
            if report.val_loss < best:
                best = report.val_loss
                save_weights(run.folder / "best.safetensors", weights, _metadata(run, report))
        yield report
    _append(run, "finished", asdict(trainer.evaluations[-1]))


def open_run(folder: Path) -> Run:
    """Open a run's folder; raises `RunError` if it is not one or is damaged."""
    try:
        values = settings.from_toml(folder / "config.toml")
        config = settings.resolve(
            values.pop("model", ""), values.pop("size", ""), values.pop("data", ""), values
        )
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        tokenizer = tokenizer_from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        info["dataset_version"], info["created_at"]
    except (OSError, ValueError, KeyError, TypeError, UsageError) as error:
        raise RunError(f"{folder} is not a whole run: {error}", LATEST) from error
    return Run(folder, config, info, tokenizer)


def all_runs() -> list[Run]:
    """Every whole run that has a checkpoint, oldest first."""
    found = []
    for file in paths.runs().glob("*/config.toml"):
        if list_checkpoints(file.parent / "checkpoints"):
            try:
                found.append(open_run(file.parent))
            except RunError:
                continue  # named when asked for by name
    return sorted(found, key=lambda run: str(run.info["created_at"]))


def latest_run(model: str, size: str, data: str | None = None) -> Run | None:
    """The latest run of a model at a size (on a dataset), or `None`."""
    matching = [
        run
        for run in all_runs()
        if (run.config.model, run.config.size) == (model, size) and data in (None, run.config.data)
    ]
    return matching[-1] if matching else None


def _save(run: Run, trainer: Trainer, weights: dict[str, Tensor]) -> None:
    save_checkpoint(
        run.folder / "checkpoints",
        trainer.iteration,
        weights,
        trainer.state_dict(),
        _metadata(run, trainer.evaluations[-1]),
    )


def _metadata(run: Run, evaluation: Evaluation) -> dict[str, str]:
    """What a weights file says of itself, so that it can be used away from its run."""
    return {
        "model": json.dumps(asdict(run.model_config)),
        "tokenizer": run.tokenizer.to_json(),
        "dataset": run.config.data,
        "dataset_version": str(run.info["dataset_version"]),
        "iteration": str(evaluation.iteration),
        "val_loss": repr(evaluation.val_loss),
    }


def _append(run: Run, event: str, values: dict[str, Any]) -> None:
    """Add one whole line to metrics.jsonl and force it to the disk."""
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps({"event": event, **values}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _new_folder(name: str | None, stem: str) -> Path:
    if name is not None and (not name or Path(name).name != name or name.startswith(".")):
        raise UsageError(f"'{name}' cannot name a run.", "Use a plain name without '/' or '\\'.")
    number = 1
    while True:
        folder = paths.runs() / (name or (stem if number == 1 else f"{stem}_{number}"))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if name:
                raise UsageError(
                    f"There is a run named '{name}' already, in {folder}.",
                    "Take another --name; a run never overwrites another.",
                ) from None
            number += 1
        else:
            return folder
