"""The figure of copied text: how soon n-grams are new, and how copying grew in training."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drakegpt import home
from drakegpt.plotting import new_figure, write_figure
from drakegpt.wording import escape_for_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from drakegpt.runs.originality import CopiedAt, Judgement

OURS, PEOPLE = "#440154", "#20a386"


def draw_originality(judgement: "Judgement", name: str, data: str, file: str) -> list[Path]:
    """Draw judged texts beside people, as PNG and SVG named `file`, among the dataset's figures.

    Where the run wrote texts along its training, their copied shares are drawn too.
    """
    course = len(judgement.course) > 1
    figure = new_figure(10 if course else 6, 4)
    axes: Sequence[Axes] = figure.subplots(1, 2 if course else 1, squeeze=False)[0]
    _draw_novelty(axes[0], judgement, name)
    if course:
        _draw_course(axes[1], judgement.course, judgement)
    for each in axes:
        each.grid(axis="y", color="#dddddd", linewidth=0.8)
        each.spines[["top", "right"]].set_visible(False)
        each.set_ylim(-2, 102)
        each.legend(frameon=False)
    return write_figure(figure, home.comparisons() / data, file)


def _draw_novelty(axes: "Axes", judgement: "Judgement", name: str) -> None:
    lines = (name, judgement.all, OURS), ("people", judgement.people.whole, PEOPLE)
    for label, judged, colour in lines:
        lengths = range(1, len(judged.novelty) + 1)
        percent = [100 * share for share in judged.novelty]
        axes.plot(lengths, percent, color=colour, linewidth=2, label=escape_for_plot(label))
    axes.set_title("Runs that the training text does not hold", loc="left", fontweight="bold")
    axes.set_xlabel("characters of a run")
    axes.set_ylabel("% of all runs")


def _draw_course(axes: "Axes", course: "Sequence[CopiedAt]", judgement: "Judgement") -> None:
    from drakegpt.evaluation.originality import LENGTHS

    iterations = [each.iteration for each in course]
    shares = [100 * each.share for each in course]
    axes.plot(iterations, shares, color=OURS, linewidth=2, marker=".", label="what the run wrote")
    people = 100 * judgement.people.whole.shares[0]
    axes.axhline(people, color=PEOPLE, linewidth=2, linestyle="--", label="people")
    axes.set_title("Copied, along the training", loc="left", fontweight="bold")
    axes.set_xlabel("iteration")
    axes.set_ylabel(f"% of characters in runs of {LENGTHS[0]} or more")
