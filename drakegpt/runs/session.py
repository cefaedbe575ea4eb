"""A training session that writes metrics and checkpoints, so that a killed run can be resumed.

A `TrainingSession` builds the trainer of a run, or restores it, and writes what it
reports: a line of metrics per evaluation, some with a short text, checkpoints, the best
weights. A run that is killed at any point resumes from its last checkpoint and, on the same
CPU, ends with the same bytes.
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

from filelock import Timeout
from torch import Tensor

from drakegpt.errors import (
    DivergedError,
    NotEnoughMemoryError,
    RunError,
    UsageError,
    is_out_of_memory,
)
from drakegpt.files import remove_folder, remove_leftovers, write_text
from drakegpt.plotting import draw_losses
from drakegpt.runs.changes import record_changes
from drakegpt.runs.checkpoint import save_checkpoint, save_weights
from drakegpt.runs.lock import make_lock
from drakegpt.runs.run import Run, open_run
from drakegpt.runs.run_trainer import (
    LENGTHS,
    build_trainer,
    limit_time,
    read_lengths,
    restore_trainer,
)
from drakegpt.runs.wandb_mirror import WandbTracker
from drakegpt.training.distributed import SINGLE_PROCESS, ProcessGroup
from drakegpt.training.reports import Evaluation, Report, Step
from drakegpt.training.time_limit import Estimate
from drakegpt.training.trainer import suggest_lower_rates
from drakegpt.wording import format_command, pluralize

# Without a save interval, a checkpoint is due once training has taken this many times as long as
# the last one took to save: with the first and the last, which are always saved, that is under
# 2 % of the time of runs of more than a second or two.
TRAIN_TO_SAVE_RATIO = 100


class TrainingSession:
    """A run in training. In a `with` statement it holds the run's lock against other processes."""

    def __init__(
        self,
        run: Run,
        *,
        resume: bool = False,
        group: ProcessGroup = SINGLE_PROCESS,
        started: float | None = None,
        seconds_after: float = 0.0,
        tokens_after: int | None = None,
    ) -> None:
        """Build the run's trainer; with `resume`, restore it from the last intact checkpoint.

        A run with a time ends early enough for what comes after training: scoring `tokens_after`
        tokens, by default those of whole splits, and `seconds_after` of other work. Its time
        counts from `started`, in seconds of `time.monotonic`, by default from now.

        In a process group only the main process has a session; the others call `follow`.
        Raises `RunError` if no checkpoint is intact or the dataset is missing, `UsageError`
        if another process trains this run or its device is missing.
        """
        self.run = run
        self.group = group
        self._lock = make_lock(run)
        self._best: tuple[Evaluation, dict[str, Tensor]] | None = None
        self._started = time.monotonic() if started is None else started
        self._after = seconds_after, tokens_after
        self._saved_at, self._save_seconds = (-1, 0), 0.0
        self._saved_time = time.monotonic()
        with _explain_memory(run):
            self.trainer = build_trainer(run, group)
        self._resume = resume
        self._tracker: WandbTracker | None = None

    def __enter__(self) -> Self:
        try:
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"Another process is training the run {self.run.name}.",
                "Wait for it, or start another run.",
            ) from None
        try:
            if self._resume:
                self._restore()
            if self.run.config.minutes and (part := self._limit()):
                self._append_line(LENGTHS, asdict(part))
                self.trainer.take_estimate(part)
            if self._resume:
                record_changes(self.run, self.trainer.iteration)
            self._tracker = self._start_mirror()
            self.group.broadcast()  # the other processes may read the run now
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._tracker:
            self._tracker.finish(None if kind else self._draw(), exit_code=1 if kind else 0)
        self._lock.release()
        if kind and issubclass(kind, NotEnoughMemoryError):
            _remove_without_checkpoint(self.run)

    def reports(self) -> Iterator[Report]:
        """Train, and yield the trainer's reports, each after it was written.

        Raises `DivergedError` if the loss or the weights are no longer finite,
        `NotEnoughMemoryError`, and `RunError` if the folder cannot be written; the last
        checkpoint stays intact. A run that runs out of memory before its first is removed.
        """
        with _explain_memory(self.run):
            yield from self._write_reports()

    def _write_reports(self) -> Iterator[Report]:
        for report in self.trainer.reports():
            if isinstance(report, Evaluation):
                self._append(_describe_evaluation(report))
                if self._tracker:
                    self._tracker.log(report)
                if report is self.trainer.best:
                    self._best = report, _clone(self.trainer.weights())
            if isinstance(report, Estimate):
                self._append_line(LENGTHS, asdict(report))
            if self._is_save_due(report):
                self.save()
            yield report
        self.save()
        self._append({"event": "finished", **self._summarize_ending()})

    def save(self) -> None:
        """Write a checkpoint, and the best weights if they are new; nothing if just saved."""
        moment = (self.trainer.iteration, len(self.trainer.evaluations))
        if self._saved_at == moment:
            return
        started = time.monotonic()
        weights = self.trainer.weights()
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise DivergedError(
                f"The weights are no longer finite after iteration {self.trainer.iteration}.",
                suggest_lower_rates(self.run.config),
            )
        with self._explain_write_errors():
            if self._best:
                best, best_weights = self._best
                path = self.run.folder / "best.safetensors"
                save_weights(path, best_weights, self.run.describe_weights(best.iteration))
                self._best = None
            save_checkpoint(
                self.run.folder / "checkpoints",
                self.trainer.iteration,
                weights,
                self.trainer.state_dict(),
                self.run.describe_weights(self.trainer.iteration),
            )
        self._saved_at, self._saved_time = moment, time.monotonic()
        self._save_seconds = self._saved_time - started

    def stop(self, reason: str) -> None:
        """Record that training was stopped early, and why; by name the run can be resumed."""
        line = {"event": "stopped", "reason": reason, "iteration": self.trainer.iteration}
        self._append(line)

    def _start_mirror(self) -> WandbTracker | None:
        """Start the mirror in W&B, if asked for, with all evaluations so far."""
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
        """Draw the losses as a figure in the run's folder, for the mirror."""
        unit = self.run.tokenizer.unit
        path, select_on = self.run.folder / "curves.png", self.run.config.select_on
        return draw_losses(self.run.evaluations, self.run.name, unit, select_on, path)

    def _is_save_due(self, report: Report) -> bool:
        """Whether to save: at the save interval if one is set, else at evaluations while cheap."""
        if interval := self.run.config.save_interval:
            return isinstance(report, Step) and report.iteration % interval == 0
        elapsed = time.monotonic() - self._saved_time
        return (
            isinstance(report, Evaluation) and elapsed >= TRAIN_TO_SAVE_RATIO * self._save_seconds
        )

    def _restore(self) -> None:
        """Restore the trainer and the metrics from the last intact checkpoint."""
        folder = self.run.folder
        remove_leftovers(folder)
        remove_leftovers(folder / "checkpoints")
        if self.run.config.minutes:
            self.trainer.estimates = read_lengths(folder)
        if self.run.checkpoints:
            checkpoint = restore_trainer(self.run, self.trainer)
            self._saved_at = (self.trainer.iteration, len(self.trainer.evaluations))
            for later in self.run.checkpoints:
                if later.iteration > checkpoint.iteration:  # damaged, else it would be the last
                    remove_folder(later.folder)
        lines = [_format_line(_describe_evaluation(e)) for e in self.trainer.evaluations]
        write_text(folder / "metrics.jsonl", "".join(lines))

    def _limit(self) -> Estimate | None:
        """Have the trainer end in time; returns the first estimate of a new part, if it has one."""
        seconds, tokens = self._after
        return limit_time(self.run, self.trainer, self._started - seconds, tokens)

    def _summarize_ending(self) -> dict[str, Any]:
        best = self.trainer.best
        last = asdict(self.trainer.evaluations[-1])
        del last["sample"]  # it is in the evaluation's own line
        return last | {
            "reason": "patience" if self.trainer.out_of_patience else "iterations",
            "best_iteration": best.iteration if best else None,
        }

    def _append(self, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and flush it to the disk."""
        self._append_line("metrics.jsonl", values)

    def _append_line(self, name: str, values: dict[str, Any]) -> None:
        path = self.run.folder / name
        with self._explain_write_errors(), path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(_format_line(values))
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _explain_write_errors(self) -> Iterator[None]:
        """Turn an `OSError` into a `RunError` that says what is saved and how to resume."""
        folder, iteration = self.run.folder, self.trainer.iteration
        removed = RunError(
            f"The run's folder {folder} was removed; training stopped at iteration {iteration}.",
            "Train again, and leave the folder where it is.",
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
                f"{error.strerror or error}. The checkpoint before it is intact.",
                f"Make room there, then resume: `{format_command('train', resume=self.run.name)}`.",
            ) from error


def train_run(
    run: Run,
    *,
    resume: bool = False,
    progress: Callable[[Report], object] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    group: ProcessGroup = SINGLE_PROCESS,
    **timing: Any,
) -> bool:
    """Train a run, or with `resume` the rest of it, and return whether it is finished.

    `progress` is called with each report of the trainer. Once `stop` returns true the run
    is saved, to be resumed later. `timing`: when a run with a time should end, as in
    `TrainingSession`, which also says what is raised.
    """
    group.broadcast(str(run.folder))
    with TrainingSession(run, resume=resume, group=group, **timing) as session:
        for report in session.reports():
            progress(report)
            if stop():
                session.save()
                return False
    return True


def follow(folder: Path, group: ProcessGroup, *, resume: bool = False) -> None:
    """Train along with the main process, which has the session; nothing is written here."""
    group.broadcast()  # waits until the run can be read
    run = open_run(folder)
    trainer = build_trainer(run, group)
    if resume and run.checkpoints:
        restore_trainer(run, trainer)
    for _ in trainer.reports():
        pass


@contextmanager
def _explain_memory(run: Run) -> Iterator[None]:
    """Turn a lack of memory into an error that says what to make smaller.

    A run without a checkpoint is removed then.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        _remove_without_checkpoint(run)
        config = run.config
        smaller = f"--batch-size {max(1, config.batch_size // 2)}"
        raise NotEnoughMemoryError(
            f"There is not enough memory to train {config.model} with batches of "
            f"{pluralize(config.batch_size, 'window')} of "
            f"{pluralize(config.context_length, 'token')}.",
            f"Take {smaller} --grad-accumulation {2 * config.grad_accumulation}, which computes "
            "the same batch in parts, or a smaller model.",
        ) from error


def _remove_without_checkpoint(run: Run) -> None:
    """Remove a run if it has no checkpoint."""
    if not run.checkpoints:
        with suppress(OSError):
            remove_folder(run.folder)


def _describe_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    """Return the line of metrics of an evaluation; one without a sample does not name it."""
    values = {"event": "evaluation", **asdict(evaluation)}
    return values if evaluation.sample else {k: v for k, v in values.items() if k != "sample"}


def _format_line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


def _clone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}
