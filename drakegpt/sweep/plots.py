"""Plots of a sweep as PNG and SVG: hyperparameters against the loss that ranks trials.

A parallel plot with a line for each trial, and a scatter plot for each hyperparameter.
Incomplete trials are grey: their losses are estimates made during training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt.plotting import new_figure, write_figure
from drakegpt.sweep.space import Axis, Choices, Space, Value, format_value
from drakegpt.sweep.study import TrialRow
from drakegpt.wording import escape_for_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "viridis"  # dark is low; readable without colour vision
GREY = "#b0b0b0"
BEST = "#d62728"
COLUMNS = 3  # of scatter plots
HEADROOM = 0.5  # above the complete losses, as a share of their range; higher ones are clipped
TICKS = 5
DECADES = 100.0  # from this ratio on, only powers of ten are labelled
LABEL_BOX = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}  # behind numbers


@dataclass(frozen=True)
class AxisScale:
    """Maps the values of an axis to places from 0 to 1, with labelled ticks."""

    ticks: tuple[tuple[float, str], ...]
    places: Mapping[Value, float] | None = None  # of choices; `None` for a range
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, value: Value) -> float:
        """Return the place of a value."""
        if self.places is not None:
            return self.places[value]
        assert not isinstance(value, str)
        low, high, at = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return (at - low) / (high - low)


def draw_sweep(
    title: str, loss: str, unit: str, space: Space, rows: Sequence[TrialRow], folder: Path
) -> list[Path]:
    """Draw both plots into `folder`; returns their files.

    `loss` names the loss that ranks trials, `unit` its unit. At least one trial must be
    complete.
    """
    shown_rows = [row for row in rows if row.loss is not None and row.params]
    # The best last, on top of the others; incomplete trials first.
    ordered = sorted(shown_rows, key=_get_drawing_order)
    parallel = _draw_parallel(title, loss, unit, space, ordered)
    scatter = _draw_scatter(title, f"{loss}, {unit}", space, ordered)
    return [*write_figure(parallel, folder, "parallel"), *write_figure(scatter, folder, "scatter")]


def _draw_parallel(
    title: str, loss: str, unit: str, space: Space, rows: Sequence[TrialRow]
) -> "Figure":
    """Draw a line for each trial across all axes; the last axis is the loss."""
    figure = new_figure(max(8.0, 2.0 * len(space) + 3), 5)
    axes = figure.add_subplot()
    colours = _map_colours(rows)
    scales = [make_scale(axis) for axis in space.values()]
    losses = _make_loss_scale(rows)
    for row in rows:
        heights = [s.place(row.params[n]) for s, n in zip(scales, space, strict=True)]
        heights.append(min(1.0, losses.place(row.loss or 0.0)))
        axes.plot(range(len(heights)), heights, **_get_line_style(row, rows[-1], colours))
    for place, scale in enumerate([*scales, losses]):
        axes.axvline(place, color="#444444", linewidth=1, zorder=5)
        for height, text in scale.ticks:
            beside = place - 0.03, height
            axes.text(*beside, text, ha="right", va="center", fontsize=8, zorder=6, bbox=LABEL_BOX)
    axes.set_xticks(range(len(scales) + 1), [*map(_label_axis, space, space.values()), loss])
    axes.set_yticks([])
    axes.set_xlim(-0.4, len(scales) + 0.1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(escape_for_plot(title), loc="left", fontweight="bold")
    _add_legend(figure, [axes], colours, f"{loss}, {unit}", rows)
    return figure


def _draw_scatter(title: str, loss: str, space: Space, rows: Sequence[TrialRow]) -> "Figure":
    """Draw a scatter plot for each hyperparameter, with a point for each trial."""
    columns = min(COLUMNS, len(space))
    lines = -(-len(space) // columns)
    figure = new_figure(max(8.0, 3.2 * columns + 1.2), 3.0 * lines + 1)
    fields = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    colours, top = _map_colours(rows), _find_ceiling(rows)
    for place, (field, (name, axis)) in enumerate(
        zip(fields, [*space.items(), *[("", None)] * (columns * lines - len(space))], strict=True)
    ):
        if axis is None:
            field.set_visible(False)
            continue
        scale = make_scale(axis)
        for row in rows:
            at = scale.place(row.params[name]), min(top, row.loss or 0.0)
            field.plot(*at, **_get_point_style(row, rows[-1], colours))
        field.set_xticks([x for x, _ in scale.ticks], [text for _, text in scale.ticks])
        field.set_xlim(-0.1, 1.1)
        field.set_xlabel(_label_axis(name, axis))
        field.grid(axis="y", color="#dddddd", linewidth=0.8)
        field.spines[["top", "right"]].set_visible(False)
        if place % columns == 0:
            field.set_ylabel(loss)
    figure.suptitle(escape_for_plot(title), x=0.01, ha="left", fontweight="bold")
    _add_legend(figure, list(figure.axes), colours, loss, rows)
    return figure


def _get_drawing_order(row: TrialRow) -> tuple[bool, float, int]:
    """Return a sort key: incomplete trials first, the best last; of equals, the first trial."""
    return row.state == "complete", -(row.loss or 0.0), -row.number


def make_scale(axis: Axis) -> AxisScale:
    """Return the scale of a hyperparameter: evenly spaced choices, or a range (maybe log)."""
    if isinstance(axis, Choices):
        values = axis.values
        if not any(isinstance(value, str) for value in values):
            values = tuple(sorted(values, key=float))
        places = {value: _place_evenly(i, len(values)) for i, value in enumerate(values)}
        return AxisScale(
            tuple((place, format_value(value)) for value, place in places.items()), places
        )
    return _make_range_scale(axis.low, axis.high, log=axis.log)


def _make_range_scale(low: float, high: float, *, log: bool = False) -> AxisScale:
    """Return a scale from `low` to `high` with ticks there and at round numbers between."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    bare = AxisScale((), None, low, high, log)
    thirds = () if high >= DECADES * low else (3.0,)
    whole = isinstance(low, int)
    locator = LogLocator(subs=(1.0, *thirds)) if log else MaxNLocator(TICKS, integer=whole)
    between = [float(v) for v in locator.tick_values(low, high) if low < v < high]
    apart = [v for v in between if 0.06 < bare.place(v) < 0.94]
    ticks = tuple((bare.place(value), f"{value:.4g}") for value in (low, *apart, high))
    return AxisScale(ticks, None, low, high, log)


def _make_loss_scale(rows: Sequence[TrialRow]) -> AxisScale:
    low, high = _find_complete_range(rows)
    return _make_range_scale(low, high)


def _place_evenly(place: int, of: int) -> float:
    return place / (of - 1) if of > 1 else 0.5


def _find_complete_range(rows: Sequence[TrialRow]) -> tuple[float, float]:
    losses = [row.loss or 0.0 for row in rows if row.state == "complete"]
    low, high = min(losses), max(losses)
    return low, high if high > low else low + 1e-3


def _find_ceiling(rows: Sequence[TrialRow]) -> float:
    low, high = _find_complete_range(rows)
    return high + HEADROOM * (high - low)


def _map_colours(rows: Sequence[TrialRow]) -> Any:
    """Return the mapping from losses to colours."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(*_find_complete_range(rows)), colormaps[COLOURS])


def _get_line_style(row: TrialRow, best: TrialRow, colours: Any) -> dict[str, Any]:
    if row.state != "complete":
        return {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 2))}
    width = 3.5 if row is best else 1.6
    return {"color": colours.to_rgba(row.loss), "linewidth": width}


def _get_point_style(row: TrialRow, best: TrialRow, colours: Any) -> dict[str, Any]:
    if row.state != "complete":
        return {"marker": "o", "markerfacecolor": "none", "markeredgecolor": GREY, "markersize": 6}
    marked = {"marker": "*", "markersize": 15, "markeredgecolor": BEST, "zorder": 4}
    plain = {"marker": "o", "markersize": 7, "markeredgecolor": "white"}
    return {"markerfacecolor": colours.to_rgba(row.loss), **(marked if row is best else plain)}


def _label_axis(name: str, axis: Axis) -> str:
    return f"{name} (log)" if not isinstance(axis, Choices) and axis.log else name


def _add_legend(
    figure: "Figure", axes: "list[Axes]", colours: Any, loss: str, rows: Sequence[TrialRow]
) -> None:
    """Add the colour bar, and below the plot the meaning of grey and of the mark."""
    best = rows[-1]
    figure.colorbar(colours, ax=axes, label=loss, pad=0.02)
    grey = sum(row.state != "complete" for row in rows)
    legend = f"Best: trial {best.number}, {best.loss:.4f}"
    if grey:
        legend += f". Grey: {grey} incomplete, by their last estimates (clipped at the top)"
    figure.supxlabel(legend, fontsize=9, x=0.01, ha="left")
