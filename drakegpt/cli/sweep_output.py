"""What `drakegpt sweep` prints: each trial as it ends, the table of all, the best, what is next."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.tables import Column, show_table
from drakegpt.config import files
from drakegpt.errors import RunError
from drakegpt.experiments.formatting import format_or_blank
from drakegpt.wording import format_command, join, pluralize

if TYPE_CHECKING:
    from drakegpt.sweep.definition import Definition
    from drakegpt.sweep.space import Value
    from drakegpt.sweep.study import Study, Trial, TrialRow


# What ranks the trials, in sentences.
SPLITS = {
    "training-tail": "the tail of the training split",
    "validation": "the validation split",
}


def describe_trial(study: "Study", trial: "Trial") -> str:
    """Return the number of a trial and its parameters."""
    return f"Trial {trial.number} of {study.total}: {_format_params(trial.params)}"


def _shorten_split(definition: "Definition") -> str:
    """Return the split that ranks the trials, for a heading."""
    return definition.select_on.removeprefix("training-")


def _format_params(params: "Mapping[str, Value]") -> str:
    from drakegpt.sweep.space import format_value

    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def describe_result(study: "Study", trial: "Trial", seconds: list[float]) -> str:
    """Return the result of a trial, and the time left at the pace of those done here."""
    from drakegpt.cli.short_forms import format_duration

    rows = study.rows()
    row = rows[trial.number - 1]
    running = 1 + sum(other.state == "unfinished" for other in rows)
    left = study.total - sum(other.state != "unfinished" for other in rows)
    split = _shorten_split(study.definition)
    loss = f"{split} {row.loss:.4f}, " if row.state == "complete" else ""
    took = "" if row.state == "impossible" else f" in {format_duration(seconds[-1])}"
    rest = ""
    if left > 0 and seconds:
        time_left = sum(seconds) / len(seconds) * left / min(running, left)
        rest = f"; about {format_duration(time_left)} left"
    return f"{describe_trial(study, trial)}: {loss}{_state(row)}{took}{rest}"


def _state(row: "TrialRow") -> str:
    return row.state + (f" at {row.iterations:,}" if row.state == "pruned" else "")


def show_trials(study: "Study", *, json: bool, timed_out: bool) -> None:
    """Show the trials, the best one, the figures, and what to do next."""
    rows = sorted(study.rows(), key=_rank_key)
    best = rows[0] if rows and rows[0].state == "complete" else None
    done = sum(row.state != "unfinished" for row in rows)
    running = len(rows) - done
    if not best and done >= study.total:
        raise RunError(
            f"No trial of {study.total} could be trained: {rows[0].why or rows[0].state}",
            "Change the searched values or the settings, and give another --name.",
        )
    figures = _figures(study, rows) if best else []
    if json:
        console.show_json(_to_json(study, rows, best, figures))
    elif rows:
        _render(study, rows, best)
    for path in figures if not json else ():
        console.note(f"Figure: {path}")
    _note_what_is_left(study, done, running, timed_out=timed_out)
    if best and not json and _is_here(best):
        console.next_commands(
            [format_command("generate", best.run), format_command("eval", best.run)]
        )


def _rank_key(row: "TrialRow") -> tuple[Any, ...]:
    """Sort key: complete trials by loss, then others by their last estimate, then by number."""
    known = row.loss is not None
    return (row.state != "complete", row.state == "unfinished", not known, row.loss, row.number)


def _figures(study: "Study", rows: "list[TrialRow]") -> list[Path]:
    from drakegpt.sweep.plots import draw_sweep

    definition = study.definition
    title = f"{definition.model} on {definition.data.name}, {pluralize(len(rows), 'trial')}"
    loss = f"{_shorten_split(definition)} loss"
    unit = f"nats per {definition.data.tokenizer.unit}"
    return draw_sweep(title, loss, unit, definition.space, rows, study.folder)


def _render(study: "Study", rows: "list[TrialRow]", best: "TrialRow | None") -> None:
    definition = study.definition
    title = f"{definition.name}: {definition.model} on {definition.data.name}"
    show_table(title, _columns(study), rows, lambda row: row is best)
    estimated = any(row.state != "complete" and row.loss is not None for row in rows)
    console.show(
        _explain_losses(definition)
        + ("; ~ marks the last estimate of a trial that is not complete." if estimated else ".")
    )
    for why in dict.fromkeys(row.why for row in rows if row.why):
        numbers = ", ".join(str(row.number) for row in rows if row.why == why)
        console.show(f"{'Trials' if ',' in numbers else 'Trial'} {numbers}: {why}")
    if best:
        console.show(
            f"\nBest: trial {best.number}, {_format_losses(definition, best)} with "
            f"{_format_params(best.params)}.{_list_near_best(find_near_best(rows))} "
            f"{_introduce_command(definition)}"
        )
        console.show(_command(definition, best), soft_wrap=True)


def _explain_losses(definition: "Definition") -> str:
    """Explain the losses, and which of them ranks the trials."""
    per = f"Losses: nats per {definition.data.tokenizer.unit} over the whole"
    if definition.select_on == "validation":
        return f"{per} validation split, which ranks the trials"
    return (
        f"{per} of each part. Tail: the last tenth of the training split, which is not trained "
        "on, and ranks and prunes the trials; validation is scored when a trial ends, and decides "
        "nothing"
    )


def _format_losses(definition: "Definition", row: "TrialRow") -> str:
    """Return the exact losses of a complete trial."""
    if definition.select_on == "validation":
        return f"validation loss {row.loss:.4f}"
    return f"tail loss {row.loss:.4f}, validation loss {row.val_loss:.4f},"


def _introduce_command(definition: "Definition") -> str:
    if definition.select_on == "validation":
        return "To train it again:"
    return "To train it on the whole training split:"


def find_near_best(rows: "list[TrialRow]") -> "list[TrialRow]":
    """Return the other complete trials within noise of the best; each is a single run."""
    from drakegpt.evaluation.noise import compare_losses, find_lowest

    losses = {row.number: row.loss for row in rows if row.state == "complete"}
    known = [(number, loss) for number, loss in losses.items() if loss is not None]
    ranked = find_lowest(known, lambda it: it[1], lambda a, b: compare_losses([a[1]], [b[1]]))
    near = [number for number, _ in ranked[1:]]
    return [row for row in rows if row.number in near]


def _list_near_best(near: "list[TrialRow]") -> str:
    """Return a sentence that lists trials within noise of the best, if there are any."""
    from drakegpt.report.summary import join_names

    if not near:
        return ""
    numbers = join_names([str(row.number) for row in near])
    which, are = ("Trial", "is") if len(near) == 1 else ("Trials", "are")
    return f" {which} {numbers} {are} within noise of it (single runs)."


def _columns(study: "Study") -> "list[Column[TrialRow]]":
    from drakegpt.sweep.space import format_value

    def of(name: str) -> "Column[TrialRow]":
        return Column(name, lambda row: format_value(row.params[name]) if row.params else "", 1)

    part = study.definition.select_on
    validation: Column[TrialRow] = Column(
        "validation", lambda row: format_or_blank(row.val_loss, ".4f"), 2
    )
    return [
        Column("trial", lambda row: str(row.number)),
        *map(of, study.definition.space),
        Column(_shorten_split(study.definition), _loss),
        *([validation] if part != "validation" else []),
        Column("state", _state, 3),
        Column("run", lambda row: row.run, 4),
    ]


def _loss(row: "TrialRow") -> str:
    if row.loss is None:
        return ""
    return f"{row.loss:.4f}" if row.state == "complete" else f"~{row.loss:.4f}"


def _command(definition: "Definition", row: "TrialRow") -> str:
    """Return the `train` command with the settings of a trial, on the whole training split."""
    return files.to_command(replace(definition.config_without_tail(row.params), wandb="off"))


def _note_what_is_left(study: "Study", done: int, running: int, *, timed_out: bool) -> None:
    """Say how many trials are missing, and how to resume."""
    left = study.total - done
    if left <= 0:
        return
    if timed_out:
        console.note(f"Time is over: {done} of {pluralize(study.total, 'trial')} done.", style="")
    if running and not timed_out:
        pending = f"{pluralize(running, 'trial')} running or stopped in another process"
        console.note(f"{pending}; the same command shows the results.", style="")
    show_how_to_resume(study)


def _is_here(row: "TrialRow") -> bool:
    from drakegpt import home

    return (home.runs() / row.run).is_dir()


def show_how_to_resume(study: "Study") -> None:
    """Show the command to repeat, unless it contains a password."""
    from drakegpt.sweep.storage import hide_password

    if hide_password(study.place) == study.place:
        console.next_commands([join(["drakegpt", *sys.argv[1:]])])
    else:
        console.note(
            "The same command resumes; it is not shown because its --storage has a password."
        )


def _to_json(
    study: "Study", rows: "list[TrialRow]", best: "TrialRow | None", figures: list[Path]
) -> dict[str, Any]:
    definition = study.definition
    chosen = best and {
        "number": best.number,
        "params": dict(best.params),
        "loss": best.loss,
        "val_loss": best.val_loss,
        "run": best.run,
        "within_noise": [row.number for row in find_near_best(rows)],
        "command": _command(definition, best),
    }
    return {
        "study": definition.name,
        "model": definition.model,
        "size": definition.size,
        "data": definition.data.name,
        "sampler": definition.sampler,
        "select_on": definition.select_on,
        "total": study.total,
        "best": chosen,
        "trials": [row.to_json() for row in sorted(rows, key=lambda row: row.number)],
        "figures": [str(path) for path in figures],
    }
