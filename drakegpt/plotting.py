"""Figures without a display: create one, write one as PNG and SVG, plot a run's losses."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drakegpt import files
from drakegpt.wording import escape_for_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What evaluations score besides training data, by the setting `select_on`.
SCORED_SPLITS = {"validation": "Validation loss", "training-tail": "Held-out tail loss"}
COLOURS = {"train_loss": "#440154", "val_loss": "#20a386"}


def new_figure(width: float = 8, height: float = 4.5) -> "Figure":
    """Create an empty figure, sized in inches, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def write_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure into `folder` as PNG and SVG, without a date: equal figures, equal files."""
    from matplotlib import rc_context

    written = []
    for suffix in ("png", "svg"):
        path = folder / f"{name}.{suffix}"
        buffer = io.BytesIO()
        with rc_context({"svg.hashsalt": folder.name}):  # deterministic element ids
            undated = {"Date": None} if suffix == "svg" else None
            figure.savefig(buffer, format=suffix, dpi=150, metadata=undated)
        with files.write_atomically(path) as file:
            file.write(buffer.getvalue())
        written.append(path)
    return written


def draw_losses(
    evaluations: Iterable[Mapping[str, Any]], title: str, unit: str, select_on: str, path: Path
) -> Path:
    """Plot the estimated losses of one run, per `unit`, as a PNG at `path`; returns `path`."""
    figure = new_figure()
    axes = figure.add_subplot()
    lines = list(evaluations)
    for key, label in {"train_loss": "Training loss", "val_loss": SCORED_SPLITS[select_on]}.items():
        values = [line[key] for line in lines]
        at = [line["iteration"] for line in lines]
        axes.plot(at, values, color=COLOURS[key], linewidth=2, label=label)
    axes.set_title(escape_for_plot(title), loc="left", fontweight="bold")
    axes.set_xlabel("iteration")
    axes.set_ylabel(f"nats per {unit}, estimated")
    axes.legend(frameon=False)
    with files.write_atomically(path) as file:
        figure.savefig(file, format="png", dpi=150)
    return path
