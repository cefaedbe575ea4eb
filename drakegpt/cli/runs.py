"""`drakegpt runs`: list, show and remove training runs, and import the original's."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.progress import SHORT
from drakegpt.cli.tables import Column, show_table
from drakegpt.config import LADDER, parse_model
from drakegpt.errors import RunError, UsageError
from drakegpt.experiments.formatting import format_or_blank
from drakegpt.wording import format_command, pluralize

if TYPE_CHECKING:
    from collections.abc import Callable

    from drakegpt.runs.run import Run

app = typer.Typer(help="List, show, remove or import training runs.")

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name or folder.")]


@app.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context, json: options.Json = False) -> None:
    if context.invoked_subcommand is None:
        list_(json)
    elif json:
        raise UsageError("--json stands behind the command.", "As in `drakegpt runs list --json`.")


@app.command("list", cls=options.Command)
def list_(json: options.Json = False) -> None:
    """List all runs, oldest first; also what a bare `drakegpt runs` does."""
    from drakegpt.runs.run import open_all_runs

    runs, unreadable = open_all_runs()
    whole = [_summary(run) for run in runs]
    if json:
        unknown = dict.fromkeys(
            ("model", "size", "data", "iteration", "val_loss", "scored_on", "parts")
        )
        others = [
            unknown
            | {"run": folder.name, "state": error.state, "problem": error.problem}
            | {"folder": str(folder)}
            for folder, error in unreadable
        ]
        console.show_json({"runs": [*(row | {"problem": ""} for row in whole), *others]})
        return
    if not runs and not unreadable:
        console.note("No runs yet; `drakegpt train TransformerLM` makes one.")
        return
    rows = [*whole, *({"run": folder.name, "state": error.state} for folder, error in unreadable)]
    show_table("", _COLUMNS, rows)
    for folder, error in unreadable:
        console.warn(f"{folder.name}: {error.problem}")


@app.command(cls=options.Command)
def show(run: RunName, json: options.Json = False) -> None:
    """Show a run's settings, how it went, and where it is."""
    from drakegpt.config import files
    from drakegpt.runs.lookup import find_run
    from drakegpt.runs.scores import validation_scorings

    found = find_run(run)
    scored = validation_scorings(found)
    if json:
        from dataclasses import asdict

        console.show_json(
            _summary(found)
            | {
                "history": found.history,
                "validation_scorings": scored,
                "settings": asdict(found.config),
                "info": found.info,
                "metrics": found.metrics,
            }
        )
        return
    shown = _summary(found) | found.info | {"parts": found.history}
    for key, value in shown.items():
        if key != "changes" and value != "":
            console.show(f"{key + ':':18}{value}")
    times = pluralize(scored, "time")
    console.show(f"validation split scored {times}, evaluations included")
    console.show("\n" + files.to_toml(found.config).rstrip() + "\n")
    part = SHORT[found.config.select_on]
    for line in found.evaluations:
        console.show(
            f"iteration {line['iteration']:>7,}  train {line['train_loss']:.4f}  "
            f"{part} {line['val_loss']:.4f}  lr {line['learning_rate']:.2e}"
        )


@app.command(cls=options.Command)
def remove(
    run: RunName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
) -> None:
    """Remove a run's folder with everything in it, whole or damaged."""
    from drakegpt import files, home

    folder = Path(run) if "/" in run or os.sep in run else home.runs() / run
    if not run or run in (".", "..") or not folder.is_dir():
        raise RunError(
            f"There is no run named '{run}'.",
            "Give its exact name, as `drakegpt runs` lists it, or its folder.",
        )
    if folder.parent.resolve() != home.runs().resolve():
        raise UsageError(f"{folder} is not among the runs in {home.runs()}.", "Remove it by hand.")
    if not yes:
        name = console.messages().text(folder.name)
        typer.confirm(f"Remove {name} for good?", abort=True, err=True)
    if folder.is_symlink():
        folder.unlink()
    else:
        files.remove_folder(folder)
    console.show(f"Removed {folder.name}")


@app.command("import", cls=options.Command)
def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint: torch.save(model.state_dict(), …).")],
    model: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(LADDER)}.",
            callback=lambda name: parse_model(name, LADDER),
            autocompletion=lambda: list(LADDER),
        ),
    ],
    scaled: options.Scaled = False,
    data: options.Data = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.")] = None,
    json: options.Json = False,
) -> None:
    """Import a checkpoint of the original DrakeGPT as a run."""
    from drakegpt.config import resolve
    from drakegpt.data import dataset as datasets
    from drakegpt.runs.scores import score
    from drakegpt.runs.upstream import import_original

    dataset = datasets.load(data)
    config = resolve(model, "scaled" if scaled else "default", dataset.name)
    run = import_original(file, config, dataset, name)
    scores = score(run, config.device)
    if json:
        losses = {"train_loss": scores.train.loss, "val_loss": scores.val.loss}
        console.show_json({"run": str(run.folder), "model": model, "data": dataset.name} | losses)
        return
    console.show(
        f"Imported {file.name} as {run.name}: train loss {scores.train.loss:.4f}, "
        f"validation loss {scores.val.loss:.4f} nats per character on '{dataset.name}'"
    )
    console.next_commands([format_command("generate", run.name)])


def _summary(run: "Run") -> dict[str, Any]:
    metrics = run.metrics  # once, for they are read from the disk
    evaluations = [line for line in metrics if line["event"] == "evaluation"]
    reasons = {line["event"]: line["reason"] for line in metrics if line["event"] != "evaluation"}
    states = {"iterations": "finished", "patience": "stopped early", None: "unfinished"}
    state = states[reasons.get("finished")]
    return {
        "run": run.name,
        "model": run.config.model,
        "size": run.config.size,
        "data": run.config.data,
        "state": run.derived or reasons.get("stopped") or state,
        "iteration": evaluations[-1]["iteration"] if evaluations else 0,
        "val_loss": evaluations[-1]["val_loss"] if evaluations else None,
        "parts": [vars(part) for part in run.parts],
        "scored_on": run.config.select_on,
        "folder": str(run.folder),
    }


def _column(name: str, form: str) -> "Callable[[dict[str, Any]], str]":
    """Shows what a run's summary has under that name; nothing where it is not known."""
    return lambda row: format_or_blank(row.get(name), form)


def _loss(row: dict[str, Any]) -> str:
    tail = " (tail)" if row.get("scored_on") == "training-tail" else ""
    loss = format_or_blank(row.get("val_loss"), ".4f")
    return loss + tail if loss else ""


def _state(row: dict[str, Any]) -> str:
    parts = len(row.get("parts") or ())
    return row["state"] + (f", in {parts} parts" if parts > 1 else "")


_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("run", lambda row: row["run"].replace("\n", "\\n")),
    Column("iterations", _column("iteration", ","), 3),
    Column("validation", _loss, 1),
    Column("state", _state, 2),
)
