"""`drakegpt runs`: list the training runs, show one, remove one."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.errors import RunError, UsageError

if TYPE_CHECKING:
    from drakegpt.training.run import Run

app = typer.Typer(help="List, show, remove or import training runs.")

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's exact name or folder.")]


@app.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context, json: options.Json = False) -> None:
    if context.invoked_subcommand is None:
        list_(json)


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List all runs, oldest first; also what a bare `drakegpt runs` does."""
    from rich.table import Table
    from rich.text import Text

    from drakegpt.training.run import open_all_runs

    runs, unreadable = open_all_runs()
    if json:
        others = [
            {"run": run.folder.name, "state": run.state, "problem": run.problem}
            for run in unreadable
        ]
        console.show_json({"runs": [*map(_summary, runs), *others]})
        return
    if not runs and not unreadable:
        console.note("No runs yet; `drakegpt train TransformerLM` makes one.")
        return
    table = Table()
    table.add_column("run", overflow="fold")
    for column in ("iterations", "validation", "state"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in runs:
        summary = _summary(run)
        loss = f"{summary['val_loss']:.4f}" if summary["val_loss"] is not None else ""
        table.add_row(Text(run.name), f"{summary['iteration']:,}", loss, summary["state"])
    for other in unreadable:
        table.add_row(Text(other.folder.name), "", "", other.state)
    console.show(table)


@app.command()
def show(run: RunName, json: options.Json = False) -> None:
    """Show a run's settings, how it went, and where it is."""
    from drakegpt import config_files
    from drakegpt.evaluation.selection import find_run

    found = find_run(run)
    if json:
        from dataclasses import asdict

        console.show_json(
            _summary(found)
            | {"settings": asdict(found.config), "info": found.info, "metrics": found.metrics}
        )
        return
    for key, value in (_summary(found) | found.info).items():
        console.show(f"{key + ':':18}{value}")
    console.show("\n" + config_files.to_toml(found.config).rstrip() + "\n")
    for line in found.evaluations:
        console.show(
            f"iteration {line['iteration']:>7,}  train {line['train_loss']:.4f}  "
            f"val {line['val_loss']:.4f}  lr {line['learning_rate']:.2e}"
        )


@app.command()
def remove(
    run: RunName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
) -> None:
    """Remove a run's folder with everything in it, whole or damaged."""
    from drakegpt import paths

    folder = Path(run) if "/" in run or os.sep in run else paths.runs() / run
    if not run or run in (".", "..") or not folder.is_dir():
        raise RunError(
            f"There is no run named '{run}'.",
            "Give its exact name, as `drakegpt runs` lists it, or its folder.",
        )
    if folder.resolve().parent != paths.runs().resolve():
        raise UsageError(f"{folder} is not among the runs in {paths.runs()}.", "Remove it by hand.")
    if not yes:
        typer.confirm(f"Remove {folder.name} for good?", abort=True, err=True)
    shutil.rmtree(folder)
    console.show(f"Removed {folder.name}")


def _summary(run: "Run") -> dict[str, Any]:
    evaluations = run.evaluations
    ending = run.ending.get("reason")
    state = {"iterations": "finished", "patience": "stopped early", None: "unfinished"}[ending]
    return {
        "run": run.name,
        "model": run.config.model,
        "size": run.config.size,
        "data": run.config.data,
        "state": run.derived or run.stopped or state,
        "iteration": evaluations[-1]["iteration"] if evaluations else 0,
        "val_loss": evaluations[-1]["val_loss"] if evaluations else None,
        "folder": str(run.folder),
    }
