"""`drakegpt sweep`: search for good hyperparameters; alone, or several processes together."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt import config, config_files
from drakegpt.cli import console, options
from drakegpt.cli.tables import Column, fitting
from drakegpt.cli.train import choose_dataset
from drakegpt.errors import RunError, UsageError
from drakegpt.presets import EVALUATIONS, SYSTEMS
from drakegpt.sweep.samplers import SAMPLERS, Sampler

if TYPE_CHECKING:
    from drakegpt.config import TrainConfig
    from drakegpt.sweep.definition import Definition
    from drakegpt.sweep.space import Axis, Value
    from drakegpt.sweep.study import Row, Study, Trial

# `--minutes` is the sweep's own; runs that begin with others are left to `train`.
WITHOUT = ("minutes", "init_from")
# What a configuration file says of the sweep itself; all else in it are settings of the runs.
_OWN = ("params", "trials", "minutes", "sampler")


@partial(options.with_settings, without=WITHOUT)
def sweep(
    settings: dict[str, Any],
    model: options.ModelOrNone = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUES",
            help="What to search, once for each: choices as in embedding_dim=32,64,128, or a "
            "range as in dropout=0..0.3 or max_lr=1e-4..1e-2:log.",
            show_default=False,
        ),
    ] = None,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings, trials, minutes, sampler and a table params, in TOML or YAML; flags "
            "win.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Trials in all, of every process and repetition; 20, or all points of a grid.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Stop after so long; the same command goes on.", show_default=False
        ),
    ] = None,
    sampler: Annotated[
        Sampler | None,
        typer.Option(
            help="How to choose: by what came of the trials before (tpe), at random, or each "
            "combination once (grid); tpe if not given.",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(help="Give up trials that are worse than most at the same iteration."),
    ] = True,
    scaled: options.Scaled = False,
    data: options.Data = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the sweep; made from model, data and what is searched."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="Where the study is kept: a journal file, or a database as in "
            "sqlite:///FILE; a journal in the data folder if not given.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search for hyperparameters with a low validation loss; each trial is a run like any other.

    The same command again goes on where it was stopped; at the same time, it takes part.
    """
    given = config_files.from_file(config_file) if config_file else {}
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
        _say_how_to_go_on()
        raise typer.Exit(console.INTERRUPTED)
    over = plan.minutes is not None and time.monotonic() - began >= plan.minutes * 60
    _show(study, json=json, over=over)


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
                f"Leave out --{name.replace('_', '-')} (or its environment variable) or --param.",
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
        "trials": (lambda n: type(n) is int and n >= 1, "Give a whole number above 0."),
        "minutes": (lambda n: type(n) in (int, float) and n >= 0, "Give a number from 0 on."),
        "sampler": (lambda name: name in SAMPLERS, "Take tpe, random or grid."),
    }
    for name, (fits, fix) in fit.items():
        if said[name] is not None and not fits(said[name]):
            raise UsageError(f"{name} cannot be {said[name]!r}.", fix)
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

    system = SYSTEMS.get(str(given.get("preset")))
    model = given.pop("model", None) or (system and system.settings["model"])
    if not model:
        raise UsageError(
            "No model is named.",
            f"Name one of {', '.join(config.MODEL_NAMES)}, e.g. `drakegpt sweep TransformerLM "
            "--param max_lr=1e-4..1e-2:log`, or a --preset.",
        )
    dataset = choose_dataset(given.pop("data", None))
    size = given.pop("size", "default")
    definition = define(
        name, model, size, dataset, given, searched, sampler=plan.sampler, prune=prune
    )
    return Study(definition, plan.trials, storage)


def _announce(study: "Study") -> None:
    definition = study.definition
    console.note(
        f"Sweep {definition.name}: {definition.model} on '{definition.data.name}', "
        f"{study.total} trials ({definition.sampler}) over {', '.join(definition.space)}",
        style="bold",
    )
    rows = study.rows()
    if done := sum(row.state != "unfinished" for row in rows):
        console.note(f"Going on: {done} of {study.total} trials are done")


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
            f"--eval-interval {-(-longest.iters // EVALUATIONS)} changes that."
        )


def _work(study: "Study", minutes: float | None, *, quiet: bool) -> bool:
    """Take trials until there are none, or time is over; whether it was interrupted."""
    from drakegpt.cli.interrupts import Interrupts
    from drakegpt.sweep.trials import attempt

    deadline = float("inf") if minutes is None else time.monotonic() + minutes * 60
    seconds: list[float] = []
    with Interrupts() as interrupts:

        def stop() -> bool:
            return interrupts.requested or time.monotonic() >= deadline

        while not stop() and (trial := study.next()):
            began = time.monotonic()
            with trial:
                if not quiet and console.messages().is_terminal:
                    console.note(_described(study, trial))
                state = attempt(study.definition, trial, partial(_screen, quiet=quiet), stop)
            if state != "impossible":
                seconds.append(time.monotonic() - began)
            if not quiet and state != "unfinished":
                console.note(_came_to(study, trial, seconds), style="")
        return interrupts.requested


@contextmanager
def _screen(config: "TrainConfig", *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """The progress of one run on a terminal; elsewhere a line per trial is enough."""
    from drakegpt.cli.progress import TrainingProgress

    hidden = quiet or not console.messages().is_terminal
    with TrainingProgress(config, quiet=hidden) as progress:
        yield progress.report


def _described(study: "Study", trial: "Trial") -> str:
    return f"Trial {trial.number} of {study.total}: {_values(trial.params)}"


def _values(params: "Mapping[str, Value]") -> str:
    from drakegpt.sweep.space import shown

    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())


def _came_to(study: "Study", trial: "Trial", seconds: list[float]) -> str:
    """What a trial came to, and how long the rest takes at the pace of those done here."""
    from drakegpt.cli.progress import duration

    rows = study.rows()
    row = rows[trial.number - 1]
    at_work = 1 + sum(other.state == "unfinished" for other in rows)
    left = study.total - sum(other.state != "unfinished" for other in rows)
    loss = f"validation {row.val_loss:.4f}, " if row.state == "complete" else ""
    took = "" if row.state == "impossible" else f" in {duration(seconds[-1])}"
    rest = ""
    if left > 0 and seconds:
        time_left = sum(seconds) / len(seconds) * left / min(at_work, left)
        rest = f"; about {duration(time_left)} left"
    return f"{_described(study, trial)}: {loss}{_state(row)}{took}{rest}"


def _state(row: "Row") -> str:
    return row.state + (f" at {row.iterations:,}" if row.state == "pruned" else "")


def _show(study: "Study", *, json: bool, over: bool) -> None:
    """The trials, the best of them, the figures, and what to do next."""
    rows = sorted(study.rows(), key=_rank)
    best = rows[0] if rows and rows[0].state == "complete" else None
    done = sum(row.state != "unfinished" for row in rows)
    running = len(rows) - done
    if not best and done >= study.total:
        raise RunError(
            f"None of the {study.total} trials could be trained: {rows[0].why or rows[0].state}",
            "Search other values, or take others for what is given; then under another --name.",
        )
    figures = _figures(study, rows) if best else []
    if json:
        console.show_json(_as_json(study, rows, best, figures))
    elif rows:
        _render(study, rows, best)
    for path in figures if not json else ():
        console.note(f"Figure: {path}")
    _say_what_is_left(study, done, running, over=over)
    if best and not json and _is_here(best):
        console.next_commands([f"drakegpt generate {best.run}", f"drakegpt eval {best.run}"])


def _rank(row: "Row") -> tuple[Any, ...]:
    """Complete trials by their loss, then estimates by theirs, then the rest by number."""
    known = row.val_loss is not None
    return (row.state != "complete", row.state == "unfinished", not known, row.val_loss, row.number)


def _figures(study: "Study", rows: "list[Row]") -> list[Path]:
    from drakegpt.sweep.figures import draw

    definition = study.definition
    title = f"{definition.model} on {definition.data.name}, {len(rows)} trials"
    loss = f"validation loss, nats per {_unit(definition)}"
    return draw(title, loss, definition.space, rows, study.folder)


def _unit(definition: "Definition") -> str:
    return "character" if definition.data.tokenizer.kind == "char" else "token"


def _render(study: "Study", rows: "list[Row]", best: "Row | None") -> None:
    definition = study.definition
    title = f"{definition.name}: {definition.model} on {definition.data.name}"
    console.show(fitting(title, _columns(study), rows, lambda row: row is best))
    estimated = any(row.state != "complete" and row.val_loss is not None for row in rows)
    console.show(
        f"Losses: nats per {_unit(definition)} over the whole validation split"
        + ("; with ~, the last estimate of a trial that is not complete." if estimated else ".")
    )
    for why in dict.fromkeys(row.why for row in rows if row.why):
        numbers = ", ".join(str(row.number) for row in rows if row.why == why)
        console.show(f"Trial{'s' if ',' in numbers else ''} {numbers}: {why}")
    if best:
        console.show(
            f"\nBest: trial {best.number}, validation loss {best.val_loss:.4f} with "
            f"{_values(best.params)}. The same run again:"
        )
        console.show(_command(definition, best), soft_wrap=True)


def _columns(study: "Study") -> "list[Column[Row]]":
    from drakegpt.sweep.space import shown

    def of(name: str) -> "Column[Row]":
        return Column(name, lambda row: shown(row.params[name]) if row.params else "", 1)

    return [
        Column("trial", lambda row: str(row.number)),
        *map(of, study.definition.space),
        Column("validation", _loss),
        Column("state", _state, 2),
        Column("run", lambda row: row.run, 3),
    ]


def _loss(row: "Row") -> str:
    if row.val_loss is None:
        return ""
    return f"{row.val_loss:.4f}" if row.state == "complete" else f"~{row.val_loss:.4f}"


def _command(definition: "Definition", row: "Row") -> str:
    """The `train` command that reproduces a trial."""
    return config_files.to_command(replace(definition.config(row.params), wandb="off"))


def _say_what_is_left(study: "Study", done: int, running: int, *, over: bool) -> None:
    left = study.total - done
    if left <= 0:
        return
    if over:
        console.note(f"Time is over with {done} of {study.total} trials done.", style="")
    elsewhere = f"{running} still running elsewhere, or stopped there" if running else ""
    if running and not over:
        console.note(f"{elsewhere}; the same command shows what they came to.", style="")
    _say_how_to_go_on()


def _is_here(row: "Row") -> bool:
    from drakegpt import paths

    return (paths.runs() / row.run).is_dir()


def _say_how_to_go_on() -> None:
    """Show the same command, without a password that may be in it."""
    from drakegpt.sweep.storage import PLACEHOLDER, masked

    arguments = [masked(argument) for argument in sys.argv[1:]]
    console.next_commands([shlex.join(["drakegpt", *arguments])])
    if arguments != sys.argv[1:]:
        console.note(f"{PLACEHOLDER} stands for that of the storage: put yours in its place.")


def _as_json(
    study: "Study", rows: "list[Row]", best: "Row | None", figures: list[Path]
) -> dict[str, Any]:
    definition = study.definition
    chosen = best and {
        "number": best.number,
        "params": dict(best.params),
        "val_loss": best.val_loss,
        "run": best.run,
        "command": _command(definition, best),
    }
    return {
        "study": definition.name,
        "model": definition.model,
        "size": definition.size,
        "data": definition.data.name,
        "sampler": definition.sampler,
        "total": study.total,
        "best": chosen,
        "trials": [row.to_json() for row in sorted(rows, key=lambda row: row.number)],
        "figures": [str(path) for path in figures],
    }
