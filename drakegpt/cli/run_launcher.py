"""Train several runs, with their progress on the screen."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import typer

from drakegpt.cli import console
from drakegpt.cli.interrupts import Interrupts
from drakegpt.cli.progress import parallel_progress, training_progress
from drakegpt.config.files import to_command
from drakegpt.experiments.launcher import Job, Observer, TrainingStoppedError, train_runs
from drakegpt.wording import format_command, format_option, join, pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.runs.run import Run
    from drakegpt.training.reports import Report


class RunLauncher:
    """Trains runs with their progress on the screen. Interrupted, it exits with 130."""

    def __init__(self, data: "Dataset", *, quiet: bool, resume: bool = True) -> None:
        """With `resume`, interrupted runs are resumed, by the same command as well."""
        self._data, self._quiet, self._resume = data, quiet, resume
        self.trained = 0

    def __call__(self, jobs: Sequence[Job]) -> "list[Run]":
        """Train a run for each job; on an interrupt, save those that are unfinished."""
        self.trained += len(jobs)
        try:
            with (
                Interrupts() as interrupts,
                _TrainingScreen(interrupts, quiet=self._quiet) as screen,
            ):
                return train_runs(jobs, self._data, resume=self._resume, observer=screen)
        except TrainingStoppedError as stopped:
            self._show_how_to_resume(stopped)
            raise typer.Exit(console.INTERRUPTED) from None

    def _show_how_to_resume(self, stopped: TrainingStoppedError) -> None:
        saved = pluralize(len(stopped.saved), "run")
        console.note(f"Stopped: {saved} saved, {len(stopped.rest)} not started.", style="")
        if self._resume:
            console.note("The same command resumes.", style="")
            return
        console.next_commands(format_command("train", resume=run.name) for run in stopped.saved)
        for job in stopped.rest:
            name = " " + join(format_option("--name", job.name)) if job.name else ""
            console.next_commands([to_command(job.config) + name])


class _TrainingScreen(Observer):
    """Shows the runs in training, and passes on interrupts."""

    def __init__(self, interrupts: Interrupts, *, quiet: bool) -> None:
        self._interrupts, self._quiet = interrupts, quiet
        self._bars = ExitStack()
        self._show: Callable[[Run, str, bool], None] = lambda *_: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.close()

    def begin(self, jobs: int, at_once: int) -> None:
        if at_once < 2:
            return
        if not self._quiet:
            console.note(f"{pluralize(jobs, 'run')}, {at_once} at a time, each on one thread")
        self._show = self._bars.enter_context(parallel_progress(jobs, quiet=self._quiet))

    def start(self, job: Job, number: int, jobs: int) -> None:
        if not self._quiet:
            console.note(f"{number} of {jobs}: {job.title}", style="bold")

    def resume(self, run: "Run") -> None:
        console.note(f"Resuming {run.name}")

    @contextmanager
    def train(self, run: "Run") -> "Iterator[Callable[[Report], Any]]":
        with training_progress(run, quiet=self._quiet) as progress:
            yield progress

    def poll(self, run: "Run", title: str, *, running: bool) -> None:
        self._show(run, title, running)

    def stop(self) -> bool:
        return self._interrupts.requested
