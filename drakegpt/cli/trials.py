"""What `drakegpt sweep` shows: each trial as it ends, all of them, the best, what to do next."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.tables import Column, show_table
from drakegpt.config import files
from drakegpt.errors import RunError
from drakegpt.wording import format_command, join, pluralize

if TYPE_CHECKING:
    from drakegpt.sweep.definition import Definition
    from drakegpt.sweep.space import Value
    from drakegpt.sweep.study import Study, Trial, TrialRow


# What chooses, in words, and in the heads of tables.
PARTS = {
    "training-tail": "the tail of the training split",
    "validation": "the validation split",
}
_SHORT = {"training-tail": "tail", "validation": "validation"}


def described(study: "Study", trial: "Trial") -> str:
    """Which trial it is, and what it tries."""
    return f"Trial {trial.number} of {study.total}: {_values(trial.params)}"


def _values(params: "Mapping[str, Value]") -> str:
    from drakegpt.sweep.space import shown

    return ", ".join(f"{name} {shown(value)}" for name, value in params.items())


def came_to(study: "Study", trial: "Trial", seconds: list[float]) -> str:
    """What a trial came to, and how long the rest takes at the pace of those done here."""
    from drakegpt.cli.progress import duration

    rows = study.rows()
    row = rows[trial.number - 1]
    at_work = 1 + sum(other.state == "unfinished" for other in rows)
    left = study.total - sum(other.state != "unfinished" for other in rows)
    chooses = _SHORT[study.definition.select_on]
    loss = f"{chooses} {row.loss:.4f}, " if row.state == "complete" else ""
    took = "" if row.state == "impossible" else f" in {duration(seconds[-1])}"
    rest = ""
    if left > 0 and seconds:
        time_left = sum(seconds) / len(seconds) * left / min(at_work, left)
        rest = f"; about {duration(time_left)} left"
    return f"{described(study, trial)}: {loss}{_state(row)}{took}{rest}"


def _state(row: "TrialRow") -> str:
    return row.state + (f" at {row.iterations:,}" if row.state == "pruned" else "")


def show_trials(study: "Study", *, json: bool, over: bool) -> None:
    """The trials, the best of them, the figures, and what to do next."""
    rows = sorted(study.rows(), key=_rank)
    best = rows[0] if rows and rows[0].state == "complete" else None
    done = sum(row.state != "unfinished" for row in rows)
    running = len(rows) - done
    if not best and done >= study.total:
        raise RunError(
            f"No trial of {study.total} could be trained: {rows[0].why or rows[0].state}",
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
        console.next_commands(
            [format_command("generate", best.run), format_command("eval", best.run)]
        )


def _rank(row: "TrialRow") -> tuple[Any, ...]:
    """Complete trials by their loss, then estimates by theirs, then the rest by number."""
    known = row.loss is not None
    return (row.state != "complete", row.state == "unfinished", not known, row.loss, row.number)


def _figures(study: "Study", rows: "list[TrialRow]") -> list[Path]:
    from drakegpt.sweep.plots import draw

    definition = study.definition
    title = f"{definition.model} on {definition.data.name}, {pluralize(len(rows), 'trial')}"
    loss = f"{_SHORT[definition.select_on]} loss"
    unit = f"nats per {definition.data.tokenizer.unit}"
    return draw(title, loss, unit, definition.space, rows, study.folder)


def _render(study: "Study", rows: "list[TrialRow]", best: "TrialRow | None") -> None:
    definition = study.definition
    title = f"{definition.name}: {definition.model} on {definition.data.name}"
    show_table(title, _columns(study), rows, lambda row: row is best)
    estimated = any(row.state != "complete" and row.loss is not None for row in rows)
    console.show(
        _explained(definition)
        + ("; with ~, the last estimate of a trial that is not complete." if estimated else ".")
    )
    for why in dict.fromkeys(row.why for row in rows if row.why):
        numbers = ", ".join(str(row.number) for row in rows if row.why == why)
        console.show(f"{'Trials' if ',' in numbers else 'Trial'} {numbers}: {why}")
    if best:
        console.show(
            f"\nBest: trial {best.number}, {_losses(definition, best)} with "
            f"{_values(best.params)}.{_also(near_best(rows))} {_again(definition)}"
        )
        console.show(_command(definition, best), soft_wrap=True)


def _explained(definition: "Definition") -> str:
    """What the losses are, and which of them chose."""
    per = f"Losses: nats per {definition.data.tokenizer.unit} over the whole"
    if definition.select_on == "validation":
        return f"{per} validation split, which chose among the trials"
    return (
        f"{per} of each part. Tail: the last tenth of the training split, not trained on, by "
        "which trials are ranked and pruned; validation, scored as a trial ended, chose nothing"
    )


def _losses(definition: "Definition", row: "TrialRow") -> str:
    """The exact losses of a trial that is complete."""
    if definition.select_on == "validation":
        return f"validation loss {row.loss:.4f}"
    return f"tail loss {row.loss:.4f}, validation loss {row.val_loss:.4f},"


def _again(definition: "Definition") -> str:
    if definition.select_on == "validation":
        return "The same run again:"
    return "To train it on the whole training split:"


def near_best(rows: "list[TrialRow]") -> "list[TrialRow]":
    """The other complete trials within noise of the best; each is a single run."""
    from drakegpt.evaluation.noise import difference, lowest

    losses = {row.number: row.loss for row in rows if row.state == "complete"}
    known = [(number, loss) for number, loss in losses.items() if loss is not None]
    ranked = lowest(known, lambda it: it[1], lambda a, b: difference([a[1]], [b[1]]))
    near = [number for number, _ in ranked[1:]]
    return [row for row in rows if row.number in near]


def _also(near: "list[TrialRow]") -> str:
    """A sentence on trials that may be as good."""
    from drakegpt.report.summary import listed

    if not near:
        return ""
    numbers = listed([str(row.number) for row in near])
    which, are = ("Trial", "is") if len(near) == 1 else ("Trials", "are")
    return f" {which} {numbers} {are} within noise of it (single runs)."


def _columns(study: "Study") -> "list[Column[TrialRow]]":
    from drakegpt.sweep.space import shown

    def of(name: str) -> "Column[TrialRow]":
        return Column(name, lambda row: shown(row.params[name]) if row.params else "", 1)

    part = study.definition.select_on
    beside = [Column("validation", _beside, 2)] if part != "validation" else []
    return [
        Column("trial", lambda row: str(row.number)),
        *map(of, study.definition.space),
        Column(_SHORT[part], _loss),
        *beside,
        Column("state", _state, 3),
        Column("run", lambda row: row.run, 4),
    ]


def _loss(row: "TrialRow") -> str:
    if row.loss is None:
        return ""
    return f"{row.loss:.4f}" if row.state == "complete" else f"~{row.loss:.4f}"


def _beside(row: "TrialRow") -> str:
    """The validation loss where it is not what chooses."""
    return "" if row.val_loss is None else f"{row.val_loss:.4f}"


def _command(definition: "Definition", row: "TrialRow") -> str:
    """The `train` command of a trial's settings, on the whole training split."""
    return files.to_command(replace(definition.whole_config(row.params), wandb="off"))


def _say_what_is_left(study: "Study", done: int, running: int, *, over: bool) -> None:
    left = study.total - done
    if left <= 0:
        return
    if over:
        console.note(
            f"Time is over with {done} of {pluralize(study.total, 'trial')} done.", style=""
        )
    elsewhere = f"{running} still running elsewhere, or stopped there" if running else ""
    if running and not over:
        console.note(f"{elsewhere}; the same command shows what they came to.", style="")
    say_how_to_go_on(study)


def _is_here(row: "TrialRow") -> bool:
    from drakegpt import home

    return (home.runs() / row.run).is_dir()


def say_how_to_go_on(study: "Study") -> None:
    """Show the same command, unless it holds a password."""
    from drakegpt.sweep.storage import without_password

    if without_password(study.place) == study.place:
        console.next_commands([join(["drakegpt", *sys.argv[1:]])])
    else:
        console.note("The same command resumes it; it is not shown, for its --storage is secret.")


def _as_json(
    study: "Study", rows: "list[TrialRow]", best: "TrialRow | None", figures: list[Path]
) -> dict[str, Any]:
    definition = study.definition
    chosen = best and {
        "number": best.number,
        "params": dict(best.params),
        "loss": best.loss,
        "val_loss": best.val_loss,
        "run": best.run,
        "within_noise": [row.number for row in near_best(rows)],
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
