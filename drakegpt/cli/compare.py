"""`drakegpt compare`: the ladder in one table, its curves, its claims, its voices."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drakegpt.cli import console, options
from drakegpt.cli.few_bits import SEEDS, compare_bits
from drakegpt.cli.tables import Column, fitting
from drakegpt.cli.train import choose_dataset, start_run, train_and_score
from drakegpt.config import SIZES
from drakegpt.errors import RunError, UsageError

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.evaluation.comparison import Comparison, Row
    from drakegpt.evaluation.ngrams import Floor
    from drakegpt.training.run import Run

SAMPLE_LENGTH = 160
# Settings that would make the ladder something else.
WITHOUT = ("bits", "scale", "init_from", "preset", "tie_embeddings")
_VERDICTS = {True: "[green]true[/]", False: "[yellow]not so[/]", None: "[dim]unknown[/]"}


@partial(options.with_settings, without=WITHOUT)
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
    bits: Annotated[
        bool,
        typer.Option(
            "--bits", help="Instead of the ladder: TransformerLM with weights of fewer bits."
        ),
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="With --bits: how many seeds, from --seed on; 3.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the latest run of each model on a dataset: one table, both curves, samples.

    Settings choose among the runs: with --iters 2000, only runs of 2,000 iterations count.
    """
    from drakegpt.evaluation.comparison import compare as compare_runs
    from drakegpt.evaluation.comparison import select_others, select_runs

    dataset = choose_dataset(data)
    if bits:
        size, seeds = ("scaled" if scaled else "default"), seeds or SEEDS
        compare_bits(dataset, size, settings, seeds=seeds, train=train, json=json, quiet=quiet)
        return
    if seeds is not None:
        raise UsageError("--seeds goes with --bits.", "Add --bits, or give one --seed.")
    sizes = ["scaled"] if scaled else (["default"] if train else SIZES)
    device = settings.get("device", "auto")
    settings |= _length(dataset, sizes[0], settings)
    # Where to compute and how long a trial may take do not make a run another one.
    identity = {k: v for k, v in settings.items() if k not in ("device", "minutes", "wandb")}
    if train:
        identity = {"recipe": "original"} | identity
        _train_missing(dataset, sizes[0], settings, identity, quiet=quiet)
    runs = select_runs(dataset, sizes, identity)
    others = [] if train else select_others(dataset, sizes, identity)
    if not runs and not others:
        such = " with these settings" if identity else ""
        raise RunError(
            f"No model is trained on '{dataset.name}'{such} yet.",
            f"Train all six: `drakegpt compare --train --data {dataset.name}`.",
        )
    if not json:
        console.note(f"Scoring {len(runs) + len(others)} runs on the whole of '{dataset.name}'.")
    comparison = compare_runs(dataset, runs, device, others)
    _show(comparison, [*runs.values(), *others], device, json=json)


def _show(comparison: "Comparison", runs: "list[Run]", device: str, *, json: bool) -> None:
    """Table, curves and samples, and what to do about what is missing or unlike."""
    from drakegpt.evaluation.figures import draw_bits, draw_curves
    from drakegpt.evaluation.samples import SEED, sample

    data = comparison.data
    figures = draw_curves(data, comparison.rows, comparison.floors_in_sight)
    if comparison.others:
        figures += draw_bits(data, [*comparison.rows, *comparison.others])
    samples = {run.name: sample(run, SAMPLE_LENGTH, device) for run in runs}
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
    for model, size in comparison.missing:
        flag = " --scaled" if size == "scaled" else ""
        make = f"drakegpt train {model}{flag} --data {data}"
        console.warn(f"no finished run of {model}: `{make}` makes one")
    console.next_commands([f"drakegpt generate --data {data} --length 500"])


def _length(dataset: "Dataset", size: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Epochs in iterations: as many for each model."""
    from drakegpt.config import resolve
    from drakegpt.training.budget import length_of

    if not settings.get("epochs"):
        return {}
    return length_of(resolve("TransformerLM", size, dataset.name, settings), dataset)


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

    rows = [*comparison.rows, *comparison.others]
    best = min(row.bits_per_character for row in rows)
    title = f"The ladder on {comparison.data}"
    columns = _columns(comparison.unit)
    console.show(fitting(title, columns, rows, lambda row: row.bits_per_character == best))
    console.show(
        f"Losses: nats per {comparison.unit} over the whole splits. Gain: how far validation fell "
        "from the rung before. Published: the original's formula for this vocabulary."
    )
    if any(row.unit != comparison.unit for row in rows):
        console.show(
            "Losses per token of other length stand for something else, so only bits per character "
            "are shown for those."
        )
    console.show("")
    _render_floors(comparison)
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
        floors = comparison.floors_in_sight if key == "val_loss" else ()
        console.show(curves(key, trained, console.results(), floors))
    console.show(Text("The same seed, written by each:", style="bold"))
    for row in rows:
        console.show(Text(f"\n{row.label}", style="bold cyan"))
        console.show(samples[row.run].strip("\n"))


def _render_floors(comparison: "Comparison") -> None:
    """The table of what counting reaches, and which rows are beyond the counts of pairs."""
    floors = comparison.floors
    lowest = min(floor.score.loss for floor in floors)
    title = "What counting alone reaches"
    console.show(fitting(title, _FLOOR_COLUMNS, floors, lambda f: f.score.loss == lowest))
    unit = "characters" if floors[0].per_character else "tokens"
    longest = " (the longest of these runs)" if len(comparison.context_lengths) > 1 else ""
    console.show(
        f"Order: how many neighbouring {unit} are counted together, on the training split. Scored "
        f"as the models are, in windows of {floors[0].context_length} {unit}{longest}."
    )
    rows = [*comparison.rows, *comparison.others]
    beyond = [row.label for row in rows if row in comparison.beyond_pairs]
    others = [row.label for row in rows if row not in comparison.beyond_pairs]
    not_these = f"; not {', '.join(others)}" if beyond and others else ""
    console.show(
        f"Learnt more than counting pairs: {', '.join(beyond) or 'none of these'}{not_these}.\n"
    )


def _or_blank(value: float | None, format_: str) -> str:
    return "" if value is None else format(value, format_)


def _columns(unit: str) -> "tuple[Column[Row], ...]":
    """The columns; losses of rows with other units than the ladder's are left blank."""

    def alike(row: "Row", figure: str) -> str:
        return figure if row.unit == unit else ""

    return (
        Column("model", lambda row: row.label),
        Column("parameters", lambda row: f"{row.parameters:,}", 2),
        Column("published", lambda row: _or_blank(row.published, ","), 6),
        Column("train", lambda row: alike(row, f"{row.train_loss:.4f}"), 1),
        Column("validation", lambda row: alike(row, f"{row.val_loss:.4f}")),
        Column("gain", lambda row: _or_blank(row.val_gain, "+.4f"), 3),
        Column("bits/char", lambda row: f"{row.bits_per_character:.3f}", 4),
        Column("perplexity", lambda row: alike(row, f"{row.perplexity:.2f}"), 7),
        Column("tokens/s", lambda row: _or_blank(row.tokens_per_second, ",.0f"), 8),
        Column("seconds", lambda row: _or_blank(row.seconds, ".1f"), 5),
    )


_FLOOR_COLUMNS: "tuple[Column[Floor], ...]" = (
    Column("order", lambda floor: str(floor.order)),
    Column("validation", lambda floor: f"{floor.score.loss:.4f}"),
    Column("bits/char", lambda floor: f"{floor.score.bits_per_character:.3f}", 1),
)
