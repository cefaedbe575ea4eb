"""Progress of long work, on stderr.

On a terminal a few lines are redrawn in place; elsewhere lines are added.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Timer
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table

from drakegpt.cli import console
from drakegpt.cli.console import styled
from drakegpt.cli.short_forms import format_duration, sparkline
from drakegpt.wording import SHORT_SPLITS

if TYPE_CHECKING:
    from rich.text import Text

    from drakegpt.config import TrainConfig
    from drakegpt.data.dataset import Dataset
    from drakegpt.runs.run import Run
    from drakegpt.runs.stored_scores import Scores
    from drakegpt.training.reports import Evaluation, Report, Step

REDRAW_SECONDS = 0.2
DELAY_SECONDS = 2.0  # before a bar is drawn
LINE_SECONDS = 60  # between two lines, off a terminal
STEP_SECONDS = 10
WIDE_BAR = 56  # columns of a bar with its numbers


class _TextColumn(ProgressColumn):
    """A task's description or one of its fields as text; rich's column would read markup."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, task: Task) -> "Text":
        """Return the field as text."""
        shown = task.description if self._name == "description" else task.fields[self._name]
        return styled(shown, screen=console.messages())


@contextmanager
def fetch_progress(
    name: str, title: str = "Fetching"
) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a bar for a download and the stages after it, once they take a while.

    Yields a callback for the stage, the bytes done, and all bytes if known.
    """
    screen, stage = console.messages(), ""
    columns = (_TextColumn("description"), BarColumn(), DownloadColumn())
    progress = Progress(*columns, TransferSpeedColumn(), console=screen, transient=True)
    task = progress.add_task(f"{title} {name}", total=None)

    def report(new_stage: str, done: int, total: int | None) -> None:
        nonlocal stage
        if new_stage != stage:
            stage = new_stage
            progress.reset(task, total=total, description=f"{name}: {stage}")
        progress.update(task, completed=done, total=total)

    with _drawn_later(progress):
        yield report


@contextmanager
def counting(title: str, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for work of known length, or off a terminal lines, once it takes a while."""
    screen, shown = console.messages(), time.monotonic() + DELAY_SECONDS - STEP_SECONDS

    def line(what: str, done: int, total: int) -> None:
        nonlocal shown
        if not quiet and time.monotonic() - shown > STEP_SECONDS:
            console.note(f"{title}: {what} ({done / total:.0%})")
            shown = time.monotonic()

    if quiet or not screen.is_terminal:
        yield line
        return
    bar = BarColumn(20 if screen.width >= WIDE_BAR + len(title) else 8)
    columns = (bar, TimeRemainingColumn(), _TextColumn("description"))
    progress = Progress(*columns, console=screen, transient=True)
    task, last = progress.add_task(title, total=None), 0

    def bars(what: str, done: int, total: int) -> None:
        nonlocal last
        if done < last:  # other work, with a pace of its own
            progress.reset(task)
        last = done
        progress.update(task, description=f"{title}, {what}", completed=done, total=total)

    with _drawn_later(progress):
        yield bars


@contextmanager
def _drawn_later(progress: Progress) -> Iterator[None]:
    """Draw bars on a terminal if the work takes a while.

    A timer begins: training a BPE vocabulary reports nothing for a long time.
    """
    start = Timer(DELAY_SECONDS, progress.start)
    start.daemon = True
    if progress.console.is_terminal:
        start.start()
    try:
        yield
    finally:
        start.cancel()
        if start.ident is not None:
            start.join()
        if progress.live.is_started:
            progress.stop()


def score_with_progress(run: "Run", device: str, *, quiet: bool = False) -> "Scores":
    """Score a run on whole splits, or read its stored scores."""
    from drakegpt.runs.scores import score_run

    with counting("Evaluation", quiet=quiet) as progress:
        return score_run(run, device, progress)


@contextmanager
def parallel_progress(runs: int, *, quiet: bool) -> "Iterator[Callable[[Run, str, bool], None]]":
    """Show a bar for each of several runs in training, and a line for each that ends.

    Yields a callback for a run, its title, and whether it is still in training.
    """
    screen, ended = console.messages(), set[str]()

    def line(run: "Run", title: str, running: bool) -> None:
        if quiet or running or run.name in ended:
            return
        ended.add(run.name)
        last = run.last_evaluation
        result = f": {_loss(last)} in {format_duration(last['seconds'])}" if last else ""
        console.note(f"{len(ended)} of {runs}: {title}{result}", style="")

    if quiet or not screen.is_terminal:
        yield line
        return
    columns = (_TextColumn("description"), BarColumn(20), TimeRemainingColumn())
    with Progress(*columns, _TextColumn("loss"), console=screen, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def bars(run: "Run", title: str, running: bool) -> None:
            if run.name in ended:
                return
            if run.name not in tasks:
                tasks[run.name] = progress.add_task(title, total=run.config.iters, loss="")
            last = run.last_evaluation
            done = last.get("iteration", 0)
            progress.update(tasks[run.name], completed=done, loss=_loss(last), visible=running)
            line(run, title, running)

        yield bars


def _loss(evaluation: "Mapping[str, Any]") -> str:
    if not evaluation:
        return ""
    part = SHORT_SPLITS[evaluation.get("scored_on", "validation")]
    return f"{part} {evaluation['val_loss']:.4f}"


@contextmanager
def training_progress(
    run: "Run", processes: int = 1, *, quiet: bool
) -> "Iterator[Callable[[Report], None]]":
    """Show the progress of one run; yields a callback for its reports."""
    from drakegpt.compute.device import choose_device
    from drakegpt.training.step_runner import plan_execution

    if not quiet:
        console.note(
            plan_execution(run.config, choose_device(run.config.device), processes).description
        )
    work = ScoringWork.of(run.config, run.load_dataset())
    with TrainingProgress(run.config, work, quiet=quiet) as progress:
        yield progress.report


class TrainingProgress:
    """Shows the reports of a run; nothing if `quiet`."""

    def __init__(self, config: "TrainConfig", work: "ScoringWork", *, quiet: bool) -> None:
        """`work` is what is scored while training and after it."""
        self._config = config
        self._quiet = quiet
        self._step: Step | None = None
        self._evaluations: list[Evaluation] = []
        self._drawn = time.monotonic()
        self._pace = _Pace(config, work)
        terminal = console.messages().is_terminal
        self._live = (
            Live(console=console.messages(), auto_refresh=False, transient=True)
            if terminal and not quiet
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def report(self, report: "Report") -> None:
        """Record a report, and redraw if it is time."""
        from drakegpt.training.reports import Evaluation
        from drakegpt.training.time_limit import Estimate

        if isinstance(report, Estimate):
            self._config = replace(self._config, iters=report.iters)
            self._pace.config = self._config
            return
        if not isinstance(report, Evaluation):
            self._step = report
        else:
            self._evaluations.append(report)
            if not self._live and not self._quiet:
                console.note(self._line(report), style="")
                self._drawn = time.monotonic()
        now = time.monotonic()
        self._pace.record(report, now)
        if not self._live and not self._quiet and now - self._drawn > LINE_SECONDS:
            console.note(self._line_between_evaluations(report.iteration), style="")
            self._drawn = now
        # Not at each evaluation: there may be one after each step.
        if self._live and now - self._drawn > REDRAW_SECONDS:
            self._drawn = now
            self._live.update(self._draw(), refresh=True)

    def _line(self, evaluation: "Evaluation") -> str:
        return (
            f"iteration {evaluation.iteration:>6,}/{self._config.iters:,}  "
            f"train {evaluation.train_loss:.4f}  "
            f"{SHORT_SPLITS[evaluation.scored_on]} {evaluation.val_loss:.4f}  "
            f"lr {evaluation.learning_rate:.2e}  {evaluation.tokens_per_second:,.0f} tokens/s  "
            f"{self._eta(evaluation.iteration)}"
        ).rstrip()

    def _line_between_evaluations(self, iteration: int) -> str:
        done = f"iteration {iteration:>6,}/{self._config.iters:,}"
        return f"{done}  {self._eta(iteration)}".rstrip()

    def _eta(self, iteration: int) -> str:
        """Say the time left, by the pace so far; nothing before it is known."""
        left = self._pace.seconds_left(iteration)
        return "" if left is None else f"{format_duration(left)} left"

    def _draw(self) -> Group:
        config, step, screen = self._config, self._step, console.messages()
        if step is None:
            return Group()
        title = styled(f"{config.model} on {config.data}", "bold", screen)
        fits = screen.width >= WIDE_BAR + len(title)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            *([title] if fits else []),
            ProgressBar(total=config.iters, completed=step.iteration, width=24 if fits else 12),
            f"{step.iteration:,}/{config.iters:,}",
            self._eta(step.iteration),
        )
        lines = [
            styled(f"batch loss {step.loss.item():.3f}   learning rate {step.learning_rate:.2e}")
        ]
        if self._evaluations:
            last = self._evaluations[-1]
            lines[0].append(f"   {last.tokens_per_second:,.0f} tokens/s")
            for name, key in (("train", "train_loss"), (SHORT_SPLITS[last.scored_on], "val_loss")):
                losses = [getattr(evaluation, key) for evaluation in self._evaluations]
                lines.append(styled(f"{name:5} {losses[-1]:.4f}  "))
                lines[-1].append(sparkline(losses), "green")
        return Group(*([] if fits else [title]), bar, *lines)


@dataclass(frozen=True)
class ScoringWork:
    """The tokens scored in each evaluation, and those scored when training is over."""

    in_evaluation: int
    at_end: int

    @classmethod
    def of(cls, config: "TrainConfig", data: "Dataset", *, whole: bool = True) -> Self:
        """Return the work of a run on `data`.

        With `whole`, all splits are scored at the end, as `train` does; else only the
        validation split and the one that ranks trials, as `sweep` does.
        """
        from drakegpt.training.loss_estimates import count_evaluated_tokens

        train, evaluated = (len(part) for part in data.select_splits(tail=config.holds_out_tail))
        validation, tail = data.metadata.val_tokens, evaluated * config.holds_out_tail
        # The best weights are scored on validation too.
        at_end = train + 2 * validation + tail if whole else validation + tail
        return cls(count_evaluated_tokens(config, evaluated), at_end)


class _Pace:
    """Times of steps, evaluations and scoring, from which the time left is estimated."""

    WARM_UP = 5  # the first steps are slower

    def __init__(self, config: "TrainConfig", work: ScoringWork) -> None:
        self.config, self._work = config, work
        self._last: float | None = None
        self._seen = 0
        self._step_seconds, self._steps = 0.0, 0
        self._evaluation_seconds, self._evaluations = 0.0, 0

    def record(self, report: "Report", now: float) -> None:
        """Record the time since the last report."""
        from drakegpt.training.reports import Evaluation

        elapsed = now - self._last if self._last is not None else 0.0
        self._last, self._seen = now, self._seen + 1
        if isinstance(report, Evaluation):
            self._evaluation_seconds += elapsed
            self._evaluations += 1
        elif self._seen > self.WARM_UP:
            self._step_seconds += elapsed
            self._steps += 1

    def seconds_left(self, iteration: int) -> float | None:
        """Return the seconds for the remaining steps, evaluations and the scoring at the end.

        `None` before the first measurement.
        """
        if not self._steps:
            return None
        config = self.config
        step = self._step_seconds / self._steps
        # Until an evaluation is measured: a forward pass is a third of a step.
        batch = config.batch_size * config.grad_accumulation * config.context_length
        evaluation = step / 3 * self._work.in_evaluation / batch
        if self._evaluations:
            evaluation = self._evaluation_seconds / self._evaluations
        left = config.iters - iteration
        scoring = evaluation * self._work.at_end / self._work.in_evaluation
        return left * step + math.ceil(left / config.eval_interval) * evaluation + scoring
