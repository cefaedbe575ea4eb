"""Several runs in training: how far they are, how to go on with them, what they came to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import typer

from drakegpt.cli import console
from drakegpt.cli.interrupts import Interrupts
from drakegpt.cli.progress import side_by_side, training_progress
from drakegpt.config.files import to_command
from drakegpt.experiments.launcher import Job, Observer, TrainingStoppedError, train_runs
from drakegpt.wording import format_command, format_option, join, pluralize

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.results import ResultRow, RunResult
    from drakegpt.runs.run import Run
    from drakegpt.training.trainer import Evaluation, Step


class Training:
    """Trains runs with their progress on the screen. When asked to stop, exits with 130."""

    def __init__(self, data: "Dataset", *, quiet: bool, resume: bool = True) -> None:
        """With `resume`, runs that were interrupted are taken up, and the same command goes on."""
        self._data, self._quiet, self._resume = data, quiet, resume
        self.trained = 0

    def __call__(self, jobs: Sequence[Job]) -> "list[Run]":
        """Train a run for each job; all that are under way are saved when asked to stop."""
        self.trained += len(jobs)
        try:
            with Interrupts() as interrupts, _Screen(interrupts, quiet=self._quiet) as screen:
                return train_runs(jobs, self._data, resume=self._resume, observer=screen)
        except TrainingStoppedError as stopped:
            self._say_how_to_go_on(stopped)
            raise typer.Exit(console.INTERRUPTED) from None

    def _say_how_to_go_on(self, stopped: TrainingStoppedError) -> None:
        saved = pluralize(len(stopped.saved), "unfinished run")
        console.note(f"Stopped: {saved} saved, {len(stopped.rest)} not begun.", style="")
        if self._resume:
            console.note("The same command goes on.", style="")
            return
        console.next_commands(format_command("train", resume=run.name) for run in stopped.saved)
        for job in stopped.rest:
            as_named = " " + join(format_option("--name", job.name)) if job.name else ""
            console.next_commands([to_command(job.config) + as_named])


class _Screen(Observer):
    """Shows what is trained, and passes on that the user asks to stop."""

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
        self._show = self._bars.enter_context(side_by_side(jobs, quiet=self._quiet))

    def start(self, job: Job, number: int, jobs: int) -> None:
        if not self._quiet:
            console.note(f"{number} of {jobs}: {job.title}", style="bold")

    def resume(self, run: "Run") -> None:
        console.note(f"Going on with {run.name}")

    @contextmanager
    def train(self, run: "Run") -> "Iterator[Callable[[Step | Evaluation], Any]]":
        with training_progress(run, quiet=self._quiet) as progress:
            yield progress

    def poll(self, run: "Run", title: str, *, running: bool) -> None:
        self._show(run, title, running)

    def stop(self) -> bool:
        return self._interrupts.requested


def say_damaged(damaged: "Mapping[str, str]") -> None:
    """Name the runs that are left out, and say what is wrong with each."""
    for run, problem in damaged.items():
        console.warn(f"{run} is damaged and left out. {problem}")


def damaged_as_json(damaged: "Mapping[str, str]") -> list[dict[str, str]]:
    """The same as plain values."""
    return [{"run": run, "problem": problem} for run, problem in damaged.items()]


def show_seeds(runs: "Sequence[Run]", *, json: bool) -> None:
    """What runs that differ in their seed came to: each, their mean and its spread."""
    from drakegpt.experiments.results import row_of

    row = row_of(runs)
    if json:
        console.show_json(row.to_json())
        return
    _render(row)
    console.next_commands([format_command("compare", data=runs[0].config.data)])


def _render(row: "ResultRow") -> None:
    from drakegpt.cli.tables import Column, show_table

    columns: tuple[Column[RunResult], ...] = (
        Column("seed", lambda result: str(result.seed)),
        Column("train", lambda result: f"{result.train_loss:.4f}", 1),
        Column("validation", lambda result: f"{result.val_loss:.4f}"),
        Column("bits/char", lambda result: f"{result.bits_per_character:.3f}", 2),
        Column("seconds", lambda result: f"{result.seconds:.1f}", 3),
        Column("run", lambda result: result.run, 4),
    )
    best = min(result.val_loss for result in row.results)
    title = f"{row.label}, {pluralize(len(row.results), 'seed')}"
    show_table(title, columns, row.results, lambda result: result.val_loss == best)
    spread = "" if row.val_spread is None else f" ± {row.val_spread:.4f}"
    seeds = f"mean of {len(row.seeds)} seeds, ±: their sample standard deviation"
    console.show(
        f"Validation loss {row.val_loss:.4f}{spread} nats per {row.unit}, over the whole split"
        + (f"; {seeds}" if spread else "")
    )
