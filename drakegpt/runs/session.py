"""Training with a memory: whatever happens, the run's folder lets it go on as if nothing had.

A `TrainingSession` builds the trainer of a run, or restores it, and writes down what
passes by: a line of metrics per evaluation, checkpoints, the best weights.
Killed at any point, the run goes on from its last checkpoint, and on the same
CPU ends with the same bytes.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from drakegpt.errors import (
    DivergedError,
    NotEnoughMemoryError,
    RunError,
    UsageError,
    is_out_of_memory,
)
from drakegpt.files import remove_folder, remove_leftovers, write_text
from drakegpt.models.registry import build_model, choose_device, choose_threads
from drakegpt.plotting import draw_losses
from drakegpt.runs.checkpoint import (
    Checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
)
from drakegpt.runs.run import Run, misfit, open_run, record_changes
from drakegpt.runs.wandb_mirror import WandbTracker
from drakegpt.runs.warm_start import load_into_
from drakegpt.training.distributed import SINGLE_PROCESS, ProcessGroup
from drakegpt.training.memory import check_memory
from drakegpt.training.trainer import Evaluation, Step, Trainer
from drakegpt.wording import format_command, pluralize

# Saving may take one part in so many of the time, where no interval is set; with the first save
# and the last, which are always made, that stays under 2 % for runs of more than a second or two.
SAVE_SHARE = 100


class TrainingSession:
    """A run in training. Use it in a `with` statement: it keeps other processes off the run."""

    def __init__(
        self, run: Run, *, resume: bool = False, world: ProcessGroup = SINGLE_PROCESS
    ) -> None:
        """Build the run's trainer; with `resume`, as it was at the last whole checkpoint.

        Of several processes, the first has a recorder; the others call `follow`.

        Raises `RunError` if there is none or the dataset is gone, `UsageError`
        if another process trains this run or its device is not there.
        """
        self.run = run
        self.world = world
        self._lock = _lock(run)
        self._best: tuple[Evaluation, dict[str, Tensor]] | None = None
        self._saved, self._save_seconds = (-1, 0), 0.0
        self._saved_when = time.monotonic()
        with _within_memory(run):
            self.trainer = _trainer(run, world)
        self._resume = resume
        self._tracker: WandbTracker | None = None

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"Another process is training the run {self.run.name}.",
                "Wait for it, or start a run of your own.",
            ) from None
        try:
            if self._resume:
                self._restore()
                record_changes(self.run, self.trainer.iteration)
            self._tracker = self._mirror()
            self.world.tell()  # the others may read the run now
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._tracker:
            self._tracker.finish(None if kind else self._draw(), exit_code=1 if kind else 0)
        self._lock.release()
        if kind and issubclass(kind, NotEnoughMemoryError):
            _remove_unbegun(self.run)

    def reports(self) -> Iterator[Step | Evaluation]:
        """The trainer's reports, each written down before it is passed on.

        Raises `DivergedError` when the loss fails, `NotEnoughMemoryError` and
        `RunError` when the folder cannot be written; the last checkpoint is whole
        then. A run that has none for want of memory is removed.
        """
        with _within_memory(self.run):
            yield from self._recorded()

    def _recorded(self) -> Iterator[Step | Evaluation]:
        for report in self.trainer.reports():
            if isinstance(report, Evaluation):
                self._append({"event": "evaluation", **asdict(report)})
                if self._tracker:
                    self._tracker.log(report)
                if report is self.trainer.best:
                    self._best = report, _copy(self.trainer.model.state_dict())
            if self._save_due(report):
                self.save()
            yield report
        self.save()
        self._append({"event": "finished", **self._ending()})

    def save(self) -> None:
        """Write a checkpoint of this moment, and the best weights if there are new ones."""
        moment = (self.trainer.iteration, len(self.trainer.evaluations))
        if self._saved == moment:
            return
        started = time.monotonic()
        weights = self.trainer.model.state_dict()
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise DivergedError(
                f"The weights are no longer finite after iteration {self.trainer.iteration}.",
                "Train anew with a lower --max-lr, or with --grad-clip 1.",
            )
        with self._explained():
            if self._best:
                best, best_weights = self._best
                path = self.run.folder / "best.safetensors"
                save_weights(path, best_weights, self.run.weights_metadata(best.iteration))
                self._best = None
            save_checkpoint(
                self.run.folder / "checkpoints",
                self.trainer.iteration,
                weights,
                self.trainer.state_dict(),
                self.run.weights_metadata(self.trainer.iteration),
            )
        self._saved, self._saved_when = moment, time.monotonic()
        self._save_seconds = self._saved_when - started

    def stop(self, reason: str) -> None:
        """Write down that training ends before its time, and why; by name it can be resumed."""
        line = {"event": "stopped", "reason": reason, "iteration": self.trainer.iteration}
        self._append(line)

    def _mirror(self) -> WandbTracker | None:
        """Where else the run is shown; all that was recorded so far is repeated there."""
        if self.run.config.wandb == "off":
            return None
        identity = hashlib.sha256(f"{self.run.name} {self.run.info['created_at']}".encode())
        tracker = WandbTracker(
            self.run.name,
            identity.hexdigest()[:16],
            self.run.config.wandb,
            asdict(self.run.config),
            group=self.run.sweep,
        )
        for evaluation in self.trainer.evaluations:
            tracker.log(evaluation)
        return tracker

    def _draw(self) -> Path:
        """The losses as a figure in the run's folder, for the mirror."""
        unit = self.run.tokenizer.unit
        path, select_on = self.run.folder / "curves.png", self.run.config.select_on
        return draw_losses(self.run.evaluations, self.run.name, unit, select_on, path)

    def _save_due(self, report: Step | Evaluation) -> bool:
        """By iterations if the user says so, else at evaluations as often as is cheap."""
        if interval := self.run.config.save_interval:
            return isinstance(report, Step) and report.iteration % interval == 0
        waited = time.monotonic() - self._saved_when
        return isinstance(report, Evaluation) and waited >= SAVE_SHARE * self._save_seconds

    def _restore(self) -> None:
        """Bring the trainer and the metrics back to the last whole checkpoint."""
        folder = self.run.folder
        remove_leftovers(folder)
        remove_leftovers(folder / "checkpoints")
        if self.run.checkpoints:
            checkpoint = _restore(self.run, self.trainer)
            self._saved = (self.trainer.iteration, len(self.trainer.evaluations))
            for later in self.run.checkpoints:
                if later.iteration > checkpoint.iteration:  # damaged, or it were the last
                    remove_folder(later.folder)
        lines = [_line({"event": "evaluation", **asdict(e)}) for e in self.trainer.evaluations]
        write_text(folder / "metrics.jsonl", "".join(lines))

    def _ending(self) -> dict[str, Any]:
        best = self.trainer.best
        return asdict(self.trainer.evaluations[-1]) | {
            "reason": "patience" if self.trainer.out_of_patience else "iterations",
            "best_iteration": best.iteration if best else None,
        }

    def _append(self, values: dict[str, Any]) -> None:
        """Add one whole line to metrics.jsonl and force it to the disk."""
        path = self.run.folder / "metrics.jsonl"
        with self._explained(), path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(_line(values))
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say what it means for the run when its folder cannot be written."""
        folder, iteration = self.run.folder, self.trainer.iteration
        removed = RunError(
            f"The run's folder {folder} was removed; training stopped at iteration {iteration}.",
            "Train anew, and leave the folder where it is.",
        )
        try:
            if not (folder / "config.toml").exists():
                raise removed
            yield
        except OSError as error:
            if not (folder / "config.toml").exists():  # removed while it was being written
                raise removed from error
            raise RunError(
                f"Iteration {iteration} could not be saved in {folder}: "
                f"{error.strerror or error}. The checkpoint before it is whole.",
                f"Make room there, then go on: `{format_command('train', resume=self.run.name)}`.",
            ) from error


def train_run(
    run: Run,
    *,
    resume: bool = False,
    progress: Callable[[Step | Evaluation], object] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    world: ProcessGroup = SINGLE_PROCESS,
) -> bool:
    """Train a run, or with `resume` what is left of it; whether it came to its end.

    `progress` is called with each report of the trainer. As soon as `stop` says so
    the run is saved, to be resumed another time. Raises what `TrainingSession` raises.
    """
    world.tell(str(run.folder))
    with TrainingSession(run, resume=resume, world=world) as recorder:
        for report in recorder.reports():
            progress(report)
            if stop():
                recorder.save()
                return False
    return True


def is_training(run: Run) -> bool:
    """Whether some process trains the run at this moment."""
    try:
        with _lock(run):
            return False
    except Timeout:
        return True


def follow(folder: Path, world: ProcessGroup, *, resume: bool = False) -> None:
    """Take part in a run whose first process has a recorder; nothing is written here."""
    world.tell()  # waits until the run can be read
    run = open_run(folder)
    trainer = _trainer(run, world)
    if resume and run.checkpoints:
        _restore(run, trainer)
    for _ in trainer.reports():
        pass


@contextmanager
def _within_memory(run: Run) -> Iterator[None]:
    """Say what to make smaller where memory runs out; a run that never began is removed."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        _remove_unbegun(run)
        config = run.config
        smaller = f"--batch-size {max(1, config.batch_size // 2)}"
        raise NotEnoughMemoryError(
            f"There is not enough memory to train {config.model} with batches of "
            f"{pluralize(config.batch_size, 'window')} of "
            f"{pluralize(config.context_length, 'token')}.",
            f"Take {smaller} --grad-accumulation {2 * config.grad_accumulation}, which computes "
            "the same batch in parts, or a smaller model.",
        ) from error


def _remove_unbegun(run: Run) -> None:
    """Remove a run that has nothing to go on from."""
    if not run.checkpoints:
        with suppress(OSError):
            remove_folder(run.folder)


def _lock(run: Run) -> FileLock:
    """Who holds this trains the run; it is gone with its process."""
    return FileLock(run.folder / ".lock", timeout=0)


def _trainer(run: Run, world: ProcessGroup) -> Trainer:
    """The trainer of a run, before its first iteration."""
    data = run.dataset()
    check_memory(run.config, data)
    device = choose_device(run.config.device)
    choose_threads(run.model_config)
    torch.manual_seed(run.config.seed)
    model = build_model(run.model_config)
    if run.initial_weights.exists():
        weights, _ = load_weights(run.initial_weights)
        try:
            load_into_(model, weights)
        except ValueError as error:
            raise misfit(run, error) from error
    data.verify()
    parts = data.select_splits(tail=run.config.holds_out_tail)
    return Trainer(run.config, model.to(device), *parts, device, world)


def _restore(run: Run, trainer: Trainer) -> Checkpoint:
    """Bring a trainer to the last whole checkpoint of its run."""
    checkpoint = run.last_checkpoint()
    state = checkpoint.state()
    weights, _ = load_weights(checkpoint.weights)
    try:
        trainer.model.load_state_dict(weights)
    except RuntimeError as error:
        raise misfit(run, error) from error
    try:
        trainer.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"The training state of {run.name} cannot be taken up: {error}.",
            "It may be from another version of drakegpt; its weights can still be used. "
            "To train on, start a new run.",
        ) from error
    return checkpoint


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}
