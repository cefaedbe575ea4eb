"""`drakegpt sweep`: search hyperparameters, with one process or several."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import load_dataset, require_model
from drakegpt.cli.settings import SettingsCommand, read_settings
from drakegpt.config import files
from drakegpt.config.presets import EVALUATIONS
from drakegpt.errors import UsageError, show_value
from drakegpt.sweep.samplers import SAMPLERS, Sampler
from drakegpt.wording import pluralize

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig
    from drakegpt.data.dataset import Dataset
    from drakegpt.sweep.space import Axis
    from drakegpt.sweep.study import Study

# `--minutes` limits the whole sweep; warm starts are left to `train`.
WITHOUT = {
    "minutes": "--minutes limits the whole sweep; --iters sets the length of its runs.",
    "init_from": "Leave it out.",
}
MAX_TRIALS = 1_000_000
# Keys of a configuration file that concern the sweep; all others are settings of the runs.
_SWEEP_KEYS = ("params", "trials", "minutes", "sampler")


class SweepCommand(SettingsCommand):
    """`sweep`, and the settings that it does not take."""

    without = WITHOUT


def sweep(
    model: options.OptionalModel = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Setting to search: choices 32,64 or range 1e-4..1e-2:log.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of trials; default: 20, or the whole grid."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="X", help="Stop after this time."),
    ] = None,
    sampler: Annotated[
        Sampler | None, typer.Option(metavar="NAME", help="tpe (default), random or grid.")
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(help="Stop trials worse than the median (default).", show_default=False),
    ] = True,
    data: options.Data = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the sweep.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="SQLite file, or URL of a database."),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    preset: options.Preset = None,
    recipe: options.Recipe = None,
    iters: options.Iters = None,
    scaled: options.ScaledRuns = False,
    select_on: options.SelectOn = None,
    device: options.OptionalDevice = None,
    config_file: options.ConfigFile = None,
    pairs: options.Set = None,
) -> None:
    """Search hyperparameters with Optuna; each trial is an ordinary run.

    The last tenth of the training split, not trained on, ranks and prunes trials. The same command
    resumes a sweep, or joins a running one. A --config file may also have trials, minutes, sampler
    and a table params.
    """
    settings = read_settings(
        pairs, WITHOUT, preset=preset, recipe=recipe, iters=iters, device=device,
        select_on=select_on,
    )  # fmt: skip
    from drakegpt.cli.sweep_output import show_how_to_resume, show_trials

    given = files.from_file(config_file) if config_file else {}
    of_sweep = {key: given.pop(key) for key in _SWEEP_KEYS if key in given}
    flags = {"model": model, "size": "scaled" if scaled else None, "data": data}
    given |= {key: value for key, value in flags.items() if value is not None}
    space = _read_space(of_sweep.get("params", {}), param or [], settings)
    given = {key: value for key, value in given.items() if key not in space} | settings
    plan = _read_plan(of_sweep, trials, minutes, sampler)
    study = _open_study(given, space, plan, name, storage, prune=prune)
    if not quiet:
        _announce(study)
    _warn_if_none_can_be_pruned(study)
    started = time.monotonic()
    if _run_trials(study, plan.minutes, quiet=quiet):
        console.note("Stopped; finished trials are kept. The same command resumes.", style="")
        show_how_to_resume(study)
        raise typer.Exit(console.INTERRUPTED)
    timed_out = plan.minutes is not None and time.monotonic() - started >= plan.minutes * 60
    show_trials(study, json=json, timed_out=timed_out)


@dataclass(frozen=True)
class _Plan:
    """How long to search, and with which sampler."""

    trials: int | None
    minutes: float | None
    sampler: Sampler


def _read_space(in_file: Any, params: list[str], settings: dict[str, Any]) -> "dict[str, Axis]":
    """Return the search space: `--param` wins over the file's params, and a flag over both."""
    from drakegpt.sweep.space import parse_axis, parse_param

    if not isinstance(in_file, dict):
        raise UsageError(
            "params in the file is not a table.", "Write [params], then name = values."
        )
    space: dict[str, Axis] = {}
    for text in params:
        name, axis = parse_param(text)
        if name in space:
            raise UsageError(f"--param {name} is given twice.", "Leave one of them out.")
        if name in settings:
            raise UsageError(
                f"{name} is both searched and given.",
                f"Leave out --param {name}, or the setting (it may be an environment variable).",
            )
        space[name] = axis
    of_file = {n: parse_axis(n, v) for n, v in in_file.items() if n not in settings}
    return of_file | space


def _read_plan(
    of_sweep: dict[str, Any], trials: int | None, minutes: float | None, sampler: Sampler | None
) -> _Plan:
    """Return the plan from flags and the file, whose lines are checked like flags; flags win."""
    flags = {"trials": trials, "minutes": minutes, "sampler": sampler}
    given = {"trials": None, "minutes": None, "sampler": "tpe"} | of_sweep
    given |= {name: value for name, value in flags.items() if value is not None}
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "trials": (
            lambda n: type(n) is int and 1 <= n <= MAX_TRIALS,
            f"Give a whole number from 1 to {MAX_TRIALS:,}.",
        ),
        "minutes": (lambda n: type(n) in (int, float) and n >= 0, "Give a number of at least 0."),
        "sampler": (lambda name: name in SAMPLERS, "Take tpe, random or grid."),
    }
    for name, (fits, fix) in checks.items():
        if given[name] is not None and not fits(given[name]):
            raise UsageError(f"{name} cannot be {show_value(given[name])}.", fix)
    return _Plan(given["trials"], given["minutes"], given["sampler"])


def _open_study(
    given: dict[str, Any],
    space: "dict[str, Axis]",
    plan: _Plan,
    name: str | None,
    storage: str | None,
    *,
    prune: bool,
) -> "Study":
    """Open the study, after everything given has been checked."""
    from drakegpt.sweep.definition import define
    from drakegpt.sweep.study import Study

    model = require_model(given, "drakegpt sweep TransformerLM --param max_lr=1e-4..1e-2:log")
    given.pop("model", None)
    dataset = load_dataset(given.pop("data", None))
    size = given.pop("size", "default")
    definition = define(name, model, size, dataset, given, space, sampler=plan.sampler, prune=prune)
    definition.check_memory()
    return Study(definition, plan.trials, storage)


def _announce(study: "Study") -> None:
    """Note what is searched, and how many trials are done."""
    from drakegpt.cli.sweep_output import SPLITS

    definition = study.definition
    console.note(
        f"Sweep {definition.name}: {definition.model} on '{definition.data.name}', "
        f"{pluralize(study.total, 'trial')} ({definition.sampler}) over "
        f"{', '.join(definition.space)}, ranked on {SPLITS[definition.select_on]}",
        style="bold",
    )
    rows = study.rows()
    if done := sum(row.state != "unfinished" for row in rows):
        console.note(f"Resuming: {done} of {pluralize(study.total, 'trial')} done")


def _warn_if_none_can_be_pruned(study: "Study") -> None:
    """Warn if pruning is asked for and only the interval of evaluations prevents it."""
    from drakegpt.sweep.study import UNPRUNED_TRIALS

    longest = study.definition.longest_config()
    if not longest or not study.definition.prune or study.total <= UNPRUNED_TRIALS:
        return
    if 1 < longest.iters <= longest.eval_interval:
        console.warn(
            f"no trial can be pruned: each is evaluated only at its end, because its "
            f"{longest.iters:,} iterations are not more than eval_interval, "
            f"{longest.eval_interval:,}. "
            f"--set eval_interval={-(-longest.iters // EVALUATIONS)} changes that."
        )


def _run_trials(study: "Study", minutes: float | None, *, quiet: bool) -> bool:
    """Run trials until none is left or time is over; return whether it was interrupted."""
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.cli.sweep_output import describe_result, describe_trial
    from drakegpt.sweep.runner import run_trial

    deadline = float("inf") if minutes is None else time.monotonic() + minutes * 60
    seconds: list[float] = []
    show = partial(_show_progress, study.definition.data, quiet=quiet)
    with Interrupts() as interrupts:

        def stop() -> bool:
            return interrupts.requested or time.monotonic() >= deadline

        while not stop() and (trial := study.next()):
            started = time.monotonic()
            with trial:
                if not quiet and console.messages().is_terminal:
                    console.note(describe_trial(study, trial))
                state = run_trial(study.definition, trial, show, stop)
            if state != "impossible":
                seconds.append(time.monotonic() - started)
            if not quiet and state != "unfinished":
                console.note(describe_result(study, trial, seconds), style="")
        return interrupts.requested


@contextmanager
def _show_progress(
    data: "Dataset", config: "TrainConfig", *, quiet: bool
) -> Iterator[Callable[[Any], None]]:
    """Show the progress of one run on a terminal; elsewhere a line per trial is enough."""
    from drakegpt.cli.progress import ScoringWork, TrainingProgress

    hidden = quiet or not console.messages().is_terminal
    work = ScoringWork.of(config, data, whole=False)
    with TrainingProgress(config, work, quiet=hidden) as progress:
        yield progress.report
