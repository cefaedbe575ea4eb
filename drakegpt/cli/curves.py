"""Loss curves in a terminal: coloured dots, or bars where there is no colour."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from drakegpt.cli.progress import sparkline
from drakegpt.config import LADDER
from drakegpt.evaluation.words import ENTROPY

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from drakegpt.evaluation.ngrams import Floor
    from drakegpt.evaluation.rows import Row

HEIGHT = 12
MARGIN = 24  # what the axis and its labels take of the width
NARROWEST = 50
BARS = 20
# One of the terminal's own colours per rung: they suit dark and light backgrounds.
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
FLOOR_COLOUR = "bright_black"


def curves(
    key: str,
    rows: "Sequence[Row]",
    screen: "Console",
    floors: "Sequence[Floor]" = (),
    entropy: float | None = None,
) -> "RenderableType":
    """Draw `key` ("train_loss" or "val_loss") of all rows over the iterations, and the floors.

    So too the entropy of the source, in the unit of the losses, where it is known.
    """
    if not rows:
        return "no curves: imported and packed runs have none"
    if screen.color_system is None or screen.no_color or screen.width < NARROWEST:
        return _bars(key, rows, floors, entropy)
    return _dots(key, rows, screen, floors, entropy)


def _bars(
    key: str, rows: "Sequence[Row]", floors: "Sequence[Floor]", entropy: float | None
) -> "RenderableType":
    """One row of bars per run, each on its own scale, with its first and last loss."""
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    for row in rows:
        losses = [evaluation[key] for evaluation in row.evaluations]
        table.add_row(row.label, f"{losses[0]:.2f}", sparkline(losses, BARS), f"{losses[-1]:.2f}")
    for floor in floors:
        table.add_row(floor.label, "", "╌" * BARS, f"{floor.score.loss:.2f}")
    if entropy is not None:
        table.add_row(ENTROPY, "", "─" * BARS, f"{entropy:.2f}")
    return table


def _dots(
    key: str,
    rows: "Sequence[Row]",
    screen: "Console",
    floors: "Sequence[Floor]",
    entropy: float | None,
) -> "RenderableType":
    """All runs on one pair of axes."""
    import plotille
    from rich.columns import Columns
    from rich.console import Group
    from rich.text import Text

    losses = [evaluation[key] for row in rows for evaluation in row.evaluations]
    shown = losses + [floor.score.loss for floor in floors]
    shown += [] if entropy is None else [entropy]
    span = max(shown) - min(shown) or 1.0
    figure = plotille.Figure()
    figure.width, figure.height = min(72, screen.width - MARGIN), HEIGHT
    figure.x_label, figure.y_label = "iteration", "nats"
    figure.color_mode = "names"
    figure.origin = False
    last = max(row.evaluations[-1]["iteration"] for row in rows)
    figure.set_x_limits(0, last)
    figure.set_y_limits(min(shown) - 0.02 * span, max(shown) + 0.02 * span)
    for number_type in (int, float):
        figure.register_label_formatter(number_type, _tick)
    legend = []
    for floor in floors:
        # Single dots, wider apart for the order 1: a line of its own looks like a curve.
        dots = figure.width // (1 if floor.order > 1 else 3)
        across = [last * dot / dots for dot in range(dots + 1)]
        figure.scatter(across, [floor.score.loss] * len(across), lc=FLOOR_COLOUR)
        dash = "╌" if floor.order > 1 else "┈"
        legend.append(Text(f"{dash} {floor.label}", style=FLOOR_COLOUR))
    if entropy is not None:
        figure.plot([0, last], [entropy] * 2)  # in the terminal's own colour
        legend.append(Text(f"─ {ENTROPY}"))
    for row in rows:
        colour = COLOURS[LADDER.index(row.model)]
        figure.plot(
            [evaluation["iteration"] for evaluation in row.evaluations],
            [evaluation[key] for evaluation in row.evaluations],
            lc=colour,
        )
        legend.append(Text(f"━ {row.label}", style=colour))
    return Group(Text.from_ansi(figure.show()), Columns(legend, padding=(0, 2)))


def _tick(value: float, chars: int, left: bool = False, **_: Any) -> str:
    """A number on an axis: iterations whole, losses with two digits."""
    text = f"{value:,.0f}" if value == 0 or abs(value) >= 50 else f"{value:.2f}"
    return text.ljust(chars) if left else text.rjust(chars)
