"""Loss curves in a terminal: a row of bars for each model, with its first and last loss."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from drakegpt.cli.console import styled
from drakegpt.cli.short_forms import sparkline

if TYPE_CHECKING:
    from rich.console import RenderableType

    from drakegpt.evaluation.baseline import Baseline
    from drakegpt.experiments.results import ResultRow

MAX_BARS = 40
MIN_BARS = 8
NUMBERS = 2 * 6 + 2  # columns of two losses and the gaps around the bars


def draw_curves(
    key: str, rows: "Sequence[ResultRow]", width: int, baselines: "Sequence[Baseline]" = ()
) -> "RenderableType":
    """Draw `key` ("train_loss" or "val_loss") of all rows, and the baselines, in `width` columns.

    Each curve is drawn between its own lowest and highest loss.
    """
    from rich.table import Table

    from drakegpt.experiments.plots import curve_label

    if not rows:
        return "no curves: imported and packed runs have none"
    shown = [curve_label(rows, row) if key == "val_loss" else row.label for row in rows]
    labels = shown + [baseline.label for baseline in baselines]
    bars = max(MIN_BARS, min(MAX_BARS, width - max(map(len, labels)) - NUMBERS))
    table = Table.grid(padding=(0, 1))
    longest = 0
    for label, row in zip(shown, rows, strict=True):
        losses = [evaluation[key] for evaluation in row.evaluations]
        curve = sparkline(losses, bars)
        longest = max(longest, len(curve))
        first, last = (f"{loss:.2f}" for loss in (losses[0], losses[-1]))
        table.add_row(label, first, styled(curve, "green"), last)
    for baseline in baselines:
        across = styled("╌" * longest, "dim")
        table.add_row(baseline.label, "", across, f"{baseline.score.loss:.2f}")
    return table
