"""The loss curves of a comparison as PNG and SVG."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drakegpt import home
from drakegpt.config import LADDER
from drakegpt.evaluation.baseline import Baseline
from drakegpt.experiments.results import ResultRow
from drakegpt.plotting import SCORED, new_figure, write_figure
from drakegpt.wording import escape_for_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One colour per rung, dark to light as the ladder is climbed, all readable on white and apart
# from each other without colour vision; scaled runs are dashed.
COLOURS = ("#440154", "#46327e", "#2c728e", "#20a386", "#6cc24a", "#e8a800")
STYLES = {"default": "-", "scaled": "--"}
# For lines that are no ladder: the same colours, neighbours far apart.
MIXED = tuple(COLOURS[place] for place in (0, 3, 5, 2, 4, 1))
BASELINE_COLOUR = "#888888"
LOSSES = ("train_loss", "val_loss")
TAIL = "Tail: the last tenth of the training split, kept from training."


def title_of(key: str, rows: Sequence[ResultRow]) -> str:
    """What the curves of `key` show: that of the validation split may be of a tail instead."""
    if key == "train_loss":
        return "Training loss"
    kinds = _kinds(rows) or {"validation"}
    return SCORED[kinds.pop()] if len(kinds) == 1 else "Validation or held-out tail loss"


def label_in(rows: Sequence[ResultRow], row: ResultRow) -> str:
    """A row's label beside others: marked if its curve alone is of a tail."""
    return row.label + (" (tail)" if len(_kinds(rows)) > 1 and has_tail([row]) else "")


def has_tail(rows: Sequence[ResultRow]) -> bool:
    """Whether a curve among these is of the tail of the training split."""
    return "training-tail" in _kinds(rows)


def has_validation(rows: Sequence[ResultRow]) -> bool:
    """Whether one is of the validation split, as baselines are; or there is none."""
    return _kinds(rows) != {"training-tail"}


def _kinds(rows: Sequence[ResultRow]) -> set[str]:
    return {row.scored_on for row in rows if row.evaluations}


def draw_curves(
    data: str, rows: Sequence[ResultRow], baselines: Sequence[Baseline] = ()
) -> list[Path]:
    """Draw training and validation loss of all rows; returns the files, in the app's home.

    Where a row has several seeds, their mean, in a band from the lowest to the
    highest of them. A triangle marks where a row began to overfit. The baselines are
    of the validation split, and drawn with that loss alone.
    """
    written = []
    for key in LOSSES:
        figure, axes = _figure()
        unit = "character" if all(row.per_character for row in rows) else "token"
        axes.set_ylabel(f"nats per {unit}, estimated")
        beside = baselines if key == "val_loss" and has_validation(rows) else ()
        _draw(axes, key, f"{title_of(key, rows)} on {data}", rows, beside)
        written += _saved(figure, data, key)
    return written


def draw_bits(data: str, rows: Sequence[ResultRow]) -> list[Path]:
    """Draw what all rows reach in bits per character against time, whatever their tokens.

    Returns the files, in the app's home. An estimate in nats per token becomes
    bits per character as the row's exact loss does.
    """
    figure, axes = _figure()
    for number, row in enumerate(row for row in rows if row.evaluations):
        bits = row.bits_per_character / row.val_loss
        seconds = [evaluation["seconds"] for evaluation in row.evaluations]
        values = [bits * evaluation["val_loss"] for evaluation in row.evaluations]
        colour, style = MIXED[number % len(MIXED)], ("-", "--", ":")[number % 3]
        label = label_in(rows, row)
        axes.plot(seconds, values, color=colour, linestyle=style, linewidth=2, label=label)
    axes.set_ylabel(f"bits per character, {_short(rows)}, estimated")
    _dress(axes, f"Bits per character on {data}", "seconds of training, with evaluations")
    axes.legend(frameon=False)
    return _saved(figure, data, "bits")


def draw_regularization(data: str, regularized: Mapping[str, ResultRow]) -> list[Path]:
    """Draw training (thin) and validation loss of a model with each remedy; returns the files.

    A dot ends each line of validation: some stop early, and lie under another until then.
    """
    figure, axes = _figure()
    for (name, row), colour in zip(regularized.items(), MIXED, strict=False):
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
    thick = _short(list(regularized.values())).capitalize()
    _dress(axes, f"{thick} (thick) and training loss (thin) on {data}", "iteration")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _saved(figure, data, "remedies")


def _short(rows: Sequence[ResultRow]) -> str:
    return title_of("val_loss", rows).removesuffix(" loss").lower()


def turn_of(row: ResultRow) -> tuple[int, float] | None:
    """Where a row began to overfit, if it did: the iteration, and its estimate there.

    The mean of those runs that went so far: a row's line ends with the shortest
    of its runs, and the others may have turned after that.
    """
    start = row.overfits_from
    lines = [line for history in row.histories for line in history if line["iteration"] == start]
    losses = [line["val_loss"] for line in lines if math.isfinite(line["val_loss"])]
    return (start, statistics.fmean(losses)) if start is not None and losses else None


def draw_turn(axes: "Axes", turn: tuple[int, float], colour: str) -> None:
    """A triangle at that place."""
    axes.plot(*turn, color=colour, marker="v", markersize=9, linestyle="")


def _figure() -> "tuple[Figure, Axes]":
    figure = new_figure()
    return figure, figure.add_subplot()


def _saved(figure: "Figure", data: str, name: str) -> list[Path]:
    return write_figure(figure, home.comparisons() / data, name)


def _dress(axes: "Axes", title: str, below: str) -> None:
    axes.set_title(escape_for_plot(title), loc="left", fontweight="bold")
    axes.set_xlabel(below)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw(
    axes: "Axes", key: str, title: str, rows: Sequence[ResultRow], baselines: Sequence[Baseline]
) -> None:
    for row in rows:
        points = {evaluation["iteration"]: evaluation[key] for evaluation in row.evaluations}
        colour = COLOURS[LADDER.index(row.model)]
        axes.plot(
            list(points),
            list(points.values()),
            color=colour,
            linestyle=STYLES[row.size],
            linewidth=2,
            marker="." if len(points) < 30 else None,
            label=label_in(rows, row) if key == "val_loss" else row.label,
        )
        if len(row.histories) > 1:
            band = row.band(key)
            low, high = ([point[edge] for point in band] for edge in (1, 2))
            axes.fill_between([at for at, *_ in band], low, high, color=colour, alpha=0.2, lw=0)
        if key == "val_loss" and (turn := turn_of(row)):
            draw_turn(axes, turn, colour)
    for baseline in baselines:
        axes.axhline(
            baseline.score.loss,
            color=BASELINE_COLOUR,
            linestyle=(0, (6, 3)) if baseline.order > 1 else (0, (2, 3)),
            linewidth=1,
            label=baseline.label,
        )
    _dress(axes, title, "iteration")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
