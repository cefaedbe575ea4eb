"""The report's plots, each with an alternative text made from the same rows.

Rows are marked by a sign as well as by a colour, for readers without colour vision.

Not here: how a plot becomes part of the page (`inline_svg`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drakegpt.config import LADDER
from drakegpt.evaluation.baseline import Baseline
from drakegpt.experiments.ladder import Comparison
from drakegpt.experiments.plots import (
    LINE_STYLES,
    TAIL,
    curve_label,
    curve_title,
    find_overfitting_start,
    has_tail,
    has_validation,
    mark_overfitting,
)
from drakegpt.experiments.results import ResultRow
from drakegpt.report.inline_svg import RUNG_COLOURS, stand_in_for, to_inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (4.7, 3.8)
FONT_POINTS = 11.0  # on a phone the plot is about as wide as its inches
SIGN_GAP = 0.062  # least distance of the signs beside lines, as a share of the axes' height
# What a plot may hold besides a line for each row, and its explanation.
LEGEND = {
    "mean": "Where a model has several seeds, its line is their mean.",
    "band": "The band around it spans the seeds, from the lowest to the highest.",
    "baselines": "Dashed lines: n-gram baselines.",
    "overfitting": "A triangle marks the iteration from which a model overfits.",
    "tail": TAIL,
}


@dataclass(frozen=True)
class Mark:
    """The sign, the colour and the label of a row, the same all over the page."""

    sign: str  # the rung's number, with an s for the scaled size; letters for other models
    colour: str  # a CSS variable
    label: str


@dataclass(frozen=True)
class Plot:
    """A plot for the page."""

    caption: str
    description: str  # the alternative text, with figures
    svg: str
    signs: frozenset[str]  # of `LEGEND`


def explain_signs(plots: Sequence[Plot]) -> list[str]:
    """Explain the signs that occur in any of these plots."""
    drawn = {sign for plot in plots for sign in plot.signs}
    return [meaning for sign, meaning in LEGEND.items() if sign in drawn]


def assign_marks(comparison: Comparison) -> dict[str, Mark]:
    """Give each row a mark; returned by the name of its first run."""
    marks = {}
    for row in comparison.rows:
        rung = LADDER.index(row.model) + 1
        sign = f"{rung}s" if row.size == "scaled" else str(rung)
        marks[row.runs[0]] = Mark(sign, f"rung-{(rung - 1) % RUNG_COLOURS + 1}", row.label)
    for number, row in enumerate(comparison.others):
        marks[row.runs[0]] = Mark(_to_letters(number), "other", row.label)
    return marks


def _to_letters(number: int) -> str:
    """Write 0, 1, 2, … as a, b, …, z, aa, ab, …"""
    more, last = divmod(number, 26)
    return (_to_letters(more - 1) if more else "") + chr(ord("a") + last)


def draw_plots(comparison: Comparison, marks: Mapping[str, Mark]) -> list[Plot]:
    """Draw both losses and, if there are other models, bits per character over time.

    Rows without recorded evaluations, as imported runs are, have no curve.
    """
    trained = [row for row in comparison.rows if row.evaluations]
    plots = []
    if trained:
        baselines = comparison.drawn_baselines if has_validation(trained) else ()
        plots.append(_draw_loss("val_loss", trained, marks, baselines))
        plots.append(_draw_loss("train_loss", trained, marks, ()))
    every = [row for row in (*comparison.rows, *comparison.others) if row.evaluations]
    if any(row in comparison.others for row in every):
        plots.append(_draw_bits(every, marks))
    return plots


def _draw_loss(
    key: str, rows: Sequence[ResultRow], marks: Mapping[str, Mark], baselines: Sequence[Baseline]
) -> Plot:
    """Draw one loss over the iterations, with baselines as horizontal lines."""
    unit, title = rows[0].unit, curve_title(key, rows)
    caption = f"{title} while training{_describe_tail(rows) if key == 'val_loss' else ''}"
    figure, axes = _new_figure("iteration", f"nats per {unit}")
    ends, signs = [], set()
    for row in rows:
        mark = marks[row.runs[0]]
        points = _keep_finite((e["iteration"], e[key]) for e in row.evaluations)
        signs |= _draw_line(axes, points, row, mark) | _draw_band(axes, key, row, mark)
        if key == "val_loss":
            signs |= _draw_overfitting(axes, row, mark) | _note_tail(row)
        ends += [(mark, points[-1])] if points else []
    for baseline in baselines:
        signs |= _draw_baseline(axes, baseline)
    _draw_signs(axes, ends)
    description = " ".join(
        [
            f"{title} in nats per {unit}, estimated while training, one line for each model.",
            *(_describe_curve(row, key, curve_label(rows, row)) for row in rows),
            *(
                f"Dashed line: {baseline.label}, {baseline.score.loss:.2f}."
                for baseline in baselines
            ),
        ]
    )
    svg = to_inline_svg(figure, key.replace("_", "-"), caption, description)
    return Plot(caption, description, svg, frozenset(signs))


def _draw_bits(rows: Sequence[ResultRow], marks: Mapping[str, Mark]) -> Plot:
    """Draw bits per character over time, comparable for all tokenizers.

    Estimates in nats per token are scaled by the row's exact bits per nat.
    """
    figure, axes = _new_figure("seconds of training, with evaluations", "bits per character")
    ends, signs = [], set()
    for row in rows:
        bits = row.bits_per_character / row.val_loss
        points = _keep_finite((e["seconds"], bits * e["val_loss"]) for e in row.evaluations)
        signs |= _draw_line(axes, points, row, marks[row.runs[0]]) | _note_tail(row)
        ends += [(marks[row.runs[0]], points[-1])] if points else []
    _draw_signs(axes, ends)
    caption = f"Bits per character over time{_describe_tail(rows)}"
    title = curve_title("val_loss", rows)
    description = f"{title} in bits per character over the seconds of training. " + " ".join(
        f"{mark.label} ends at {y:.2f} after {x:,.0f} s." for mark, (x, y) in ends
    )
    svg = to_inline_svg(figure, "bits", caption, description)
    return Plot(caption, description, svg, frozenset(signs))


def _new_figure(x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ink, muted = stand_in_for("ink"), stand_in_for("muted")
    style: dict[Any, Any] = {
        "font.size": FONT_POINTS, "text.color": ink, "axes.labelcolor": muted,
        "axes.edgecolor": muted, "xtick.color": muted, "ytick.color": muted,
        "grid.color": stand_in_for("grid"), "axes.grid": True, "axes.grid.axis": "y",
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with rc_context(style):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))  # more would overlap on a phone
    return figure, axes


def _keep_finite(points: Any) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y)]


# Each of the following draws a part of a plot and returns the signs of `LEGEND` it has drawn.


def _draw_line(
    axes: "Axes", points: Sequence[tuple[float, float]], row: ResultRow, mark: Mark
) -> set[str]:
    axes.plot(
        *(zip(*points, strict=True) if points else ([], [])),
        color=stand_in_for(mark.colour),
        linestyle=LINE_STYLES[row.size],
        linewidth=2,
        marker="." if len(points) < 30 else None,
        markersize=5,
    )
    return {"mean"} if len(row.histories) > 1 else set()


def _draw_band(axes: "Axes", key: str, row: ResultRow, mark: Mark) -> set[str]:
    """Fill the area between the lowest seed and the highest."""
    if len(row.histories) == 1:
        return set()
    x, low, high = zip(*row.range_over_seeds(key), strict=True)
    axes.fill_between(x, low, high, color=stand_in_for(mark.colour), alpha=0.2, linewidth=0)
    return {"band"}


def _draw_overfitting(axes: "Axes", row: ResultRow, mark: Mark) -> set[str]:
    """Mark where a row starts to overfit."""
    start = find_overfitting_start(row)
    if start is None:
        return set()
    mark_overfitting(axes, start, stand_in_for(mark.colour))
    return {"overfitting"}


def _note_tail(row: ResultRow) -> set[str]:
    """Draw nothing, but have the tail explained if the row's curve is of it."""
    return {"tail"} if has_tail([row]) else set()


def _describe_tail(rows: Sequence[ResultRow]) -> str:
    """Name the rows whose curves are of the tail, for a caption; empty if all or none are."""
    of_tail = [row.label for row in rows if has_tail([row])]
    if not of_tail:
        return ""
    return f" (tail: {', '.join(of_tail)})" if has_validation(rows) else ""


def _draw_baseline(axes: "Axes", baseline: Baseline) -> set[str]:
    """Draw a dashed line from edge to edge with its label."""
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
        fontsize=FONT_POINTS - 1,
    )
    return {"baselines"}


def _draw_signs(axes: "Axes", ends: Sequence[tuple[Mark, tuple[float, float]]]) -> None:
    """Write the sign of each line beside its end, without overlaps."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    heights = [(y - low) / (high - low) for _, (_, y) in ends]
    places = _spread_out(heights, SIGN_GAP)
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
    """Move values until they are at least `gap` apart, in the same order, by least squares.

    Neighbours that would be too close form a group around their mean.
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[list[float]] = []  # values less the gaps before them
    for place, index in enumerate(order):
        groups.append([values[index] - place * gap])
        while len(groups) > 1 and _mean(groups[-2]) > _mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    means = [_mean(group) for group in groups for _ in group]
    spread = {index: means[place] + place * gap for place, index in enumerate(order)}
    return [spread[index] for index in range(len(values))]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _describe_curve(row: ResultRow, key: str, label: str) -> str:
    """Describe a row's curve in a sentence."""
    points = _keep_finite((e["iteration"], e[key]) for e in row.evaluations)
    if not points:
        return f"{label} diverges before its first evaluation."
    (first, high), (last, low) = points[0], points[-1]
    text = f"{label} goes from {high:.2f} at iteration {first:,} to {low:.2f} at {last:,}"
    if len(points) == 1:
        text = f"{label} is at {low:.2f} at iteration {last:,}"
    if len(points) < len(row.evaluations):
        text += ", and then diverges"
    if len(row.histories) > 1:
        text += f", the mean of {len(row.histories)} seeds"
    if key == "val_loss" and row.overfits_from is not None:
        text += f", lowest at about iteration {row.overfits_from:,}"
    return f"{text}."
