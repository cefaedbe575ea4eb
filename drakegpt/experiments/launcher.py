"""Train several runs: one after another, or in parallel processes where that is faster.

Small models are trained on one thread, so on several cores several of them can be
trained at a time, each in a `worker` process. The weights are the same as if each run
were trained alone. Larger models, and GPUs, are fully used by one run: there, one run
follows another. Nothing is printed: an `Observer` is called with what happens.

The processes are started by `subprocess`, not by `multiprocessing`, whose spawned
children import the main module of their parent (which fails in a script without
`if __name__ == "__main__"`), import modules from the current folder first (they have no
-P), and cannot have a session of their own (so that Ctrl-C in a terminal would reach
them while they start).
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Self

from drakegpt.compute.device import choose_device, choose_thread_count, default_thread_count
from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.errors import DrakeGPTError, RunError, is_out_of_memory
from drakegpt.files import remove_folder
from drakegpt.models.registry import is_built_in
from drakegpt.models.size import count_total_parameters
from drakegpt.runs.create import check_new_name
from drakegpt.runs.lookup import apply_incidental_settings, find_interrupted, list_runs_on
from drakegpt.runs.run import Run
from drakegpt.runs.scores import score_run
from drakegpt.runs.session import train_run
from drakegpt.runs.start import start_run
from drakegpt.training.memory import check_memory
from drakegpt.training.reports import Report
from drakegpt.wording import format_command, pluralize

# Floating-point operations of all runs from which starting processes pays: some seconds.
PARALLEL_FLOPS = 3 * 10**11
POLL_SECONDS = 0.2
SAVING_SECONDS = 30.0  # after which a process that was asked to save is killed


@dataclass(frozen=True)
class Job:
    """A run to train."""

    config: TrainConfig
    variant: str = ""  # the variant of the experiment, if that is not the model
    name: str | None = None

    @property
    def title(self) -> str:
        """The model, dataset, seed and variant, for people."""
        own = f", {self.variant}" if self.variant not in ("", self.config.model) else ""
        return f"{self.config.model} on '{self.config.data}', seed {self.config.seed}{own}"


class Observer:
    """Callbacks while runs are trained; this class ignores them and never stops training."""

    def begin(self, jobs: int, at_once: int) -> None:
        """Training of all jobs starts, `at_once` at a time."""

    def start(self, job: Job, number: int, jobs: int) -> None:
        """A job starts, number `number` of `jobs`, whose reports go to `train`."""

    def resume(self, run: Run) -> None:
        """An interrupted run is resumed for a job."""

    def train(
        self,
        run: Run,  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[Report], object]]:
        """Return a context whose value is called with the run's reports."""
        return nullcontext(lambda _: None)

    def poll(self, run: Run, title: str, *, running: bool) -> None:
        """Called repeatedly for each run that is trained in a process, and once it has ended."""

    def stop(self) -> bool:
        """Whether to save the runs in training and stop."""
        return False


class TrainingStoppedError(Exception):
    """Raised when an observer has stopped the training of several runs."""

    def __init__(self, saved: Sequence[Run], rest: Sequence[Job]) -> None:
        """`saved`: runs that can be resumed; `rest`: jobs that have no run yet."""
        super().__init__(f"{pluralize(len(saved), 'run')} saved, {len(rest)} not started")
        self.saved, self.rest = tuple(saved), tuple(rest)


def train_runs(
    jobs: Sequence[Job], data: Dataset, *, resume: bool = False, observer: Observer | None = None
) -> list[Run]:
    """Train and score a run for each job; returns them in the order of the jobs.

    With `resume`, an interrupted run with a job's settings is resumed. Raises
    `TrainingStoppedError` when the observer stops it, and before anything is trained
    `UsageError` for a name that exists and `NotEnoughMemoryError` for settings that do
    not fit into memory.
    """
    for job in jobs:
        if job.name is not None:
            check_new_name(job.name)
    for config in dict.fromkeys(replace(job.config, seed=0) for job in jobs):
        check_memory(config, data)
    observer = observer or Observer()
    at_once = min(len(jobs), _count_at_once([job.config for job in jobs], data))
    observer.begin(len(jobs), at_once)
    if at_once > 1:
        return _ParallelTraining(jobs, data, at_once, observer, resume=resume).train()
    return _train_sequentially(jobs, data, observer, resume=resume)


def _train_sequentially(
    jobs: Sequence[Job], data: Dataset, observer: Observer, *, resume: bool
) -> list[Run]:
    runs: list[Run] = []
    for number, job in enumerate(jobs, 1):
        if runs and observer.stop():
            raise TrainingStoppedError([], jobs[number - 1 :])
        observer.start(job, number, len(jobs))
        run = _start_or_resume(job, data, observer, resume=resume)
        with observer.train(run) as progress:
            finished = train_run(run, resume=True, progress=progress, stop=observer.stop)
        if not finished:
            raise TrainingStoppedError([run], jobs[number:])
        score_run(run, run.config.device)
        runs.append(run)
    return runs


def _start_or_resume(job: Job, data: Dataset, observer: Observer, *, resume: bool) -> Run:
    """Start a run, or resume an interrupted one with the device and saving settings given now."""
    if resume and (interrupted := find_interrupted(list_runs_on(data), job.config)):
        observer.resume(interrupted)
        return apply_incidental_settings(interrupted, job.config)
    return start_run(job.config, data, job.name)


def _count_at_once(configs: Sequence[TrainConfig], data: Dataset) -> int:
    """Count how many runs to train at a time: one on GPUs, and if they are large or short."""
    operations, threads = 0, 1
    for config in configs:
        if choose_device(config.device).type != "cpu" or not is_built_in(config.model):
            return 1
        model = config.model_settings(data.tokenizer.vocab_size)
        tokens = config.batch_size * config.grad_accumulation * config.context_length
        # For each weight and token: two operations forward, four backward.
        operations += 6 * count_total_parameters(model) * tokens * config.iters
        threads = max(threads, choose_thread_count(model))
    return default_thread_count() // threads if operations >= PARALLEL_FLOPS else 1


class _WorkerProcess:
    """A `worker` process that trains one run, and ends when this process ends."""

    def __init__(self, run: Run, title: str) -> None:
        self.run, self.title = run, title
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        changes = {name: new for name, (_, new) in run.changes.items()}
        module = "drakegpt.experiments.worker"
        self._process = subprocess.Popen(
            # -P: modules in the current folder must not shadow Python's.
            [sys.executable, "-P", "-m", module, str(run.folder), json.dumps(changes)],
            stdin=subprocess.PIPE,
            stdout=self._answer,
            stderr=self._messages,
            # So that Ctrl-C in the terminal reaches this process alone.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until it has saved and ended; kill it after `SAVING_SECONDS`."""
        self.stop()
        try:
            self._process.wait(SAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answer.close()
        self._messages.close()

    def stop(self) -> None:
        """Ask it to save and end, by closing its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise the error that ended it, if any; else `RunError` with its last message."""
        if self._process.returncode == 0:
            return
        error = self._read_error()
        if isinstance(error, DrakeGPTError):
            raise type(error)(f"Training {self.run.name} failed: {error.problem}", error.fix)
        if isinstance(error, OSError) or (error and is_out_of_memory(error)):
            raise error
        self._messages.seek(0)
        messages = self._messages.read().decode("utf-8", "replace").strip()
        raise RunError(
            f"Training {self.run.name} failed: its process ended with code "
            f"{self._process.returncode}: {messages.rpartition(chr(10))[2] or 'no message.'}",
            f"Resume it: `{format_command('train', resume=self.run.name)}`.",
        )

    def _read_error(self) -> BaseException | None:
        """Return the error that the process has pickled to its stdout, if any."""
        self._answer.seek(0)
        with suppress(Exception):  # a damaged answer counts as none
            answer = pickle.load(self._answer)
            return answer if isinstance(answer, BaseException) else None
        return None


class _ParallelTraining:
    """Trains runs in parallel processes, a few at a time."""

    def __init__(
        self, jobs: Sequence[Job], data: Dataset, at_once: int, observer: Observer, *, resume: bool
    ) -> None:
        self._jobs, self._data, self._at_once = jobs, data, at_once
        self._observer, self._resume = observer, resume
        self._processes: list[_WorkerProcess] = []
        self._running: list[_WorkerProcess] = []

    def train(self) -> list[Run]:
        """Train all jobs; returns their runs in order."""
        with ExitStack() as processes:
            try:
                while self._running or self._next_job:
                    if self._next_job and len(self._running) < self._at_once:
                        self._start(self._next_job, processes)
                    time.sleep(POLL_SECONDS)
                    if self._observer.stop():
                        self._stop()
                    self._poll()
            except BaseException:
                for process in self._processes:  # ask all before waiting for one
                    process.stop()
                raise
        return [process.run for process in self._processes]

    @property
    def _next_job(self) -> Job | None:
        """The first job that has no process yet."""
        started = len(self._processes)
        return self._jobs[started] if started < len(self._jobs) else None

    def _start(self, job: Job, processes: ExitStack) -> None:
        run = _start_or_resume(job, self._data, self._observer, resume=self._resume)
        process = processes.enter_context(_WorkerProcess(run, job.title))
        self._processes.append(process)
        self._running.append(process)

    def _poll(self) -> None:
        """Report the state of each process, and raise the error that has ended one."""
        for process in tuple(self._running):
            running = process.running  # read once: it may end at any moment
            self._observer.poll(process.run, process.title, running=running)
            if not running:
                self._running.remove(process)
                process.check()

    def _stop(self) -> None:
        """Let all processes save and end, and raise `TrainingStoppedError`."""
        for process in self._processes:
            process.stop()
        while any(process.running for process in self._processes):
            time.sleep(POLL_SECONDS)
        saved: list[Run] = []
        rest: list[Job] = []
        for process, job in zip(self._processes, self._jobs, strict=False):
            if process.run.finished:
                continue
            if process.run.checkpoints:
                saved.append(process.run)
            else:  # stopped before its first checkpoint: the run holds nothing
                with suppress(OSError):
                    remove_folder(process.run.folder)
                rest.append(job)
        raise TrainingStoppedError(saved, [*rest, *self._jobs[len(self._processes) :]])
