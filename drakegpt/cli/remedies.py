"""`drakegpt compare --remedies`: a model that overfits, and what helps it, in one table."""

from typing import TYPE_CHECKING, Any

from drakegpt.cli import console
from drakegpt.cli.several import seeds_from, train_runs
from drakegpt.cli.tables import Column, show_table
from drakegpt.errors import RunError, UsageError
from drakegpt.evaluation.words import from_to, of_seeds, or_blank
from drakegpt.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from drakegpt.data.dataset import Dataset
    from drakegpt.experiments.results import Row
    from drakegpt.training.run import Run


def compare_remedies(
    data: "Dataset",
    size: str,
    settings: dict[str, Any],
    *,
    seeds: int,
    train: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Show what each remedy brings, over so many seeds; with `train`, train what is missing."""
    from drakegpt.experiments.figures import draw_remedies
    from drakegpt.experiments.regularization import findings, rows

    if settings.get("minutes") or settings.get("epochs"):
        raise UsageError("All remedies get as many iterations.", "Give --iters, or leave it out.")
    chosen = seeds_from(settings, seeds)
    runs = _runs(data, size, settings, chosen, train=train, quiet=quiet)
    remedied = rows(runs, settings.get("device", "auto"))
    figures = [str(path) for path in draw_remedies(data.name, remedied)]
    if json:
        shown = [{"remedy": name, **row.to_json()} for name, row in remedied.items()]
        console.show_json(
            {"data": data.name, "rows": shown, "findings": findings(remedied), "figures": figures}
        )
        return
    _render(data.name, remedied)
    for sentence in findings(remedied):
        console.show(sentence)
    for path in figures:
        console.note(f"Figure: {path}")


def _runs(
    data: "Dataset", size: str, settings: dict[str, Any], seeds: range, *, train: bool, quiet: bool
) -> "list[Mapping[str, Run]]":
    """The runs of each seed by their remedy; trained now if they are missing and shall be."""
    from drakegpt.evaluation.selection import runs_on
    from drakegpt.experiments.regularization import find_runs, plan

    plans = [plan(settings | {"seed": seed}, size, data) for seed in seeds]
    runs = runs_on(data)
    missing = [config for of_seed in plans for config in find_runs(of_seed, runs)[1].values()]
    if missing and not train:
        raise RunError(
            f"The table needs {counted(sum(map(len, plans)), 'run')} on '{data.name}'; "
            f"not trained yet: {len(missing)}.",
            "Train them: the same command with --train.",
        )
    train_runs(missing, data, quiet=quiet, go_on=True)
    runs = runs_on(data)
    return [find_runs(of_seed, runs)[0] for of_seed in plans]


def _render(data: str, remedied: "Mapping[str, Row]") -> None:
    from drakegpt.experiments.regularization import best_val_loss
    from drakegpt.experiments.results import lowest

    best = lowest(remedied.values(), best_val_loss)
    title = f"Remedies for overfitting, on {data}"
    entries = list(remedied.items())
    show_table(title, _COLUMNS, entries, lambda entry: entry[1] in best)
    means = of_seeds(len(row.seeds) for row in remedied.values())
    unit = entries[0][1].unit
    console.show(
        f"Losses: nats per {unit} over the whole splits. Best: of the weights whose estimate was "
        "lowest, which every run keeps (`generate --best`); like early stopping and plateau decay, "
        "they go by estimates of this very loss. Overfits from: the iteration after "
        f"which validation rose while training fell. {means}".rstrip()
        + "\n"
    )


_COLUMNS: "tuple[Column[tuple[str, Row]], ...]" = (
    Column("remedy", lambda entry: entry[0]),
    Column("iterations", lambda entry: from_to(entry[1].lengths), 2),
    Column("train", lambda entry: f"{entry[1].train_loss:.4f}", 1),
    Column("validation", lambda entry: f"{entry[1].val_loss:.4f}"),
    Column("±", lambda entry: or_blank(entry[1].val_spread, ".4f"), 3),
    Column("best", lambda entry: f"{entry[1].best_val_loss:.4f}"),
    Column("overfits\nfrom", lambda entry: or_blank(entry[1].overfits_from, ",")),
    Column("seconds", lambda entry: or_blank(entry[1].seconds, ".1f"), 4),
)
