"""The loss curves of a comparison as PNG and SVG."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drakegpt import paths
from drakegpt.config import LADDER
from drakegpt.evaluation.comparison import Row
from drakegpt.evaluation.ngrams import Floor
from drakegpt.training.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# One colour per rung, dark to light as the ladder is climbed, all readable on white and apart
# from each other without colour vision; scaled runs are dashed.
COLOURS = ("#440154", "#46327e", "#2c728e", "#20a386", "#6cc24a", "#e8a800")
STYLES = {"default": "-", "scaled": "--"}
FLOOR_COLOUR = "#888888"
TITLES = {"train_loss": "Training loss", "val_loss": "Validation loss"}


def draw_curves(data: str, rows: Sequence[Row], floors: Sequence[Floor] = ()) -> list[Path]:
    """Draw training and validation loss of all rows; returns the files, in the app's home.

    The floors are of the validation split, and drawn with that loss alone.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    written = []
    for key, title in TITLES.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        unit = "character" if all(row.per_character for row in rows) else "token"
        axes = figure.add_subplot()
        axes.set_ylabel(f"nats per {unit}, estimated")
        _draw(axes, key, f"{title} on {data}", rows, floors if key == "val_loss" else ())
        for suffix in ("png", "svg"):
            path = paths.comparisons() / data / f"{key}.{suffix}"
            buffer = io.BytesIO()
            # Without a date and with fixed names inside, the same runs give the same file.
            with rc_context({"svg.hashsalt": data}):
                undated = {"Date": None} if suffix == "svg" else None
                figure.savefig(buffer, format=suffix, dpi=150, metadata=undated)
            with paths.write_atomically(path) as file:
                file.write(buffer.getvalue())
            written.append(path)
    return written


def draw_run(run: Run) -> Path:
    """Draw both losses of one run into its folder; returns the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (key, title), colour in zip(TITLES.items(), COLOURS[::3], strict=True):
        points = [(line["iteration"], line[key]) for line in run.evaluations]
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=2, label=title)
    axes.set_title(run.name, loc="left", fontweight="bold")
    axes.set_xlabel("iteration")
    unit = "character" if run.tokenizer.kind == "char" else "token"
    axes.set_ylabel(f"nats per {unit}, estimated")
    axes.legend(frameon=False)
    path = run.folder / "curves.png"
    with paths.write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=150)
    return path


def _draw(axes: "Axes", key: str, title: str, rows: Sequence[Row], floors: Sequence[Floor]) -> None:
    for row in rows:
        axes.plot(
            [evaluation["iteration"] for evaluation in row.evaluations],
            [evaluation[key] for evaluation in row.evaluations],
            color=COLOURS[LADDER.index(row.model)],
            linestyle=STYLES[row.size],
            linewidth=2,
            marker="." if len(row.evaluations) < 30 else None,
            label=row.label,
        )
    for floor in floors:
        axes.axhline(
            floor.score.loss,
            color=FLOOR_COLOUR,
            linestyle=(0, (6, 3)) if floor.order > 1 else (0, (2, 3)),
            linewidth=1,
            label=floor.label,
        )
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("iteration")
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
