"""Curves in a terminal: the floors are lines of their own, level and named."""

import io
import itertools
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from drakegpt.cli.curves import curves
from drakegpt.evaluation.ngrams import Floor
from drakegpt.evaluation.scoring import Score

EVALUATIONS = [{"iteration": i, "val_loss": loss} for i, loss in ((100, 3.0), (200, 2.5))]
ROWS = [SimpleNamespace(model="BigramLM", label="BigramLM", evaluations=EVALUATIONS)]
FLOORS = [Floor(1, 8, Score(3.5, 9, 9)), Floor(5, 8, Score(2.0, 9, 9))]


def drawn(colour, floors=FLOORS, entropy=None, rows=ROWS, width=100):
    screen = Console(
        file=io.StringIO(), width=width, force_terminal=colour, legacy_windows=False,
        color_system="standard" if colour else None,
    )  # fmt: skip
    screen.print(curves("val_loss", rows, screen, floors, entropy))
    return screen.file.getvalue()


@pytest.fixture
def _in_colour(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")


def plot_of(shown):
    """The rows of the plot, top first: the loss each stands for, and its characters."""
    rows = [
        line for line in re.sub(r"\x1b\[[\d;]*m", "", shown).split("\n") if re.search("[│┤]", line)
    ]
    at = {n: float(line.split()[0]) for n, line in enumerate(rows) if "┤" in line}
    (first, high), *_, (last, low) = at.items()
    step = (high - low) / (last - first)
    return [(high - (n - first) * step, re.split("[│┤]", line)[1]) for n, line in enumerate(rows)]


@pytest.mark.usefixtures("_in_colour")
def test_in_colour_floors_are_level_lines_of_grey_dots():
    shown = drawn(colour=True)
    rows = [line for line in shown.split("\n") if re.search("[│┤]", line)]
    grey = [n for n, line in enumerate(rows) if "\x1b[90m" in line]
    assert [rows[n].split()[0] for n in grey] == ["3.5", "2.0"]  # which stand on the axis
    # The upper is in sight at every third place, the lower at every one.
    upper, lower = (rows[n].count("\x1b[90m") for n in grey)
    assert lower == 72
    assert upper == 24
    for label in ("1-gram counts", "5-gram counts"):
        assert label in shown
    assert "\x1b[90m" not in drawn(colour=True, floors=[])


@pytest.mark.usefixtures("_in_colour")
def test_a_curve_lies_where_the_axes_say():
    plot = plot_of(drawn(colour=True, floors=[]))
    places = [[place for place, dot in enumerate(row) if dot > "\u2800"] for _, row in plot]
    (top, *_), (bottom, *_) = ([n for n, row in enumerate(places) if row][end:] for end in (0, -1))
    assert plot[top][0] == pytest.approx(3.0, abs=0.05)
    assert plot[bottom][0] == pytest.approx(2.5, abs=0.05)
    assert min(places[top]) in (35, 36)  # iteration 100 of 200, of 72 columns
    assert max(places[bottom]) == 71


@pytest.mark.usefixtures("_in_colour")
@pytest.mark.parametrize("width", [50, 60, 80, 120])
@pytest.mark.parametrize("last", [1, 2, 7, 200, 10_000, 1_000_000])
def test_the_axes_are_round_and_fit_the_screen(width, last):
    evaluations = [{"iteration": i, "val_loss": loss} for i, loss in ((0, 3.0), (last, 2.5))]
    rows = [SimpleNamespace(model="BigramLM", label="BigramLM", evaluations=evaluations)]
    lines = re.sub(r"\x1b\[[\d;]*m", "", drawn(colour=True, rows=rows, width=width)).split("\n")
    axis = next(n for n, line in enumerate(lines) if "└" in line)
    assert lines[axis + 2].split() == ["iteration"]  # nothing was wrapped
    assert max(map(len, lines)) <= width
    ticks = [int(number.replace(",", "")) for number in lines[axis + 1].split()]
    assert ticks[0] == 0
    (step,) = {later - earlier for earlier, later in itertools.pairwise(ticks)}
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert ticks[-1] <= last < ticks[-1] + step
    assert lines[axis].count("┬") == len(ticks)


@pytest.mark.usefixtures("_in_colour")
def test_a_loss_that_is_no_number_is_left_out():
    broken = [*EVALUATIONS, {"iteration": 300, "val_loss": float("nan")}]
    rows = [SimpleNamespace(model="BigramLM", label="BigramLM", evaluations=broken)]
    assert re.search("[⠁-⣿]", drawn(colour=True, rows=rows))
    alone = [SimpleNamespace(model="BigramLM", label="BigramLM", evaluations=broken[-1:])]
    assert "iteration" in drawn(colour=True, floors=[], rows=alone)
    one = [SimpleNamespace(model="BigramLM", label="BigramLM", evaluations=EVALUATIONS[:1])]
    assert re.search("[⠁-⣿]", drawn(colour=True, floors=[], rows=one))


def test_without_colour_floors_are_rows_with_their_loss():
    lines = drawn(colour=False).splitlines()
    assert [line.split()[0] for line in lines] == ["BigramLM", "1-gram", "5-gram"]
    assert [line.split()[-1] for line in lines] == ["2.50", "3.50", "2.00"]


@pytest.mark.usefixtures("_in_colour")
def test_the_entropy_of_the_source_is_a_level_line_below_all():
    shown = drawn(colour=True, entropy=1.5)
    assert "─ entropy of the source" in shown
    loss, dots = [(loss, row) for loss, row in plot_of(shown) if row.strip("\u2800")][-1]
    assert loss == pytest.approx(1.5, abs=2 / 12 * 1.1)
    assert "\u2800" not in dots
    assert drawn(colour=False, entropy=1.5).splitlines()[-1].split()[-1] == "1.50"
