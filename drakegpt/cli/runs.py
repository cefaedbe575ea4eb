"""`drakegpt runs`: list, show, remove and import training runs."""

import os
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.inputs import prepare_if_file
from drakegpt.cli.tables import Column, show_table
from drakegpt.config import LADDER, parse_model
from drakegpt.errors import RunError, UsageError, suggest_name
from drakegpt.experiments.formatting import format_or_blank
from drakegpt.wording import SHORT_SPLITS, format_command, pluralize

if TYPE_CHECKING:
    from drakegpt.runs.run import Run

SHOWN_SAMPLES = 4  # of the texts that a run wrote while it was trained
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="The run's name, its beginning or its folder; latest or best.",
        autocompletion=options.complete_run,
    ),
]


def list_by_default(context: typer.Context, json: options.Json = False) -> None:
    """List, show, remove or import training runs. Without a command, list them."""
    if context.invoked_subcommand is None:
        list_(json)
    elif json:
        raise UsageError("--json goes after the command.", "As in `drakegpt runs list --json`.")


def list_(json: options.Json = False) -> None:
    """List all runs, oldest first. `drakegpt runs` does the same."""
    from drakegpt.runs.lookup import open_all_runs

    runs, unreadable = open_all_runs()
    readable = [_summarize(run) for run in runs]
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
        console.show_json({"runs": [*(row | {"problem": ""} for row in readable), *others]})
        return
    if not runs and not unreadable:
        console.note("No runs yet; `drakegpt train TransformerLM` makes one.")
        return
    others = [{"run": folder.name, "state": error.state} for folder, error in unreadable]
    show_table("", _COLUMNS, [*readable, *others])
    console.show("Losses: estimated while training; `drakegpt eval RUN` scores whole splits.")
    for folder, error in unreadable:
        console.warn(f"{folder.name}: {error.problem}")


def show(run: RunName, json: options.Json = False) -> None:
    """Show a run: its settings, evaluations, and what it wrote as its loss fell."""
    from drakegpt.config import files
    from drakegpt.runs.lookup import find_run
    from drakegpt.runs.stored_scores import count_validation_scorings

    found = find_run(run)
    scored = count_validation_scorings(found)
    if json:
        console.show_json(
            _summarize(found)
            | {
                "history": found.history,
                "validation_scorings": scored,
                "settings": asdict(found.config),
                "info": found.info,
                "metrics": found.metrics,
            }
        )
        return
    shown = _summarize(found) | found.info | {"parts": found.history}
    for key, value in shown.items():
        if key != "changes" and value != "":
            console.show(f"{key + ':':18}{value}")
    console.show(f"validation split scored {pluralize(scored, 'time')}, evaluations included")
    console.show("\n" + files.to_toml(found.config).rstrip() + "\n")
    part = SHORT_SPLITS[found.config.select_on]
    for line in found.evaluations:
        console.show(
            f"iteration {line['iteration']:>7,}  train {line['train_loss']:.4f}  "
            f"{part} {line['val_loss']:.4f}  lr {line['learning_rate']:.2e}"
        )
    _show_samples(found)


def _show_samples(run: "Run") -> None:
    """Show a few texts that the run wrote while it was trained, worst to best."""
    from drakegpt.runs.stored_samples import choose_samples, list_samples

    part = SHORT_SPLITS[run.config.select_on]
    for sample in choose_samples(list_samples(run.evaluations), SHOWN_SAMPLES):
        console.show(f"\nWritten at iteration {sample.iteration:,}, {part} {sample.val_loss:.4f}:")
        console.show_text(textwrap.indent(sample.text.strip("\n"), "  ", lambda _: True))


def remove(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Whole names or folders of runs.",
            autocompletion=options.complete_run,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
) -> None:
    """Remove runs, with everything in their folders."""
    from drakegpt import files

    folders = [_find_removed(run) for run in dict.fromkeys(runs)]
    if not yes:
        console.confirm_removal([folder.name for folder in folders])
    for folder in folders:
        if folder.is_symlink():
            folder.unlink()
        else:
            files.remove_folder(folder)
        console.show(f"Removed {folder.name}")


def _find_removed(run: str) -> Path:
    """Find the folder of a run by its whole name; it need not be readable."""
    from drakegpt import home
    from drakegpt.runs.lookup import list_run_names

    folder = Path(run) if "/" in run or os.sep in run else home.runs() / run
    if not run or run in (".", "..") or not folder.is_dir():
        raise RunError(
            f"There is no run named '{run}'.",
            f"{suggest_name(run, list_run_names())}"
            "Give its whole name, as `drakegpt runs` lists it, or its folder.",
        )
    if folder.parent.resolve() != home.runs().resolve():
        raise UsageError(
            f"{folder} is not among the runs in {home.runs()}.", "Remove that folder yourself."
        )
    return folder


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A checkpoint, saved with torch.save(model.state_dict(), …)."
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help=f"One of {', '.join(LADDER)}.",
            callback=lambda name: parse_model(name, LADDER),
            autocompletion=lambda: list(LADDER),
        ),
    ],
    data: options.Data = None,
    scaled: options.Scaled = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run.")] = None,
    json: options.Json = False,
) -> None:
    """Import a checkpoint of the original DrakeGPT as a run."""
    from drakegpt.cli.progress import score_with_progress
    from drakegpt.config import resolve
    from drakegpt.data import dataset as datasets
    from drakegpt.runs.upstream import import_original

    dataset = datasets.load(data and prepare_if_file(data))
    config = resolve(model, "scaled" if scaled else "default", dataset.name)
    run = import_original(file, config, dataset, name)
    scores = score_with_progress(run, config.device)
    if json:
        losses = {"train_loss": scores.train.loss, "val_loss": scores.val.loss}
        console.show_json({"run": str(run.folder), "model": model, "data": dataset.name} | losses)
        return
    console.show(
        f"Imported {file.name} as {run.name}: train loss {scores.train.loss:.4f}, "
        f"validation loss {scores.val.loss:.4f} nats per character on '{dataset.name}'"
    )
    console.next_commands([format_command("generate", run.name)])


def _summarize(run: "Run") -> dict[str, Any]:
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


def _model(row: dict[str, Any]) -> str:
    scaled = " (scaled)" if row.get("size") == "scaled" else ""
    return (row.get("model") or "") + scaled


def _loss(row: dict[str, Any]) -> str:
    tail = " (tail)" if row.get("scored_on") == "training-tail" else ""
    loss = format_or_blank(row.get("val_loss"), ".4f")
    return loss + tail if loss else ""


def _state(row: dict[str, Any]) -> str:
    parts = len(row.get("parts") or ())
    return row["state"] + (f", in {parts} parts" if parts > 1 else "")


_COLUMNS: tuple[Column[dict[str, Any]], ...] = (
    Column("run", lambda row: row["run"].replace("\n", "\\n")),
    Column("model", _model, 4),
    Column("data", lambda row: row.get("data") or "", 6),
    Column("iterations", lambda row: format_or_blank(row.get("iteration"), ","), 3),
    Column("validation", _loss, 1),
    Column("state", _state, 2),
)
