"""`drakegpt compare --recipe-steps`: what each idea of the best recipe brings."""

from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.compare.collecting import collect_all_runs, damaged_to_json
from drakegpt.cli.tables import Column, show_table
from drakegpt.experiments.formatting import NOISE, describe_seeds, format_or_blank

if TYPE_CHECKING:
    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.recipe_steps import StepRow


def compare_recipe_steps(
    data: "Dataset",
    size: str,
    settings: dict[str, Any],
    *,
    seeds: int,
    train: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Show the loss with one more idea at a time; with `train`, train missing runs."""
    from drakegpt.experiments.experiment import list_seeds
    from drakegpt.experiments.recipe_steps import plan, score_rows

    experiment = plan(settings, size, data, list_seeds(settings, seeds))
    collected = collect_all_runs(experiment, data, train=train, quiet=quiet)
    rows = score_rows(collected, settings.get("device", "auto"))
    if json:
        shown = [row.to_json() for row in rows]
        damaged = damaged_to_json(collected.damaged)
        console.show_json({"data": data.name, "rows": shown, "damaged": damaged})
        return
    title = f"What each idea of recipe best brings, on {data.name}"
    show_table(title, _COLUMNS, rows)
    unit = data.tokenizer.unit
    means = describe_seeds(len(row.val_losses) for row in rows)
    console.show(
        f"Losses: nats per {unit} over the whole splits, of the last weights. Each row has "
        "the ideas of those above it. Counts: n-grams of the training split, with weights that "
        "were fitted on other texts. Seconds: training of a run, or of all runs of an ensemble. "
        f"{NOISE} {means}".rstrip()
    )


_COLUMNS: "tuple[Column[StepRow], ...]" = (
    Column("recipe", lambda row: row.name),
    Column("iterations", lambda row: f"{row.iterations:,}", 2),
    Column("validation", lambda row: f"{row.val_loss:.4f}"),
    Column("±", lambda row: format_or_blank(row.spread, ".4f"), 1),
    Column("Δ", lambda row: row.formatted_change),
    Column("seconds", lambda row: format_or_blank(row.seconds, ".0f"), 3),
)
