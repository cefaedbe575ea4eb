"""A run: the folder that remembers one training from its settings to its weights.

    runs/<name>/config.toml       the settings that it began with, complete
    runs/<name>/run.json          what else identifies it: dataset version, device, versions;
                                  and which settings changed later, after which iteration
    runs/<name>/tokenizer.json
    runs/<name>/metrics.jsonl     a line per evaluation, and one when it is finished or given up
    runs/<name>/checkpoints/      the last states, to go on from and to use
    runs/<name>/best.safetensors  the weights with the lowest loss of an evaluation so far
    runs/<name>/initial.safetensors  those it began with, if from another run

A run never overwrites another, and takes its name when all of it is on the disk.
Here: opening, making and finding runs; what fills the folder while a model learns
is `recorder`.
"""

import errno
import json
import logging
import math
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from drakegpt import config as settings
from drakegpt import files, home
from drakegpt.config import ModelConfig, TrainConfig
from drakegpt.config import files as config_files
from drakegpt.data import dataset
from drakegpt.data.dataset import Dataset
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.data.tokenizers.load import tokenizer_from_json
from drakegpt.errors import RunError, UsageError, is_out_of_memory
from drakegpt.files import parse_json
from drakegpt.models.layers import LanguageModel
from drakegpt.models.load import load_model
from drakegpt.models.packed_linear import PackedBits, Packing, pack_
from drakegpt.models.registry import choose_device, choose_threads
from drakegpt.runs.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_weights,
    save_weights,
)
from drakegpt.version import __version__
from drakegpt.wording import format_command, pluralize

log = logging.getLogger("drakegpt")

TRAIN = "Run `drakegpt train MODEL` first."
# Of the folder. It grows where a run from before would be misread: settings that are gone or mean
# something else.
FORMAT = 2
# Of an evaluation in the metrics; and why training may have come to its end or been given up.
FIGURES = ("train_loss", "val_loss", "learning_rate", "tokens_per_second", "seconds")
REASONS = {"finished": ("iterations", "patience"), "stopped": ("pruned", "diverged")}
LONGEST_NAME = 200  # bytes; temporary names, which are longer, must fit too
FILES = ("run.json", "config.toml", "tokenizer.json")  # that a whole run has, whatever it came to
LAST_LINES = 4096  # bytes that hold the last few lines of metrics.jsonl


class OlderRunError(RunError):
    """A run that an older drakegpt has made."""

    state = "from an older drakegpt"


@dataclass(frozen=True)
class Part:
    """A stretch of a run's training, all on the schedule of one length."""

    after: int  # iterations trained before it
    to: int  # and with it
    iters: int  # the length of the run as it was planned then


@dataclass(frozen=True)
class Run:
    """A run on disk, opened. Reading it never changes it."""

    folder: Path
    config: TrainConfig
    info: dict[str, Any]
    tokenizer: Tokenizer
    # Settings that differ from those on the disk, (old, new), until it goes on with them.
    changes: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

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
            return _metrics(self.folder, _sign(self.folder, "metrics.jsonl"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"metrics.jsonl of {self.name} is damaged: {error}.", TRAIN) from error

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
    def parts(self) -> tuple[Part, ...]:
        """The parts it was trained in, oldest first: one, unless its length was changed."""
        earlier, saved = self._earlier_parts, self.checkpoints
        done = earlier[-1].to if earlier else 0
        reached = saved[-1].iteration if saved else done
        return (*earlier, Part(done, max(done, reached), self.config.iters))

    @property
    def _earlier_parts(self) -> list[Part]:
        """All parts but the last."""
        parts: list[Part] = []
        done = 0
        for change in self.info.get("changes", ()):
            after, settings = change["iteration"], change["settings"]
            if "iters" in settings and after > done:
                parts.append(Part(done, after, settings["iters"][0]))
                done = after
        return parts

    @property
    def plain(self) -> bool:
        """Whether it is what its settings give from the beginning: trained in one part."""
        return not self._earlier_parts

    @property
    def history(self) -> str:
        """In which parts it was trained, in words; nothing if it is plain."""
        if self.plain:
            return ""
        told = [f"to {part.to:,} on the schedule of {part.iters:,}" for part in self.parts]
        return f"trained in {len(told)} parts: iterations {', then '.join(told)}"

    @property
    def origin(self) -> str:
        """How it came about if not by one training here with its settings; else nothing."""
        return self.derived or self.history

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
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise misfit(self, error) from error
        if self.config.bits != "full" and not packing:
            pack_(model)  # computes the same, without rounding its weights each time
        return model.to(device)


def _machine(device: torch.device) -> str:
    """What a run is trained on, in words."""
    processor = (
        f"{platform.system()} {platform.machine()}, {pluralize(os.cpu_count() or 1, 'core')}"
    )
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{processor}{gpu}"


def create_run(
    config: TrainConfig,
    data: Dataset,
    name: str | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
    initial: Mapping[str, Tensor] | None = None,
    fill: Callable[[Run], object] | None = None,
) -> Run:
    """Make the folder of a new run, once all it needs is known to be there.

    `facts` are added to run.json; `initial` are the weights of `config.init_from`;
    `fill` writes what else belongs to it before it takes its name, such as weights
    that were made elsewhere. Raises `UsageError` if `name` is taken or cannot be
    one, for a device that is not there, or for settings that would be ignored;
    `CorpusError` for a dataset too short for the context.
    """
    if name is not None:
        check_new(name)
    _check_final(config, initial, merge_layers=fill is not None)
    data.check_context(config.context_length, tail=config.holds_out_tail)
    device = choose_device(config.device)
    stamp = datetime.now()
    kind = config.size if config.bits == "full" else f"{config.size}_{config.bits}bit"
    info = {
        "format": FORMAT,
        "created_at": datetime.now(UTC).isoformat(),
        "dataset_version": data.metadata.version,
        "drakegpt": __version__,
        "torch": torch.__version__,
        "device": str(device),
        "machine": _machine(device),
        **(facts or {}),
    }
    with files.temporary_folder(home.runs()) as place:
        run = Run(place / "run", config, info, data.tokenizer)
        if initial is not None:
            save_weights(run.initial_weights, initial, run.weights_metadata(0))
        files.write_text(run.folder / "tokenizer.json", data.tokenizer.to_json())
        files.write_text(run.folder / "run.json", json.dumps(info, indent=2))
        files.write_text(run.folder / "config.toml", config_files.to_toml(config))
        if fill:
            fill(run)
        stem = f"{config.model}_{kind}_{data.name}_{stamp:%Y%m%d_%H%M%S}"
        return replace(run, folder=_named(run.folder, name, stem))


def _check_final(
    config: TrainConfig, initial: Mapping[str, Tensor] | None, *, merge_layers: bool
) -> None:
    """Raise `UsageError` for settings that a run would record and not follow."""
    if config.epochs or config.minutes:
        raise UsageError(
            f"A run is made with a number of iterations, not with {config.epochs:,} epochs or "
            f"{config.minutes:g} minutes.",
            "Resolve its settings with resolve_run, or give iters.",
        )
    if not merge_layers and (initial is not None) != bool(config.init_from):
        said = f"init_from names {config.init_from}" if config.init_from else "init_from is empty"
        raise UsageError(
            f"{said}, but its weights are {'missing' if initial is None else 'given'}.",
            "Give both, or neither; start_run takes the weights from the run that is named.",
        )


# What may change when a run goes on: how long it trains and how it is kept, not what it computes.
CHANGEABLE = ("iters", "patience", "save_interval", "wandb", "device")


def with_changes(run: Run, given: Mapping[str, Any]) -> Run:
    """The same run with other settings where that makes sense; its folder stays as it is.

    Whoever goes on with it writes them down by `record_changes`. Raises
    `UsageError` that names each setting that cannot change.
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
            f"{run.name} has been trained for {pluralize(done, 'iteration')} already.",
            f"Give --iters above {done}, or leave it out.",
        )
    config = settings.resolve(run.config.model, run.config.size, run.config.data, current, changes)
    pairs = {key: (current[key], value) for key, value in changes.items()}
    return replace(run, config=config, changes={**run.changes, **pairs})


def record_changes(run: Run, done: int) -> None:
    """Write down which settings of a run change after `done` iterations, and in `run.info`.

    Where it has gone back to an earlier iteration, so have the changes before.
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


def open_run(folder: Path) -> Run:
    """Open a run's folder; raises `RunError` if it is not one, is damaged or older."""
    try:
        run = _opened(folder, tuple(_sign(folder, name) for name in FILES))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # nothing is known of the run then
        fix = TRAIN
        if folder.parent == home.runs():
            removing = format_command("runs remove", folder.name)
            fix = f"Remove it: `{removing}`; or train it again."
        raise RunError(f"{folder} is not a whole run: {error}", fix) from error
    return Run(folder, run.config, dict(run.info), run.tokenizer)


def _sign(folder: Path, name: str) -> tuple[int, ...]:
    """What is another when a file has been written anew."""
    status = os.stat(f"{folder}/{name}")  # noqa: PTH116 - thousands of runs are listed
    return status.st_ino, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1 << 14)
def _opened(folder: Path, _: tuple[tuple[int, ...], ...]) -> Run:
    """The run, read once as long as its files are the same; raises what is wrong with them."""
    info = parse_json((folder / "run.json").read_text(encoding="utf-8"))
    if not isinstance(known := info.get("format", 1), int) or known > FORMAT:
        raise ValueError(f"its format is {known}; a newer drakegpt may know it")
    if known < FORMAT:
        raise OlderRunError(
            f"{folder.name} is a run from an older drakegpt.",
            f"Train it again, or remove it: `{format_command('runs remove', folder.name)}`.",
        )
    _check_info(info)
    values = config_files.from_file(folder / "config.toml")
    for change in info.get("changes", ()):
        values.update({name: new for name, (_, new) in change["settings"].items()})
    config = settings.resolve(
        values.pop("model", ""), values.pop("size", ""), values.pop("data", ""), values
    )
    tokenizer = _tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return Run(folder, config, info, tokenizer)


def misfit(run: Run, error: Exception) -> RunError:
    """What to say of a run whose weights are not of the shapes that its settings ask for."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[-1] if lines else type(error).__name__  # PyTorch's first is a title
    return RunError(
        f"The weights of {run.name} do not fit its settings: {first.rstrip('.')}.",
        "Its config.toml or weights were changed; train again.",
    )


def list_runs(*, begun: bool = True) -> list[Run]:
    """Every whole run, oldest first; with `begun`, only those that have a checkpoint."""
    runs, _ = open_all_runs()
    return [run for run in runs if not begun or run.checkpoints]


def open_all_runs() -> tuple[list[Run], list[tuple[Path, RunError]]]:
    """Every whole run, oldest first, and each other folder with what is wrong with it, by name."""
    runs: list[Run] = []
    unreadable: list[tuple[Path, RunError]] = []
    parent = home.runs()
    entries = list(os.scandir(parent)) if parent.is_dir() else []
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        folder = parent / entry.name
        try:
            run = open_run(folder)
            _ = run.metrics  # which may be damaged, too
            runs.append(run)
        except RunError as error:
            unreadable.append((folder, error))
    return sorted(runs, key=lambda run: str(run.info["created_at"])), unreadable


def check_name(name: str, what: str = "run") -> None:
    """Raise `UsageError` if `name` cannot name a folder, or would be taken for something else."""
    if (
        not name.strip()
        or Path(name).name != name
        or "\\" in name
        or name.startswith((".", "-"))
        or not name.isprintable()
        or len(name.encode()) > LONGEST_NAME
        or name.lower() in map(str.lower, settings.MODEL_NAMES)
    ):
        fix = (
            "Use a plain name without '/', '\\' or control characters, of at most "
            f"{LONGEST_NAME} bytes, that does not begin with '.' or '-' and is no model's."
        )
        raise UsageError(f"{name!r} cannot name a {what}.", fix)


def check_new(name: str) -> None:
    """Raise `UsageError` if a new run cannot have that name."""
    check_name(name)
    if (home.runs() / name).exists():
        raise _taken(name)


def _taken(name: str) -> UsageError:
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


def _named(made: Path, name: str | None, stem: str) -> Path:
    """Give the folder of a run that is whole its name, or one that begins with `stem`."""
    number = 1
    while True:
        folder = home.runs() / (name or (stem if number == 1 else f"{stem}_{number}"))
        try:
            files.move_exclusively(made, folder)
        except FileExistsError:
            if name:
                raise _taken(name) from None
            number += 1
        else:
            return folder


_tokenizer = lru_cache(maxsize=8)(tokenizer_from_json)  # most runs have that of another


@lru_cache(maxsize=1 << 14)
def _metrics(folder: Path, _: tuple[int, ...]) -> list[dict[str, Any]]:
    """The lines of metrics, read once as long as the file is the same; raises what is wrong."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    metrics = parse_json(f"[{','.join(lines)}]")  # many lines at once are read much faster
    if len(metrics) != len(lines):
        raise ValueError("not an object in each line")
    _check_lines(metrics)
    return list(metrics)


def _check_lines(lines: list[dict[str, Any]]) -> None:
    """Raise what `_check_line` raises for one of them; all at once, as almost all are right."""
    evaluations = [line for line in lines if line["event"] == "evaluation"]
    others = [line for line in lines if line["event"] != "evaluation"]
    values = list(chain.from_iterable(map(itemgetter(*FIGURES), evaluations)))
    iterations = [line["iteration"] for line in evaluations]
    right = (
        set(map(type, values)) <= {int, float}
        and set(map(type, iterations)) <= {int}
        and all(map(math.isfinite, values))
        and min(iterations, default=0) >= 0
    )
    for line in others if right else lines:
        _check_line(line)


def _check_line(line: Mapping[str, Any]) -> None:
    """Raise `ValueError`, or what a missing entry raises, for a line that is none of metrics."""
    if type(line["iteration"]) is not int or line["iteration"] < 0:
        raise ValueError(f"{line['iteration']!r:.40} is no number of iterations")
    if (event := line["event"]) == "evaluation":
        values = [line[name] for name in FIGURES]
        if not set(map(type, values)) <= {int, float} or not math.isfinite(sum(values)):
            raise ValueError(f"{', '.join(FIGURES)} are {values!r:.80}, not finite numbers")
    elif event not in REASONS:
        raise ValueError(f"it has an event {event!r:.40}")
    elif line["reason"] not in REASONS[event]:
        raise ValueError(f"{event} for a reason that is not known: {line['reason']!r:.40}")


def _check_info(info: Mapping[str, Any]) -> None:
    """Raise `ValueError` or `KeyError` for what cannot be said of a run in run.json."""
    kinds: dict[str, type] = {
        "created_at": str, "dataset_version": str, "sweep": str, "trial": int, "device": str,
        "imported_from": str, "imported_sha256": str, "final_norm": bool, "packed": dict,
        "changes": list, "machine": str, "drakegpt": str, "torch": str,
    }  # fmt: skip
    for name, kind in kinds.items():
        if name in info and type(info[name]) is not kind:
            raise ValueError(f"{name} in run.json cannot be {info[name]!r:.40}")
    info["created_at"]
    if not re.fullmatch("[0-9a-f]{64}", info["dataset_version"]):
        raise ValueError("dataset_version in run.json is no checksum")
    if packed := info.get("packed"):
        if packed["bits"] not in get_args(PackedBits) or type(packed["trained"]) is not bool:
            raise ValueError(f"packed in run.json cannot be {packed!r:.60}")
        if not isinstance(packed["from"], str):
            raise ValueError("packed in run.json does not say from what")
    for change in info.get("changes", ()):
        if type(change["iteration"]) is not int or change["iteration"] < 0:
            raise ValueError("a change in run.json is after no number of iterations")
        for name, (old, _) in change["settings"].items():
            if name not in CHANGEABLE:
                raise ValueError(f"{name!r:.40} in run.json is no setting that may change")
            if name == "iters" and type(old) is not int:
                raise ValueError(f"the length before in run.json cannot be {old!r:.40}")
