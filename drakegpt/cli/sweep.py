"""`drakegpt sweep`: search for good hyperparameters; alone, or several processes together."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.train import choose_dataset, named_model
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

# `--minutes` is the sweep's own; runs that begin with others are left to `train`.
WITHOUT = ("minutes", "init_from")
# What a configuration file says of the sweep itself; all else in it are settings of the runs.
MOST_TRIALS = 1_000_000
_OWN = ("params", "trials", "minutes", "sampler")


class SweepCommand(options.SettingsCommand):
    """Which settings it does not take."""

    without = WITHOUT


def sweep(
    model: options.ModelOrNone = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="Search this setting: embedding_dim=32,64 or max_lr=1e-4..1e-2:log.",
            show_default=False,
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Trials of all processes; 20, or the whole grid.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="N", help="Stop after this time.", show_default=False),
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            metavar="NAME",
            help="tpe (default), random or grid.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(help="Stop trials worse than the median.", show_default=False),
    ] = True,
    data: options.Data = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the sweep.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="SQLite file, or a database of several machines.",
            show_default=False,
        ),
    ] = None,
    preset: options.Preset = None,
    recipe: options.Recipe = None,
    iters: options.Iters = None,
    scaled: options.Large = False,
    select_on: options.SelectOn = None,
    device: options.DeviceOrNone = None,
    config_file: options.ConfigFile = None,
    pairs: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for good hyperparameters; each trial is an ordinary run.

    The last tenth of the training split, not trained on, ranks and prunes
    trials; validation only stands beside it. The same command resumes the
    sweep, or joins it while it runs. A --config file may also hold trials,
    minutes, sampler and a table params.
    """
    settings = options.settings_given(
        pairs, WITHOUT, preset=preset, recipe=recipe, iters=iters, device=device,
        select_on=select_on,
    )  # fmt: skip
    from drakegpt.cli.trials import say_how_to_go_on, show_trials

    given = files.from_file(config_file) if config_file else {}
    own = {key: given.pop(key) for key in _OWN if key in given}
    spelt_out = {"model": model, "size": "scaled" if scaled else None, "data": data}
    given |= {key: value for key, value in spelt_out.items() if value is not None}
    searched = _searched(own.get("params", {}), param or [], settings)
    given = {key: value for key, value in given.items() if key not in searched} | settings
    plan = _plan(own, trials, minutes, sampler)
    study = _study(given, searched, plan, name, storage, prune=prune)
    if not quiet:
        _announce(study)
    _warn_if_none_can_be_pruned(study)
    began = time.monotonic()
    if _work(study, plan.minutes, quiet=quiet):
        console.note("Stopped; what was trained is kept. The same command goes on.", style="")
        say_how_to_go_on(study)
        raise typer.Exit(console.INTERRUPTED)
    over = plan.minutes is not None and time.monotonic() - began >= plan.minutes * 60
    show_trials(study, json=json, over=over)


@dataclass(frozen=True)
class _Plan:
    """How long to search, and how: what is the same for all models."""

    trials: int | None
    minutes: float | None
    sampler: Sampler


def _searched(in_file: Any, params: list[str], settings: dict[str, Any]) -> "dict[str, Axis]":
    """What is searched: `--param` goes before the file's params, a flag before both of these."""
    from drakegpt.sweep.space import axis_from, param_from_text

    if not isinstance(in_file, dict):
        raise UsageError("params in the file is no table.", "Write [params], then name = values.")
    searched: dict[str, Axis] = {}
    for text in params:
        name, axis = param_from_text(text)
        if name in searched:
            raise UsageError(f"--param {name} is given twice.", "Leave one of them out.")
        if name in settings:
            raise UsageError(
                f"{name} is searched and given at once.",
                f"Leave out --param {name}, or the setting (it may be an environment variable).",
            )
        searched[name] = axis
    of_file = {n: axis_from(n, v) for n, v in in_file.items() if n not in settings}
    return of_file | searched


def _plan(
    own: dict[str, Any], trials: int | None, minutes: float | None, sampler: Sampler | None
) -> _Plan:
    """Flags before the file's lines, which are checked as the flags are."""
    flags = {"trials": trials, "minutes": minutes, "sampler": sampler}
    said = {"trials": None, "minutes": None, "sampler": "tpe"} | own
    said |= {name: value for name, value in flags.items() if value is not None}
    fit: dict[str, tuple[Callable[[Any], bool], str]] = {
        "trials": (
            lambda n: type(n) is int and 1 <= n <= MOST_TRIALS,
            f"Give a whole number from 1 to {MOST_TRIALS:,}.",
        ),
        "minutes": (lambda n: type(n) in (int, float) and n >= 0, "Give a number from 0 on."),
        "sampler": (lambda name: name in SAMPLERS, "Take tpe, random or grid."),
    }
    for name, (fits, fix) in fit.items():
        if said[name] is not None and not fits(said[name]):
            raise UsageError(f"{name} cannot be {show_value(said[name])}.", fix)
    return _Plan(said["trials"], said["minutes"], said["sampler"])


def _study(
    given: dict[str, Any],
    searched: "dict[str, Axis]",
    plan: _Plan,
    name: str | None,
    storage: str | None,
    *,
    prune: bool,
) -> "Study":
    """The study that is meant, with all that was said checked before it is opened."""
    from drakegpt.sweep.definition import define
    from drakegpt.sweep.study import Study

    model = named_model(given, "drakegpt sweep TransformerLM --param max_lr=1e-4..1e-2:log")
    given.pop("model", None)
    dataset = choose_dataset(given.pop("data", None))
    size = given.pop("size", "default")
    definition = define(
        name, model, size, dataset, given, searched, sampler=plan.sampler, prune=prune
    )
    definition.check_memory()
    return Study(definition, plan.trials, storage)


def _announce(study: "Study") -> None:
    from drakegpt.cli.trials import PARTS

    definition = study.definition
    console.note(
        f"Sweep {definition.name}: {definition.model} on '{definition.data.name}', "
        f"{pluralize(study.total, 'trial')} ({definition.sampler}) over "
        f"{', '.join(definition.space)}, chosen on {PARTS[definition.select_on]}",
        style="bold",
    )
    rows = study.rows()
    if done := sum(row.state != "unfinished" for row in rows):
        console.note(f"Going on: {done} of {pluralize(study.total, 'trial')} done")


def _warn_if_none_can_be_pruned(study: "Study") -> None:
    """Say so where pruning is asked for and only the interval of evaluations prevents it."""
    from drakegpt.sweep.study import UNPRUNED_TRIALS

    longest = study.definition.longest()
    if not longest or not study.definition.prune or study.total <= UNPRUNED_TRIALS:
        return
    if 1 < longest.iters <= longest.eval_interval:
        console.warn(
            f"no trial can be pruned: each is evaluated at its end only, as {longest.iters:,} "
            f"iterations are not more than the interval of {longest.eval_interval:,}. "
            f"--set eval_interval={-(-longest.iters // EVALUATIONS)} changes that."
        )


def _work(study: "Study", minutes: float | None, *, quiet: bool) -> bool:
    """Take trials until there are none, or time is over; whether it was interrupted."""
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.cli.trials import came_to, described
    from drakegpt.sweep.runner import attempt

    deadline = float("inf") if minutes is None else time.monotonic() + minutes * 60
    seconds: list[float] = []
    show = partial(_screen, study.definition.data, quiet=quiet)
    with Interrupts() as interrupts:

        def stop() -> bool:
            return interrupts.requested or time.monotonic() >= deadline

        while not stop() and (trial := study.next()):
            began = time.monotonic()
            with trial:
                if not quiet and console.messages().is_terminal:
                    console.note(described(study, trial))
                state = attempt(study.definition, trial, show, stop)
            if state != "impossible":
                seconds.append(time.monotonic() - began)
            if not quiet and state != "unfinished":
                console.note(came_to(study, trial, seconds), style="")
        return interrupts.requested


@contextmanager
def _screen(
    data: "Dataset", config: "TrainConfig", *, quiet: bool
) -> Iterator[Callable[[Any], None]]:
    """The progress of one run on a terminal; elsewhere a line per trial is enough."""
    from drakegpt.cli.progress import Ahead, TrainingProgress

    hidden = quiet or not console.messages().is_terminal
    ahead = Ahead.of(config, data, whole=False)
    with TrainingProgress(config, ahead, quiet=hidden) as progress:
        yield progress.report
