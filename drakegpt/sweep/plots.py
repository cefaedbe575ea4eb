"""Hyperparameters against the loss that chooses among trials, as PNG and SVG.

One picture with a line per trial across all hyperparameters, and one with a
field of points for each. Trials that are not complete are grey: their losses
are estimates from the middle of training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt.plotting import new_figure, write_figure
from drakegpt.sweep.space import Axis, Choices, Space, Value, shown
from drakegpt.sweep.study import TrialRow
from drakegpt.wording import escape_for_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = "viridis"  # dark is low; readable without colour vision
GREY = "#b0b0b0"
BEST = "#d62728"
COLUMNS = 3  # fields of points beside each other
HEADROOM = 0.5  # of the complete losses' range: where the rest is drawn at most
TICKS = 5
DECADES = 100.0  # from this factor on, powers of ten alone are named
PAPER = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}  # behind numbers


@dataclass(frozen=True)
class Scale:
    """Where the values of an axis stand: from 0 to 1, with a few of them named."""

    ticks: tuple[tuple[float, str], ...]
    places: Mapping[Value, float] | None = None  # of choices; `None` for a range
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def place(self, value: Value) -> float:
        """The place of a value."""
        if self.places is not None:
            return self.places[value]
        assert not isinstance(value, str)
        low, high, at = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return (at - low) / (high - low)


def draw(
    title: str, loss: str, unit: str, space: Space, rows: Sequence[TrialRow], folder: Path
) -> list[Path]:
    """Draw both pictures into `folder`; returns their files.

    `loss` names the loss that chooses, `unit` what it is counted in. There must be a
    complete trial.
    """
    shown_rows = [row for row in rows if row.loss is not None and row.params]
    # The best last, so that it lies on top; those that are not complete at the bottom.
    ordered = sorted(shown_rows, key=_depth)
    parallel = _parallel(title, loss, unit, space, ordered)
    scatter = _scatter(title, f"{loss}, {unit}", space, ordered)
    return [*write_figure(parallel, folder, "parallel"), *write_figure(scatter, folder, "scatter")]


def _parallel(title: str, loss: str, unit: str, space: Space, rows: Sequence[TrialRow]) -> "Figure":
    """A line per trial from axis to axis, the last one being the loss."""
    figure = new_figure(max(8.0, 2.0 * len(space) + 3), 5)
    axes = figure.add_subplot()
    colours = _colours(rows)
    scales = [scale_of(axis) for axis in space.values()]
    losses = _loss_scale(rows)
    for row in rows:
        heights = [s.place(row.params[n]) for s, n in zip(scales, space, strict=True)]
        heights.append(min(1.0, losses.place(row.loss or 0.0)))
        axes.plot(range(len(heights)), heights, **_line(row, rows[-1], colours))
    for place, scale in enumerate([*scales, losses]):
        axes.axvline(place, color="#444444", linewidth=1, zorder=5)
        for height, text in scale.ticks:
            beside = place - 0.03, height
            axes.text(*beside, text, ha="right", va="center", fontsize=8, zorder=6, bbox=PAPER)
    axes.set_xticks(range(len(scales) + 1), [*map(_named, space, space.values()), loss])
    axes.set_yticks([])
    axes.set_xlim(-0.4, len(scales) + 0.1)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(escape_for_plot(title), loc="left", fontweight="bold")
    _finish(figure, [axes], colours, f"{loss}, {unit}", rows)
    return figure


def _scatter(title: str, loss: str, space: Space, rows: Sequence[TrialRow]) -> "Figure":
    """For each hyperparameter, a point per trial."""
    columns = min(COLUMNS, len(space))
    lines = -(-len(space) // columns)
    figure = new_figure(max(8.0, 3.2 * columns + 1.2), 3.0 * lines + 1)
    fields = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
    colours, top = _colours(rows), _ceiling(rows)
    for place, (field, (name, axis)) in enumerate(
        zip(fields, [*space.items(), *[("", None)] * (columns * lines - len(space))], strict=True)
    ):
        if axis is None:
            field.set_visible(False)
            continue
        scale = scale_of(axis)
        for row in rows:
            at = scale.place(row.params[name]), min(top, row.loss or 0.0)
            field.plot(*at, **_point(row, rows[-1], colours))
        field.set_xticks([x for x, _ in scale.ticks], [text for _, text in scale.ticks])
        field.set_xlim(-0.1, 1.1)
        field.set_xlabel(_named(name, axis))
        field.grid(axis="y", color="#dddddd", linewidth=0.8)
        field.spines[["top", "right"]].set_visible(False)
        if place % columns == 0:
            field.set_ylabel(loss)
    figure.suptitle(escape_for_plot(title), x=0.01, ha="left", fontweight="bold")
    _finish(figure, list(figure.axes), colours, loss, rows)
    return figure


def _depth(row: TrialRow) -> tuple[bool, float, int]:
    """What lies on top comes last; of equals, the first trial."""
    return row.state == "complete", -(row.loss or 0.0), -row.number


def scale_of(axis: Axis) -> Scale:
    """The scale of a hyperparameter: choices side by side, a range as it is drawn from."""
    if isinstance(axis, Choices):
        values = axis.values
        if not any(isinstance(value, str) for value in values):
            values = tuple(sorted(values, key=float))
        places = {value: _share(i, len(values)) for i, value in enumerate(values)}
        return Scale(tuple((place, shown(value)) for value, place in places.items()), places)
    return _range_scale(axis.low, axis.high, log=axis.log)


def _range_scale(low: float, high: float, *, log: bool = False) -> Scale:
    """From `low` to `high`, both named, and round numbers between them."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    bare = Scale((), None, low, high, log)
    thirds = () if high >= DECADES * low else (3.0,)
    whole = isinstance(low, int)
    locator = LogLocator(subs=(1.0, *thirds)) if log else MaxNLocator(TICKS, integer=whole)
    between = [float(v) for v in locator.tick_values(low, high) if low < v < high]
    apart = [v for v in between if 0.06 < bare.place(v) < 0.94]
    ticks = tuple((bare.place(value), f"{value:.4g}") for value in (low, *apart, high))
    return Scale(ticks, None, low, high, log)


def _loss_scale(rows: Sequence[TrialRow]) -> Scale:
    low, high = _range_of_complete(rows)
    return _range_scale(low, high)


def _share(place: int, of: int) -> float:
    return place / (of - 1) if of > 1 else 0.5


def _range_of_complete(rows: Sequence[TrialRow]) -> tuple[float, float]:
    losses = [row.loss or 0.0 for row in rows if row.state == "complete"]
    low, high = min(losses), max(losses)
    return low, high if high > low else low + 1e-3


def _ceiling(rows: Sequence[TrialRow]) -> float:
    low, high = _range_of_complete(rows)
    return high + HEADROOM * (high - low)


def _colours(rows: Sequence[TrialRow]) -> Any:
    """What gives a loss its colour."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(*_range_of_complete(rows)), colormaps[COLOURS])


def _line(row: TrialRow, best: TrialRow, colours: Any) -> dict[str, Any]:
    if row.state != "complete":
        return {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 2))}
    width = 3.5 if row is best else 1.6
    return {"color": colours.to_rgba(row.loss), "linewidth": width}


def _point(row: TrialRow, best: TrialRow, colours: Any) -> dict[str, Any]:
    if row.state != "complete":
        return {"marker": "o", "markerfacecolor": "none", "markeredgecolor": GREY, "markersize": 6}
    marked = {"marker": "*", "markersize": 15, "markeredgecolor": BEST, "zorder": 4}
    plain = {"marker": "o", "markersize": 7, "markeredgecolor": "white"}
    return {"markerfacecolor": colours.to_rgba(row.loss), **(marked if row is best else plain)}


def _named(name: str, axis: Axis) -> str:
    return f"{name} (log)" if not isinstance(axis, Choices) and axis.log else name


def _finish(
    figure: "Figure", axes: "list[Axes]", colours: Any, loss: str, rows: Sequence[TrialRow]
) -> None:
    """The colour bar, and below it all what is grey and what is marked."""
    best = rows[-1]
    figure.colorbar(colours, ax=axes, label=loss, pad=0.02)
    grey = sum(row.state != "complete" for row in rows)
    legend = f"Best: trial {best.number}, {best.loss:.4f}"
    if grey:
        legend += f". Grey: {grey} not complete, their last estimates (at the top if above)"
    figure.supxlabel(legend, fontsize=9, x=0.01, ha="left")
