"""The report's figures, and what each of them shows in words.

Both come from the same rows, so the words that stand for a picture are as true
as the picture. Rows are told apart by a sign as well as by a colour.

Not here: how a figure becomes part of the page (`inline_svg`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drakegpt.config import LADDER
from drakegpt.evaluation.baseline import Baseline
from drakegpt.experiments.figures import (
    STYLES,
    TAIL,
    draw_turn,
    has_tail,
    has_validation,
    label_in,
    title_of,
    turn_of,
)
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.results import ResultRow
from drakegpt.report.inline_svg import stand_in_for, to_inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (4.7, 3.8)
POINTS = 11.0  # of the letters: on a phone the figure is about as wide as its inches
LINE = 0.062  # of the height of the axes: how far signs beside lines stand apart
# What a figure may hold besides a line for each run, and what it means.
LEGEND = {
    "mean": "Where a model has several seeds, its line is their mean.",
    "band": "The band around it reaches from the lowest seed to the highest.",
    "counts": "Dashed across: what counting alone reaches.",
    "turn": "A triangle marks where a model begins to overfit.",
    "tail": TAIL,
}


@dataclass(frozen=True)
class Mark:
    """What tells a row apart wherever it occurs."""

    sign: str  # the rung, with an s for the scaled size; letters beside the ladder
    stand_in_for: str  # its CSS variable
    label: str


@dataclass(frozen=True)
class Picture:
    """A figure for the page."""

    caption: str
    description: str  # in words and numbers
    svg: str
    holds: frozenset[str]  # of `LEGEND`


def explain_signs(drawn: Sequence[Picture]) -> list[str]:
    """What the signs in these figures mean: of those that occur in one of them."""
    held = {sign for picture in drawn for sign in picture.holds}
    return [meaning for sign, meaning in LEGEND.items() if sign in held]


def assign_marks(comparison: Comparison) -> dict[str, Mark]:
    """The mark of each row, by the name of its first run."""
    marks = {}
    for row in comparison.rows:
        rung = LADDER.index(row.model) + 1
        sign = f"{rung}s" if row.size == "scaled" else str(rung)
        marks[row.runs[0]] = Mark(sign, f"rung-{rung}", row.label)
    for number, row in enumerate(comparison.others):
        marks[row.runs[0]] = Mark(_to_letters(number), "other", row.label)
    return marks


def _to_letters(number: int) -> str:
    """0, 1, 2, … as a, b, …, z, aa, ab, …"""
    more, last = divmod(number, 26)
    return (_to_letters(more - 1) if more else "") + chr(ord("a") + last)


def draw_plots(comparison: Comparison, marks: Mapping[str, Mark]) -> list[Picture]:
    """All there is to draw: both losses, and bits per character over time beside the ladder.

    Only what was recorded while training can be drawn; imported runs have no curves.
    """
    trained = [row for row in comparison.rows if row.evaluations]
    drawn = []
    if trained:
        baselines = comparison.baselines_in_view if has_validation(trained) else ()
        drawn.append(_curves("val_loss", trained, marks, baselines))
        drawn.append(_curves("train_loss", trained, marks, ()))
    every = [row for row in (*comparison.rows, *comparison.others) if row.evaluations]
    if any(row in comparison.others for row in every):
        drawn.append(_bits(every, marks))
    return drawn


def _curves(
    key: str, rows: Sequence[ResultRow], marks: Mapping[str, Mark], baselines: Sequence[Baseline]
) -> Picture:
    """One loss over the iterations, and across it the baselines."""
    unit, title = rows[0].unit, title_of(key, rows)
    caption = f"{title} while training{_of_tail(rows) if key == 'val_loss' else ''}"
    figure, axes = _figure("iteration", f"nats per {unit}")
    ends, holds = [], set()
    for row in rows:
        mark = marks[row.runs[0]]
        points = _finite((e["iteration"], e[key]) for e in row.evaluations)
        holds |= _line(axes, points, row, mark) | _band(axes, key, row, mark)
        if key == "val_loss":
            holds |= _turn(axes, row, mark) | _tail(row)
        ends += [(mark, points[-1])] if points else []
    for baseline in baselines:
        holds |= _level(axes, baseline)
    _sign(axes, ends)
    words = [
        f"{title} in nats per {unit}, estimated while training, one line for each model.",
        *(_falls(row, key, label_in(rows, row)) for row in rows),
        *(f"Across: {baseline.label}, {baseline.score.loss:.2f}." for baseline in baselines),
    ]
    svg = to_inline_svg(figure, key.replace("_", "-"), caption, " ".join(words))
    return Picture(caption, " ".join(words), svg, frozenset(holds))


def _bits(rows: Sequence[ResultRow], marks: Mapping[str, Mark]) -> Picture:
    """Bits per character over time, of all rows, whatever their tokens.

    An estimate in nats per token becomes bits per character as the row's exact loss does.
    """
    figure, axes = _figure("seconds of training, with evaluations", "bits per character")
    ends, holds = [], set()
    for row in rows:
        bits = row.bits_per_character / row.val_loss
        points = _finite((e["seconds"], bits * e["val_loss"]) for e in row.evaluations)
        holds |= _line(axes, points, row, marks[row.runs[0]]) | _tail(row)
        ends += [(marks[row.runs[0]], points[-1])] if points else []
    _sign(axes, ends)
    caption = f"Bits per character over time{_of_tail(rows)}"
    what = title_of("val_loss", rows)
    words = f"{what} in bits per character over the seconds of training. " + " ".join(
        f"{mark.label} ends at {y:.2f} after {x:,.0f} s." for mark, (x, y) in ends
    )
    return Picture(caption, words, to_inline_svg(figure, "bits", caption, words), frozenset(holds))


def _figure(below: str, beside: str) -> "tuple[Figure, Axes]":
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ink, muted = stand_in_for("ink"), stand_in_for("muted")
    look: dict[Any, Any] = {
        "font.size": POINTS, "text.color": ink, "axes.labelcolor": muted, "axes.edgecolor": muted,
        "xtick.color": muted, "ytick.color": muted, "grid.color": stand_in_for("grid"),
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
        "axes.grid.axis": "y",
    }  # fmt: skip
    with rc_context(look):
        figure = Figure(figsize=INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(xlabel=below, ylabel=beside)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # what a phone has room for
    return figure, axes


def _finite(points: Any) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y)]


# What follows draws a part of a figure, and says which signs of `LEGEND` it has drawn.


def _line(
    axes: "Axes", points: Sequence[tuple[float, float]], row: ResultRow, mark: Mark
) -> set[str]:
    axes.plot(
        *(zip(*points, strict=True) if points else ([], [])),
        color=stand_in_for(mark.colour),
        linestyle=STYLES[row.size],
        linewidth=2,
        marker="." if len(points) < 30 else None,
        markersize=5,
    )
    return {"mean"} if len(row.histories) > 1 else set()


def _band(axes: "Axes", key: str, row: ResultRow, mark: Mark) -> set[str]:
    """From the lowest seed to the highest."""
    if len(row.histories) == 1:
        return set()
    x, low, high = zip(*row.band(key), strict=True)
    axes.fill_between(x, low, high, color=stand_in_for(mark.colour), alpha=0.2, linewidth=0)
    return {"band"}


def _turn(axes: "Axes", row: ResultRow, mark: Mark) -> set[str]:
    """A triangle where a row began to overfit."""
    turn = turn_of(row)
    if turn is None:
        return set()
    draw_turn(axes, turn, stand_in_for(mark.colour))
    return {"turn"}


def _tail(row: ResultRow) -> set[str]:
    """Nothing to draw; but it is to be told what a tail is."""
    return {"tail"} if has_tail([row]) else set()


def _of_tail(rows: Sequence[ResultRow]) -> str:
    """Which of the curves are of the tail, for a caption."""
    of_tail = [row.label for row in rows if has_tail([row])]
    if not of_tail:
        return ""
    return f" (tail: {', '.join(of_tail)})" if has_validation(rows) else ""


def _level(axes: "Axes", baseline: Baseline) -> set[str]:
    """A dashed line from edge to edge with its name on it."""
    axes.axhline(
        baseline.score.loss, color=stand_in_for("muted"), linewidth=1, linestyle=(0, (5, 3))
    )
    axes.annotate(
        baseline.label,
        (1, baseline.score.loss),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        horizontalalignment="right",
        color=stand_in_for("muted"),
        fontsize=POINTS - 1,
    )
    return {"counts"}


def _sign(axes: "Axes", ends: Sequence[tuple[Mark, tuple[float, float]]]) -> None:
    """Write the sign of each line beside its end, apart from the others."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    places = _spread_out([(y - low) / (high - low) for _, (_, y) in ends], LINE)
    for (mark, end), place in zip(ends, places, strict=True):
        axes.annotate(
            mark.sign,
            end,
            xytext=(1.04, place),
            textcoords="axes fraction",
            color=stand_in_for(mark.colour),
            fontweight="bold",
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": stand_in_for(mark.colour), "linewidth": 0.6},
        )


def _spread_out(values: Sequence[float], gap: float) -> list[float]:
    """Places at least `gap` apart, in the order of the values and as near to them as can be.

    Least squares: neighbours that would be too close form a group around their mean.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[list[float]] = []  # the members of each, less the room that they need
    for place, index in enumerate(order):
        groups.append([values[index] - place * gap])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    means = [_mean(group) for group in groups for _ in group]
    spread = {index: means[place] + place * gap for place, index in enumerate(order)}
    return [spread[index] for index in range(len(values))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _falls(row: ResultRow, key: str, label: str) -> str:
    """What a row's curve does, in a sentence."""
    points = _finite((e["iteration"], e[key]) for e in row.evaluations)
    if not points:
        return f"{label} diverges at once."
    (first, high), (last, low) = points[0], points[-1]
    told = f"{label} goes from {high:.2f} at iteration {first:,} to {low:.2f} at {last:,}"
    if len(points) == 1:
        told = f"{label} stands at {low:.2f} at iteration {last:,}"
    if len(points) < len(row.evaluations):
        told += ", and then diverges"
    if len(row.histories) > 1:
        told += f", the mean of {len(row.histories)} seeds"
    if key == "val_loss" and row.overfits_from is not None:
        told += f", lowest about iteration {row.overfits_from:,}"
    return f"{told}."
