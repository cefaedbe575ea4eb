"""`drakegpt compare`: the ladder in one table, its curves, its claims, its voices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.train import choose_dataset, start_run, train_and_score
from drakegpt.config import SIZES
from drakegpt.errors import RunError

if TYPE_CHECKING:
    from rich.table import Table

    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.comparison import Comparison, Row

SAMPLE_LENGTH = 160
_VERDICTS = {True: "[green]true[/]", False: "[yellow]not so[/]", None: "[dim]unknown[/]"}


@options.with_settings
def compare(
    settings: dict[str, Any],
    data: options.Data = None,
    train: Annotated[
        bool,
        typer.Option("--train", help="First train the models without such a run."),
    ] = False,
    scaled: Annotated[
        bool, typer.Option("--scaled", help="The scaled size only; with --train, train that size.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the latest run of each model on a dataset: one table, both curves, samples.

    Settings choose among the runs: with --iters 2000, only runs of 2,000 iterations count.
    """
    from drakegpt.evaluation.comparison import compare as compare_runs
    from drakegpt.evaluation.comparison import select_runs
    from drakegpt.evaluation.figures import draw_curves
    from drakegpt.evaluation.samples import SEED, sample

    dataset = choose_dataset(data)
    sizes = ["scaled"] if scaled else (["default"] if train else SIZES)
    device = settings.get("device", "auto")
    # Where to compute and how long a trial may take do not make a run another one.
    identity = {k: v for k, v in settings.items() if k not in ("device", "minutes", "wandb")}
    if train:
        identity = {"recipe": "original"} | identity
        _train_missing(dataset, sizes[0], settings, identity, quiet=quiet)
    runs = select_runs(dataset, sizes, identity)
    if not runs:
        such = " with these settings" if identity else ""
        raise RunError(
            f"No model is trained on '{dataset.name}'{such} yet.",
            f"Train all six: `drakegpt compare --train --data {dataset.name}`.",
        )
    if not json:
        console.note(f"Scoring {len(runs)} runs on the whole of '{dataset.name}'.")
    comparison = compare_runs(dataset.name, runs, device)
    figures = draw_curves(dataset.name, comparison.rows)
    samples = {run.name: sample(run, SAMPLE_LENGTH, device) for run in runs.values()}
    if json:
        result = comparison.to_json()
        result["figures"] = [str(path) for path in figures]
        result["samples"] = {"seed": SEED, "texts": samples}
        console.show_json(result)
        return
    _render(comparison, samples)
    for path in figures:
        console.note(f"Figure: {path}")
    trained = sorted({row.iterations for row in comparison.rows if row.iterations})
    if len(trained) > 1:
        listed = ", ".join(f"{iterations:,}" for iterations in trained)
        console.warn(
            f"these runs differ in length ({listed} iterations); `drakegpt compare --train "
            f"--iters {trained[-1]}` makes them alike"
        )
    for model, missing_size in comparison.missing:
        flag = " --scaled" if missing_size == "scaled" else ""
        console.warn(
            f"no finished run of {model}: `drakegpt train {model}{flag} --data {dataset.name}` "
            "makes one"
        )
    console.next_commands([f"drakegpt generate --data {dataset.name} --length 500"])


def _train_missing(
    dataset: "Dataset",
    size: str,
    settings: dict[str, Any],
    identity: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    from drakegpt.evaluation.comparison import missing_models, select_runs

    missing = missing_models(select_runs(dataset, [size], identity), [size])
    for number, (model, _) in enumerate(missing, 1):
        if not quiet:
            console.note(f"{number} of {len(missing)}: {model} on '{dataset.name}'", style="bold")
        run = start_run(settings | {"model": model, "size": size}, dataset)
        train_and_score(run, quiet=quiet)
    if not missing and not quiet:
        console.note("All models have a run with these settings; none to train.")


def _render(comparison: "Comparison", samples: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from drakegpt.cli.curves import curves

    console.show(_table(comparison))
    console.show(
        "Losses: nats per character over the whole splits. Gain: how far validation fell from the "
        "rung before. Published: the original's formula for this vocabulary.\n"
    )
    if comparison.claims:
        console.show(Text("What the original claims, in these runs:", style="bold"))
    claims = Table.grid(padding=(0, 1))
    for claim in comparison.claims:
        verdict = _VERDICTS[claim.holds]
        claims.add_row(verdict, Text(f"{claim.claim} {claim.finding}"))
    console.show(claims)
    for key, title in (("train_loss", "Training loss"), ("val_loss", "Validation loss")):
        console.show(Text(f"\n{title}, estimated while training", style="bold"))
        trained = [row for row in comparison.rows if row.evaluations]
        console.show(curves(key, trained, console.results()))
    console.show(Text("The same seed, written by each:", style="bold"))
    for row in comparison.rows:
        console.show(Text(f"\n{row.label}", style="bold cyan"))
        console.show(samples[row.run].strip("\n"))


def _or_blank(value: float | None, format_: str) -> str:
    return "" if value is None else format(value, format_)


@dataclass(frozen=True)
class _Column:
    """A column of the table, and how soon a narrow terminal does without it (0: never)."""

    title: str
    value: Callable[["Row"], str]
    sooner: int


_COLUMNS = (
    _Column("model", lambda row: row.label, 0),
    _Column("parameters", lambda row: f"{row.parameters:,}", 2),
    _Column("published", lambda row: f"{row.published:,}", 6),
    _Column("train", lambda row: f"{row.train_loss:.4f}", 1),
    _Column("validation", lambda row: f"{row.val_loss:.4f}", 0),
    _Column("gain", lambda row: _or_blank(row.val_gain, "+.4f"), 3),
    _Column("bits/char", lambda row: f"{row.bits_per_character:.3f}", 4),
    _Column("perplexity", lambda row: f"{row.perplexity:.2f}", 7),
    _Column("tokens/s", lambda row: _or_blank(row.tokens_per_second, ",.0f"), 8),
    _Column("seconds", lambda row: _or_blank(row.seconds, ".1f"), 5),
)


def _table(comparison: "Comparison") -> "Table":
    """The widest choice of columns that fits the screen."""
    columns = list(_COLUMNS)
    width = console.results().width
    table = _built(comparison, columns)
    while columns and table.__rich_measure__(*_unbounded()).maximum > width:
        expendable = max(columns, key=lambda column: column.sooner)
        if not expendable.sooner:
            break
        columns.remove(expendable)
        table = _built(comparison, columns)
    return table


def _built(comparison: "Comparison", columns: Sequence[_Column]) -> "Table":
    from rich.table import Table

    hidden = ", ".join(column.title for column in _COLUMNS if column not in columns)
    table = Table(
        title=f"The ladder on {comparison.data}",
        title_justify="left",
        caption=f"Left out: {hidden}. Widen the window or use --json." if hidden else None,
        caption_justify="left",
    )
    best = min(row.val_loss for row in comparison.rows)
    for column in columns:
        left = column.title == "model"
        table.add_column(column.title, justify="left" if left else "right", no_wrap=True)
    for row in comparison.rows:
        style = "bold green" if row.val_loss == best else None
        table.add_row(*(column.value(row) for column in columns), style=style)
    return table


def _unbounded() -> tuple[Any, Any]:
    screen = console.results()
    return screen, screen.options.update(max_width=10_000)
