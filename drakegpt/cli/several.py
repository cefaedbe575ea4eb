"""Several runs at once: each a `drakegpt train` of its own, side by side where that is quicker.

Small models are trained on one thread, so on several cores several of them can
learn at a time. Each has a process, is a run like any other, and gives the very
weights it would give alone; all that the processes share is the screen. Larger
models, and GPUs, are busy with one: there, one run follows another.

To train all seeds as one batched computation gains nothing: once steps are played
from a tape, TransformerLM is as fast alone (0.97 to 0.99 times as fast batched, for
two to eight seeds, on one thread).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

import typer

from drakegpt import paths
from drakegpt.cli import console
from drakegpt.cli.train import train_and_score
from drakegpt.config_files import to_command, to_flag
from drakegpt.errors import RunError
from drakegpt.presets import PRESETS
from drakegpt.wording import command, counted, join, option

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.results import Result, Row
    from drakegpt.training.run import Run

    # Settings of a run to train, its name if it has one, its title on the screen.
    _Plan = tuple[TrainConfig, str | None, str]

# Floating-point operations of all runs together, from which starting processes pays: some seconds.
WORTH_PROCESSES = 3 * 10**11
POLL_SECONDS = 0.2
SAVING_SECONDS = 30.0


def train_runs(
    configs: "Sequence[TrainConfig]",
    data: "Dataset",
    *,
    quiet: bool,
    names: Sequence[str] = (),
    go_on: bool = False,
) -> "list[Run]":
    """Train and score a run of each of `configs`, and return them in that order.

    With `go_on`, a run with these settings that was interrupted is taken up. When
    asked to stop, all that are under way are saved; exits with 130. Raises
    `UsageError` for a name that is taken, and `NotEnoughMemoryError` for settings
    that do not fit, before anything is trained.
    """
    if not configs:
        return []
    from drakegpt.training.memory import check_memory
    from drakegpt.training.run import check_new

    for new in names:
        check_new(new)
    for config in dict.fromkeys(replace(config, seed=0) for config in configs):
        check_memory(config, data)
    named: list[str | None] = [*names] if names else [None] * len(configs)
    plan = list(zip(configs, named, _titles(configs), strict=True))
    at_once = min(len(configs), _at_once(configs, data))
    if at_once > 1:
        return _Together(data, at_once, quiet=quiet, go_on=go_on).train(plan)
    runs = []
    for number, (config, name, title) in enumerate(plan, 1):
        if not quiet:
            console.note(f"{number} of {len(plan)}: {title}", style="bold")
        runs.append(_run_of(config, data, name, go_on=go_on))
        try:
            train_and_score(runs[-1], resume=True, quiet=quiet)
        except typer.Exit:  # asked to stop; how to go on with this one has been said
            _say_how_to_go_on([], plan[number:], go_on=go_on)
            raise
    return runs


def _run_of(config: "TrainConfig", data: "Dataset", name: str | None, *, go_on: bool) -> "Run":
    """A new run, or the one that was interrupted, kept and computed as is asked for now."""
    from drakegpt.evaluation.selection import find_begun, find_origin, kept_as, runs_on
    from drakegpt.training.start import start_run

    if go_on and (begun := find_begun(runs_on(data), config)):
        console.note(f"Going on with {begun.name}")
        return kept_as(begun, config)
    return start_run(config, data, name, origin=find_origin(config))


def _say_how_to_go_on(unfinished: "Sequence[Run]", rest: "Sequence[_Plan]", *, go_on: bool) -> None:
    """Show what goes on with runs that were stopped, and with those that were not begun."""
    if go_on:
        console.note("The same command goes on.", style="")
        return
    console.next_commands(command("train", resume=run.name) for run in unfinished)
    for config, name, _ in rest:
        as_named = " " + join(option("--name", name)) if name else ""
        console.next_commands([to_command(config) + as_named])


def _at_once(configs: "Sequence[TrainConfig]", data: "Dataset") -> int:
    """How many of these runs to train at a time: one, where they fill the machine or are short."""
    from drakegpt.models.build import choose_device, processors, threads_for
    from drakegpt.models.size import total_parameters

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


def _titles(configs: "Sequence[TrainConfig]") -> list[str]:
    """What each run is: its model, its text, its seed, and whatever else sets it apart."""
    every = [asdict(config) for config in configs]
    apart = [name for name in every[0] if len({values[name] for values in every}) > 1]
    named = [name for name in apart if name not in ("model", "data", "seed")]
    return [
        f"{values['model']} on '{values['data']}', seed {values['seed']}"
        + "".join(f", {name} {values[name]}" for name in named)
        for values in every
    ]


def _changes(run: "Run") -> list[str]:
    """The settings with which a run goes on that are not on the disk yet, as flags."""
    changed = {name: new for name, (_, new) in run.changes.items() if new is not None}
    return [word for name, value in changed.items() for word in to_flag(name, value)]


class _Process:
    """One run in training, in a process of its own, which ends when this one does."""

    def __init__(self, run: "Run", title: str) -> None:
        self.run, self.title = run, title
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        # All settings are in the run's folder; those in the environment have been heard.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("DRAKEGPT_") or name == paths.HOME_VARIABLE
        }
        self._process = subprocess.Popen(
            # -P: no module of the folder we are in is to be taken for one of Python's.
            [sys.executable, "-P", "-m", "drakegpt.cli.side", str(run.folder), *_changes(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            env=environment,
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
        """Raise `RunError` with what it said if it did not end well."""
        if self._process.returncode == 0:
            return
        self._messages.seek(0)
        said = self._messages.read().decode("utf-8", "replace").strip()
        _, known, error = said.rpartition("Error: ")
        problem, _, fix = error.partition("\n")
        if not known:
            last = said.rpartition("\n")[2] or "it said nothing."
            problem, fix = f"its process ended with code {self._process.returncode}: {last}", ""
        raise RunError(
            f"Training {self.run.name} failed: {problem}",
            fix or f"Go on with it: `{command('train', resume=self.run.name)}`.",
        )


class _Together:
    """Trains runs side by side, a few at a time, and shows how far they are."""

    def __init__(self, data: "Dataset", at_once: int, *, quiet: bool, go_on: bool) -> None:
        self._data, self._at_once, self._quiet, self._go_on = data, at_once, quiet, go_on

    def train(self, plan: "list[_Plan]") -> "list[Run]":
        """Train all of `plan`; the runs, in order."""
        from drakegpt.cli.interrupts import Interrupts
        from drakegpt.cli.progress import side_by_side

        processes: list[_Process] = []
        under_way: list[_Process] = []
        if not self._quiet:
            console.note(
                f"{counted(len(plan), 'run')}, {self._at_once} at a time, each on one thread"
            )
        with (
            Interrupts() as interrupts,
            side_by_side(len(plan), quiet=self._quiet) as show,
            ExitStack() as ending,
        ):
            try:
                while under_way or len(processes) < len(plan):
                    if len(under_way) < self._at_once and len(processes) < len(plan):
                        config, name, title = plan[len(processes)]
                        run = _run_of(config, self._data, name, go_on=self._go_on)
                        processes.append(ending.enter_context(_Process(run, title)))
                        under_way.append(processes[-1])
                    time.sleep(POLL_SECONDS)
                    if interrupts.requested:
                        self._stop(processes, plan)
                    for process in tuple(under_way):
                        running = process.running  # asked once: it may end at any moment
                        show(process.run, process.title, running)
                        if not running:
                            under_way.remove(process)
                            process.check()
            except BaseException:
                for process in processes:  # all at once, before one is waited for
                    process.stop()
                raise
        return [process.run for process in processes]

    def _stop(self, processes: list[_Process], plan: "list[_Plan]") -> None:
        """Have all save what they are at, say how to go on, and exit."""
        for process in processes:
            process.stop()
        while any(process.running for process in processes):
            time.sleep(POLL_SECONDS)
        saved: list[Run] = []
        not_begun: list[_Plan] = []
        for process, entry in zip(processes, plan, strict=False):
            if process.run.finished:
                continue
            if process.run.checkpoints:
                saved.append(process.run)
            else:  # stopped before its first iteration, so there is nothing in it
                shutil.rmtree(process.run.folder, ignore_errors=True)
                not_begun.append(entry)
        not_begun += plan[len(processes) :]
        console.note(
            f"Stopped: {counted(len(saved), 'unfinished run')} saved, {len(not_begun)} not begun.",
            style="",
        )
        _say_how_to_go_on(saved, not_begun, go_on=self._go_on)
        raise typer.Exit(console.INTERRUPTED)


def seeds_from(settings: "Mapping[str, Any]", count: int) -> range:
    """So many seeds, from the one that is set on."""
    first = settings.get("seed", PRESETS["default"]["seed"])
    return range(first, first + count)


def show_seeds(runs: "Sequence[Run]", *, json: bool) -> None:
    """What runs that differ in their seed came to: each, their mean and its spread."""
    from drakegpt.experiments.results import row_of

    row = row_of(runs)
    if json:
        console.show_json(row.to_json())
        return
    _render(row)
    console.next_commands([command("compare", data=runs[0].config.data)])


def _render(row: "Row") -> None:
    from drakegpt.cli.tables import Column, show_table

    columns: tuple[Column[Result], ...] = (
        Column("seed", lambda result: str(result.seed)),
        Column("train", lambda result: f"{result.train_loss:.4f}", 1),
        Column("validation", lambda result: f"{result.val_loss:.4f}"),
        Column("bits/char", lambda result: f"{result.bits_per_character:.3f}", 2),
        Column("seconds", lambda result: f"{result.seconds:.1f}", 3),
        Column("run", lambda result: result.run, 4),
    )
    best = min(result.val_loss for result in row.results)
    title = f"{row.label}, {counted(len(row.results), 'seed')}"
    show_table(title, columns, row.results, lambda result: result.val_loss == best)
    spread = "" if row.val_spread is None else f" ± {row.val_spread:.4f}"
    seeds = f"mean of {len(row.seeds)} seeds, ±: their sample standard deviation"
    console.show(
        f"Validation loss {row.val_loss:.4f}{spread} nats per {row.unit}, over the whole split"
        + (f"; {seeds}" if spread else "")
    )
