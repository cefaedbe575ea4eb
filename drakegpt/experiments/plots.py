"""Plots of a comparison as PNG and SVG: loss curves, bits per character, regularizers."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from drakegpt import home
from drakegpt.config import LADDER
from drakegpt.evaluation.baseline import BIGRAM, Baseline
from drakegpt.experiments.results import ResultRow
from drakegpt.plotting import SCORED_SPLITS, new_figure, write_figure
from drakegpt.wording import escape_for_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One colour for each rung, from dark to light, readable on white and distinguishable without
# colour vision; scaled runs are dashed.
COLOURS = ("#440154", "#46327e", "#2c728e", "#20a386", "#6cc24a", "#e8a800")
LINE_STYLES = {"default": "-", "scaled": "--"}
# The same colours for other series, with neighbours far apart.
CONTRASTING_COLOURS = tuple(COLOURS[place] for place in (0, 3, 5, 2, 4, 1))
BASELINE_COLOUR = "#888888"
LOSSES = ("train_loss", "val_loss")
TAIL = "Tail: the last tenth of the training split, kept from training."


def curve_title(key: str, rows: Sequence[ResultRow]) -> str:
    """Return the title for the curves of `key`; "val_loss" may be of a held-out tail instead."""
    if key == "train_loss":
        return "Training loss"
    kinds = _scored_splits(rows) or {"validation"}
    return SCORED_SPLITS[kinds.pop()] if len(kinds) == 1 else "Validation or held-out tail loss"


def curve_label(rows: Sequence[ResultRow], row: ResultRow) -> str:
    """Return a row's label, marked if its curve is of a tail and others are not."""
    return row.label + (" (tail)" if len(_scored_splits(rows)) > 1 and has_tail([row]) else "")


def has_tail(rows: Sequence[ResultRow]) -> bool:
    """Whether any of these curves is of the tail of the training split."""
    return "training-tail" in _scored_splits(rows)


def has_validation(rows: Sequence[ResultRow]) -> bool:
    """Whether any of these curves is of the validation split, as baselines are; or none exists."""
    return _scored_splits(rows) != {"training-tail"}


def _scored_splits(rows: Sequence[ResultRow]) -> set[str]:
    return {row.scored_on for row in rows if row.evaluations}


def draw_curves(
    data: str, rows: Sequence[ResultRow], baselines: Sequence[Baseline] = ()
) -> list[Path]:
    """Draw training and validation loss of all rows; returns the files, in the user's folder.

    Several seeds are drawn as their mean in a band from the lowest to the highest. A
    triangle marks the start of overfitting. Baselines are drawn with validation loss only.
    """
    written = []
    for key in LOSSES:
        figure, axes = _new_figure()
        unit = "character" if all(row.per_character for row in rows) else "token"
        axes.set_ylabel(f"nats per {unit}, estimated")
        shown = baselines if key == "val_loss" and has_validation(rows) else ()
        _draw_losses(axes, key, f"{curve_title(key, rows)} on {data}", rows, shown)
        _cut_off_the_start(axes, rows, baselines)
        if unit == "character":
            _add_bits_axis(axes)
        written += _save(figure, data, key)
    return written


def _add_bits_axis(axes: "Axes") -> None:
    """Add an axis in bits per character on the right, and move the legend beyond it."""
    import numpy as np

    nats = math.log(2)
    to_bits, to_nats = partial(np.multiply, 1 / nats), partial(np.multiply, nats)
    bits = axes.secondary_yaxis("right", functions=(to_bits, to_nats))
    bits.set_ylabel("bits per character")
    bits.spines["right"].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.12, 1.0))


def _cut_off_the_start(
    axes: "Axes", rows: Sequence[ResultRow], baselines: Sequence[Baseline]
) -> None:
    """End the axis a little above counts of pairs, and above where each curve ends."""
    pairs = [baseline.score.loss for baseline in baselines if baseline.order == BIGRAM]
    ends = [row.evaluations[-1]["val_loss"] for row in rows if row.evaluations]
    if pairs and ends:
        axes.set_ylim(top=max(*pairs, *ends) + 0.1)


def draw_bits(data: str, rows: Sequence[ResultRow]) -> list[Path]:
    """Draw bits per character of all rows against time; returns the files, in the user's folder."""
    figure, axes = _new_figure()
    for number, row in enumerate(row for row in rows if row.evaluations):
        colour = CONTRASTING_COLOURS[number % len(CONTRASTING_COLOURS)]
        style = ("-", "--", ":")[number % 3]
        draw_line(axes, list_bits(row), colour, style, curve_label(rows, row))
    axes.set_ylabel(f"bits per character, {_short_title(rows)}, estimated")
    _label_axes(axes, f"Bits per character on {data}", "seconds of training, with evaluations")
    axes.legend(frameon=False)
    return _save(figure, data, "bits")


def draw_regularization(data: str, regularized: Mapping[str, ResultRow]) -> list[Path]:
    """Draw training (thin) and validation loss of a model with each regularizer.

    Returns the files. A dot ends each validation curve, as some stop early and coincide
    with another until then.
    """
    figure, axes = _new_figure()
    for (name, row), colour in zip(regularized.items(), CONTRASTING_COLOURS, strict=False):
        for key, width in (("val_loss", 2.0), ("train_loss", 0.8)):
            axes.plot(
                [evaluation["iteration"] for evaluation in row.evaluations],
                [evaluation[key] for evaluation in row.evaluations],
                color=colour,
                linewidth=width,
                label=name if key == "val_loss" else None,
            )
        for end in row.evaluations[-1:]:
            axes.plot(end["iteration"], end["val_loss"], color=colour, marker="o", zorder=3)
    unit = "character" if all(row.per_character for row in regularized.values()) else "token"
    axes.set_ylabel(f"nats per {unit}, estimated")
    held_out = _short_title(list(regularized.values())).capitalize()
    _label_axes(axes, f"{held_out} (thick) and training loss (thin) on {data}", "iteration")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _save(figure, data, "regularization")


def _short_title(rows: Sequence[ResultRow]) -> str:
    return curve_title("val_loss", rows).removesuffix(" loss").lower()


def find_overfitting_start(row: ResultRow) -> tuple[int, float] | None:
    """Return the iteration from which a row overfits and its mean estimate there, if it does.

    The mean is over the runs that reached it: a row's mean curve ends with the shortest
    run, and the others may start to overfit later.
    """
    start = row.overfits_from
    lines = [line for history in row.histories for line in history if line["iteration"] == start]
    losses = [line["val_loss"] for line in lines if math.isfinite(line["val_loss"])]
    return (start, statistics.fmean(losses)) if start is not None and losses else None


def list_losses(row: ResultRow, key: str) -> list[tuple[float, float]]:
    """Return the points (iteration, loss) of a row's curve, those that are finite."""
    points = ((line["iteration"], line[key]) for line in row.evaluations)
    return [(x, y) for x, y in points if math.isfinite(y)]


def list_bits(row: ResultRow) -> list[tuple[float, float]]:
    """Return the points (seconds, bits per character) of a row's held-out curve, if finite.

    Estimates in nats per token are scaled by the row's exact bits per nat.
    """
    bits = row.bits_per_character / row.val_loss
    points = ((line["seconds"], bits * line["val_loss"]) for line in row.evaluations)
    return [(x, y) for x, y in points if math.isfinite(y)]


def draw_curve(
    axes: "Axes", key: str, row: ResultRow, colour: str, label: str | None = None
) -> None:
    """Draw a row's loss, in a band from the lowest seed to the highest.

    A triangle on validation loss marks the iteration from which the row overfits.
    """
    draw_line(axes, list_losses(row, key), colour, LINE_STYLES[row.size], label)
    if len(row.histories) > 1 and (band := row.range_over_seeds(key)):
        x, low, high = zip(*band, strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    if key == "val_loss" and (start := find_overfitting_start(row)):
        axes.plot(*start, color=colour, marker="v", markersize=9, linestyle="")


def draw_line(
    axes: "Axes",
    points: Sequence[tuple[float, float]],
    colour: str,
    style: str,
    label: str | None = None,
) -> None:
    """Draw a line through points, which are marked if they are few."""
    axes.plot(
        *(zip(*points, strict=True) if points else ([], [])),
        color=colour,
        linestyle=style,
        linewidth=2,
        marker="." if len(points) < 30 else None,
        markersize=5,
        label=label,
    )


def _new_figure() -> "tuple[Figure, Axes]":
    figure = new_figure()
    return figure, figure.add_subplot()


def _save(figure: "Figure", data: str, name: str) -> list[Path]:
    return write_figure(figure, home.comparisons() / data, name)


def _label_axes(axes: "Axes", title: str, x_label: str) -> None:
    axes.set_title(escape_for_plot(title), loc="left", fontweight="bold")
    axes.set_xlabel(x_label)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_losses(
    axes: "Axes", key: str, title: str, rows: Sequence[ResultRow], baselines: Sequence[Baseline]
) -> None:
    for row in rows:
        colour = COLOURS[LADDER.index(row.model) % len(COLOURS)]
        label = curve_label(rows, row) if key == "val_loss" else row.label
        draw_curve(axes, key, row, colour, label)
    for baseline in baselines:
        axes.axhline(
            baseline.score.loss,
            color=BASELINE_COLOUR,
            linestyle=(0, (6, 3)) if baseline.order > 1 else (0, (2, 3)),
            linewidth=1,
            label=baseline.label,
        )
    _label_axes(axes, title, "iteration")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
