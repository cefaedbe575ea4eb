"""Loss curves in a terminal: coloured dots, or bars where there is no colour."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from drakegpt.cli.progress import sparkline
from drakegpt.config import LADDER
from drakegpt.evaluation.words import ENTROPY

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from drakegpt.evaluation.ngrams import Floor
    from drakegpt.evaluation.rows import Row

HEIGHT = 12
MARGIN = 8  # columns left of the plot: the losses and the axis
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

    lines = [_finite((e["iteration"], e[key]) for e in row.evaluations) for row in rows]
    shown = [loss for line in lines for _, loss in line] + [floor.score.loss for floor in floors]
    shown += [] if entropy is None else [entropy]
    last = max(row.evaluations[-1]["iteration"] for row in rows) or 1
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    edge = 0.02 * (high - low) or 0.5
    low, high = low - edge, high + edge
    width = min(72, screen.width - MARGIN)
    beyond = last * (1 + 0.5 / width)  # a point on the edge is not drawn
    canvas = plotille.Canvas(width, HEIGHT, 0, low, beyond, high, mode="names")
    legend = []
    for floor in floors:
        # Single dots, wider apart for the order 1: a line of its own looks like a curve.
        dots = width // (1 if floor.order > 1 else 3)
        for dot in range(dots):
            canvas.point(beyond * (dot + 0.5) / dots, floor.score.loss, color=FLOOR_COLOUR)
        dash = "╌" if floor.order > 1 else "┈"
        legend.append(Text(f"{dash} {floor.label}", style=FLOOR_COLOUR))
    if entropy is not None:
        canvas.line(0, entropy, last, entropy)  # in the terminal's own colour
        legend.append(Text(f"─ {ENTROPY}"))
    for row, line in zip(rows, lines, strict=True):
        colour = COLOURS[LADDER.index(row.model)]
        for x, y in line[:1]:  # all there is of a curve of one evaluation
            canvas.point(x, y, color=colour)
        for (x, y), (next_x, next_y) in pairwise(line):
            canvas.line(x, y, next_x, next_y, color=colour)
        legend.append(Text(f"━ {row.label}", style=colour))
    plot = _beside_axes(canvas.plot().split("\n"), width, low, high, last)
    return Group(Text.from_ansi(plot), Columns(legend, padding=(0, 2)))


def _finite(points: "Iterable[tuple[int, float]]") -> list[tuple[int, float]]:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _beside_axes(rows: list[str], width: int, low: float, high: float, last: int) -> str:
    """A plot of `width` columns with losses from `low` to `high` beside it, iterations below."""
    losses, digits = _ticks(low, high, len(rows) // 3)
    at = {int((high - loss) / (high - low) * len(rows)): loss for loss in losses}
    lines = [f"{'nats':>{MARGIN - 3}}"]
    for number, row in enumerate(rows):
        label = f"{at[number]:{MARGIN - 3}.{digits}f} ┤" if number in at else "│"
        lines.append(f"{label:>{MARGIN - 1}}{row}")
    axis, below = ["─"] * width, ""
    for iteration in _ticks(0, last, min(last, width // 12))[0]:
        place, label = round(iteration / last * (width - 1)), f"{iteration:,.0f}"
        axis[place] = "┬"
        end = min(width, place + (len(label) + 1) // 2)
        below += label.rjust(end - len(below))
    margin = " " * (MARGIN - 1)
    lines += [f"{'└':>{MARGIN - 1}}{''.join(axis)}", margin + below]
    return "\n".join([*lines, margin + "iteration".rjust(width)])


def _ticks(low: float, high: float, at_most: int) -> tuple[list[float], int]:
    """Round numbers from `low` to `high`, and how many digits they have after the point."""
    rough = (high - low) / max(1, at_most)
    power = math.floor(math.log10(rough))
    step = next(n * 10.0**power for n in (1, 2, 5, 10) if n * 10.0**power >= rough)
    first, end = math.ceil(low / step), math.floor(high / step)
    return [n * step for n in range(first, end + 1)], max(0, -math.floor(math.log10(step)))
