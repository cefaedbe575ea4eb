"""The report's plots, each with an alternative text made from the same rows.

Rows are marked by a sign as well as by a colour, for readers without colour vision.

Not here: how a plot becomes part of the page (`inline_svg`).
"""

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
    draw_curve,
    draw_line,
    find_overfitting_start,
    has_tail,
    has_validation,
    list_bits,
    list_losses,
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
    ends, signs = [], {"baselines"} if baselines else set[str]()
    for row in rows:
        mark = marks[row.runs[0]]
        draw_curve(axes, key, row, stand_in_for(mark.colour))
        points = list_losses(row, key)
        signs |= _list_signs(row, key)
        ends += [(mark, points[-1])] if points else []
    for baseline in baselines:
        _draw_level(axes, baseline.score.loss)
    _draw_signs(axes, ends, baselines)
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
    """Draw bits per character over time, comparable for all tokenizers."""
    figure, axes = _new_figure("seconds of training, with evaluations", "bits per character")
    ends, signs = [], set[str]()
    for row in rows:
        mark, points = marks[row.runs[0]], list_bits(row)
        draw_line(axes, points, stand_in_for(mark.colour), LINE_STYLES[row.size])
        signs |= _list_signs(row, "val_loss") & {"mean", "tail"}
        ends += [(mark, points[-1])] if points else []
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


def _list_signs(row: ResultRow, key: str) -> set[str]:
    """List the signs of `LEGEND` in a row's curve."""
    signs = {"mean", "band"} if len(row.histories) > 1 else set()
    if key == "val_loss":
        signs |= {"overfitting"} if find_overfitting_start(row) else set()
        signs |= {"tail"} if has_tail([row]) else set()
    return signs


def _describe_tail(rows: Sequence[ResultRow]) -> str:
    """Name the rows whose curves are of the tail, for a caption; empty if all or none are."""
    of_tail = [row.label for row in rows if has_tail([row])]
    if not of_tail:
        return ""
    return f" (tail: {', '.join(of_tail)})" if has_validation(rows) else ""


def _draw_level(axes: "Axes", loss: float) -> None:
    """Draw a dashed line from edge to edge."""
    axes.axhline(loss, color=stand_in_for("muted"), linewidth=1, linestyle=(0, (5, 3)))


def _draw_signs(
    axes: "Axes",
    ends: Sequence[tuple[Mark, tuple[float, float]]],
    baselines: Sequence[Baseline] = (),
) -> None:
    """Write beside the end of each line what it is, without overlaps and outside the axes.

    A model has its sign in its colour; a baseline has its order.
    """
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    right = axes.get_xlim()[1]
    signs = [(mark.sign, mark.colour, "bold", end) for mark, end in ends]
    signs += [(f"{b.order}-gram", "muted", "normal", (right, b.score.loss)) for b in baselines]
    heights = [(y - low) / (high - low) for *_, (_, y) in signs]
    places = _spread_out(heights, SIGN_GAP)
    for (sign, colour, weight, end), place in zip(signs, places, strict=True):
        axes.annotate(
            sign,
            end,
            xytext=(1.04, place),
            textcoords="axes fraction",
            color=stand_in_for(colour),
            fontweight=weight,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": stand_in_for(colour), "linewidth": 0.6},
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
    points = list_losses(row, key)
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
