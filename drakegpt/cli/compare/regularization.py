"""`drakegpt compare --regularization`: a model that overfits, without and with regularizers."""

from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.compare.collecting import collect_all_runs, damaged_to_json
from drakegpt.cli.tables import Column, show_table
from drakegpt.experiments.formatting import describe_seeds, format_or_blank, format_range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.results import ResultRow


def compare_regularization(
    data: "Dataset",
    size: str,
    settings: dict[str, Any],
    *,
    seeds: int,
    train: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Show the loss with each regularizer; with `train`, train missing runs."""
    from drakegpt.experiments.experiment import list_seeds
    from drakegpt.experiments.plots import draw_regularization
    from drakegpt.experiments.regularization import plan, score_rows, summarize

    experiment = plan(settings, size, data, list_seeds(settings, seeds))
    collected = collect_all_runs(experiment, data, train=train, quiet=quiet)
    regularized = score_rows(collected, settings.get("device", "auto"))
    figures = [str(path) for path in draw_regularization(data.name, regularized)]
    if json:
        shown = [{"regularizer": name, **row.to_json()} for name, row in regularized.items()]
        result = {"data": data.name, "rows": shown, "findings": summarize(regularized)}
        damaged = damaged_to_json(collected.damaged)
        console.show_json(result | {"figures": figures, "damaged": damaged})
        return
    _render(data.name, regularized)
    for sentence in summarize(regularized):
        console.show(sentence)
    for path in figures:
        console.note(f"Figure: {path}")


def _render(data: str, regularized: "Mapping[str, ResultRow]") -> None:
    from drakegpt.experiments.regularization import best_val_loss
    from drakegpt.experiments.results import find_lowest

    best = find_lowest(regularized.values(), best_val_loss)
    title = f"Regularization on {data}"
    entries = list(regularized.items())
    show_table(title, _COLUMNS, entries, lambda entry: entry[1] in best)
    means = describe_seeds(len(row.seeds) for row in regularized.values())
    unit = entries[0][1].unit
    console.show(
        f"Losses: nats per {unit} over the whole splits. Best: the weights with the lowest "
        "estimate, which every run keeps (`generate --best`). They are chosen on the validation "
        "split that scores them here; early stopping and plateau decay use it as well. Overfits "
        "from: the iteration after which the validation loss rose while the training loss fell. "
        f"{means}".rstrip()
        + "\n"
    )


_COLUMNS: "tuple[Column[tuple[str, ResultRow]], ...]" = (
    Column("regularizer", lambda entry: entry[0]),
    Column("iterations", lambda entry: format_range(entry[1].lengths), 2),
    Column("train", lambda entry: f"{entry[1].train_loss:.4f}", 1),
    Column("validation", lambda entry: f"{entry[1].val_loss:.4f}"),
    Column("±", lambda entry: format_or_blank(entry[1].val_spread, ".4f"), 3),
    Column("best", lambda entry: f"{entry[1].best_val_loss:.4f}"),
    Column("overfits\nfrom", lambda entry: format_or_blank(entry[1].overfits_from, ",")),
    Column("seconds", lambda entry: format_or_blank(entry[1].seconds, ".1f"), 4),
)
