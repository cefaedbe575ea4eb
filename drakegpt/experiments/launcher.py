"""Trains several runs: one after another, or side by side where that is quicker.

Small models are trained on one thread, so on several cores several of them can
learn at a time. Each has a process, is a run like any other, and gives the very
weights it would give alone. Larger models, and GPUs, are busy with one: there,
one run follows another. Nothing is printed: an `Observer` hears what happens.

To train all seeds as one batched computation gains nothing: once steps are played
from a tape, TransformerLM is as fast alone (0.97 to 0.99 times as fast batched, for
two to eight seeds, on one thread).

The processes are started by `subprocess`, not by `multiprocessing`. Its spawned
children import the main module of their parent, which fails in a script without
`if __name__ == "__main__"`, and modules from the current folder before their own
(there is no -P for them); and no session or process group of their own can be
asked for, so that Ctrl-C in a terminal would reach them while they start.
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

from drakegpt.config import TrainConfig
from drakegpt.data.dataset import Dataset
from drakegpt.errors import DrakeGPTError, RunError, is_out_of_memory
from drakegpt.files import remove_folder
from drakegpt.models.registry import choose_device, processors, threads_for
from drakegpt.models.size import total_parameters
from drakegpt.runs.lookup import find_interrupted, find_origin, list_runs_on, with_current_storage
from drakegpt.runs.run import Run, check_new
from drakegpt.runs.scores import score
from drakegpt.runs.session import train_run
from drakegpt.runs.start import start_run
from drakegpt.training.memory import check_memory
from drakegpt.training.trainer import Evaluation, Step
from drakegpt.wording import format_command

# Floating-point operations of all runs together, from which starting processes pays: some seconds.
WORTH_PROCESSES = 3 * 10**11
POLL_SECONDS = 0.2
SAVING_SECONDS = 30.0


@dataclass(frozen=True)
class Job:
    """A run to train."""

    config: TrainConfig
    variant: str = ""  # what sets it apart from the others, if its model does not
    name: str | None = None

    @property
    def title(self) -> str:
        """What the run is, for a screen."""
        own = f", {self.variant}" if self.variant not in ("", self.config.model) else ""
        return f"{self.config.model} on '{self.config.data}', seed {self.config.seed}{own}"


class Observer:
    """Hears what happens while runs are trained, and can stop it; this one does neither."""

    def begin(self, jobs: int, at_once: int) -> None:
        """So many jobs are going to be trained, `at_once` at a time."""

    def start(self, job: Job, number: int, jobs: int) -> None:
        """A job begins whose reports are going to be passed on: the one of that number."""

    def resume(self, run: Run) -> None:
        """A run that was interrupted is taken up for a job."""

    def train(
        self,
        run: Run,  # noqa: ARG002
    ) -> AbstractContextManager[Callable[[Step | Evaluation], object]]:
        """What takes the reports of a run while it is trained."""
        return nullcontext(lambda _: None)

    def poll(self, run: Run, title: str, *, running: bool) -> None:
        """A run that is trained beside others is still running, or is not any more."""

    def stop(self) -> bool:
        """Whether to save what is in training, and train no more."""
        return False


class TrainingStoppedError(Exception):
    """Raised when an observer has stopped the training of several runs."""

    def __init__(self, saved: Sequence[Run], rest: Sequence[Job]) -> None:
        """`saved`: runs that can be resumed; `rest`: jobs that have no run yet."""
        super().__init__(f"{len(saved)} runs saved, {len(rest)} not begun")
        self.saved, self.rest = tuple(saved), tuple(rest)


def train_runs(
    jobs: Sequence[Job], data: Dataset, *, resume: bool = False, observer: Observer | None = None
) -> list[Run]:
    """Train and score a run for each job, and return them in that order.

    With `resume`, a run with these settings that was interrupted is taken up.
    Raises `TrainingStoppedError` when stopped; before anything is trained,
    `UsageError` for a name that is taken, and `NotEnoughMemoryError` for settings
    that do not fit.
    """
    for job in jobs:
        if job.name is not None:
            check_new(job.name)
    for config in dict.fromkeys(replace(job.config, seed=0) for job in jobs):
        check_memory(config, data)
    observer = observer or Observer()
    at_once = min(len(jobs), _count_at_once([job.config for job in jobs], data))
    observer.begin(len(jobs), at_once)
    if at_once > 1:
        return _SideBySide(jobs, data, at_once, observer, resume=resume).train()
    return _train_in_turn(jobs, data, observer, resume=resume)


def _train_in_turn(
    jobs: Sequence[Job], data: Dataset, observer: Observer, *, resume: bool
) -> list[Run]:
    runs: list[Run] = []
    for number, job in enumerate(jobs, 1):
        if runs and observer.stop():
            raise TrainingStoppedError([], jobs[number - 1 :])
        observer.start(job, number, len(jobs))
        run = _begin(job, data, observer, resume=resume)
        with observer.train(run) as progress:
            finished = train_run(run, resume=True, progress=progress, stop=observer.stop)
        if not finished:
            raise TrainingStoppedError([run], jobs[number:])
        score(run, run.config.device)
        runs.append(run)
    return runs


def _begin(job: Job, data: Dataset, observer: Observer, *, resume: bool) -> Run:
    """A new run, or the one that was interrupted, kept and computed as is asked for now."""
    if resume and (begun := find_interrupted(list_runs_on(data), job.config)):
        observer.resume(begun)
        return with_current_storage(begun, job.config)
    return start_run(job.config, data, job.name, origin=find_origin(job.config))


def _count_at_once(configs: Sequence[TrainConfig], data: Dataset) -> int:
    """How many of these runs to train at a time: one, where they fill the machine or are short."""
    operations, threads = 0, 1
    for config in configs:
        if choose_device(config.device).type != "cpu":
            return 1
        model = config.model_settings(data.tokenizer.vocab_size)
        tokens = config.batch_size * config.grad_accumulation * config.context_length
        # Two for each weight and token forward, four backward.
        operations += 6 * total_parameters(model) * tokens * config.iters
        threads = max(threads, threads_for(model))
    return processors() // threads if operations >= WORTH_PROCESSES else 1


class _Process:
    """A `worker` with one run in training, which ends when this process does."""

    def __init__(self, run: Run, title: str) -> None:
        self.run, self.title = run, title
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115
        changes = {name: new for name, (_, new) in run.changes.items()}
        module = "drakegpt.experiments.worker"
        self._process = subprocess.Popen(
            # -P: no module of the folder we are in is to be taken for one of Python's.
            [sys.executable, "-P", "-m", module, str(run.folder), json.dumps(changes)],
            stdin=subprocess.PIPE,
            stdout=self._answer,
            stderr=self._messages,
            # Not to be reached by Ctrl-C from the terminal too.
            start_new_session=os.name == "posix",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until it has saved and ended, but not for ever."""
        self.stop()
        try:
            self._process.wait(SAVING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answer.close()
        self._messages.close()

    def stop(self) -> None:
        """Ask it to save and end, which the end of its stdin does."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def check(self) -> None:
        """Raise the error that ended it, if one did, or `RunError` with what it said last."""
        if self._process.returncode == 0:
            return
        error = self._error()
        if isinstance(error, DrakeGPTError):
            raise type(error)(f"Training {self.run.name} failed: {error.problem}", error.fix)
        if isinstance(error, OSError) or (error and is_out_of_memory(error)):
            raise error
        self._messages.seek(0)
        said = self._messages.read().decode("utf-8", "replace").strip()
        raise RunError(
            f"Training {self.run.name} failed: its process ended with code "
            f"{self._process.returncode}: {said.rpartition(chr(10))[2] or 'it said nothing.'}",
            f"Go on with it: `{format_command('train', resume=self.run.name)}`.",
        )

    def _error(self) -> BaseException | None:
        """The error that the process has answered with, unless it ended without a word."""
        self._answer.seek(0)
        with suppress(Exception):  # whatever is wrong with an answer, there is none
            answer = pickle.load(self._answer)
            return answer if isinstance(answer, BaseException) else None
        return None


class _SideBySide:
    """Trains runs side by side, a few at a time."""

    def __init__(
        self, jobs: Sequence[Job], data: Dataset, at_once: int, observer: Observer, *, resume: bool
    ) -> None:
        self._jobs, self._data, self._at_once = jobs, data, at_once
        self._observer, self._resume = observer, resume
        self._processes: list[_Process] = []
        self._under_way: list[_Process] = []

    def train(self) -> list[Run]:
        """Train all jobs; the runs, in order."""
        with ExitStack() as ending:
            try:
                while self._under_way or self._next:
                    if self._next and len(self._under_way) < self._at_once:
                        self._start(self._next, ending)
                    time.sleep(POLL_SECONDS)
                    if self._observer.stop():
                        self._stop()
                    self._poll()
            except BaseException:
                for process in self._processes:  # all at once, before one is waited for
                    process.stop()
                raise
        return [process.run for process in self._processes]

    @property
    def _next(self) -> Job | None:
        """The first job that has no process yet."""
        begun = len(self._processes)
        return self._jobs[begun] if begun < len(self._jobs) else None

    def _start(self, job: Job, ending: ExitStack) -> None:
        run = _begin(job, self._data, self._observer, resume=self._resume)
        process = ending.enter_context(_Process(run, job.title))
        self._processes.append(process)
        self._under_way.append(process)

    def _poll(self) -> None:
        """Tell how far each is, and raise what has ended one."""
        for process in tuple(self._under_way):
            running = process.running  # asked once: it may end at any moment
            self._observer.poll(process.run, process.title, running=running)
            if not running:
                self._under_way.remove(process)
                process.check()

    def _stop(self) -> None:
        """Have all save what they are at, and raise `TrainingStoppedError`."""
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
            else:  # stopped before its first iteration, so there is nothing in it
                with suppress(OSError):
                    remove_folder(process.run.folder)
                rest.append(job)
        raise TrainingStoppedError(saved, [*rest, *self._jobs[len(self._processes) :]])
