"""Curves in a terminal: the floors are lines of their own, level and named."""

import io
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


def drawn(colour, floors=FLOORS, entropy=None):
    screen = Console(
        file=io.StringIO(), width=100, force_terminal=colour, legacy_windows=False,
        color_system="standard" if colour else None,
    )  # fmt: skip
    screen.print(curves("val_loss", ROWS, screen, floors, entropy))
    return screen.file.getvalue()


@pytest.fixture
def _in_colour(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")


@pytest.mark.usefixtures("_in_colour")
def test_in_colour_floors_are_level_lines_of_grey_dots():
    shown = drawn(colour=True)
    grey = [line for line in shown.split("\n") if "|" in line and "\x1b[90m" in line]
    assert len(grey) == 2
    levels = [float(re.match(r" *([\d.]+) \|", line)[1]) for line in grey]
    step = (3.5 - 2.0) / 12 * 1.1
    assert levels == pytest.approx([3.5, 2.0], abs=step)
    # The upper is in sight at every third place, the lower at every one.
    upper, lower = (line.count("\x1b[90m") for line in grey)
    assert lower == 72
    assert upper == 24
    for label in ("1-gram counts", "5-gram counts"):
        assert label in shown
    assert "\x1b[90m" not in drawn(colour=True, floors=[])


def test_without_colour_floors_are_rows_with_their_loss():
    lines = drawn(colour=False).splitlines()
    assert [line.split()[0] for line in lines] == ["BigramLM", "1-gram", "5-gram"]
    assert [line.split()[-1] for line in lines] == ["2.50", "3.50", "2.00"]


@pytest.mark.usefixtures("_in_colour")
def test_the_entropy_of_the_source_is_a_level_line_below_all():
    shown = drawn(colour=True, entropy=1.5)
    assert "─ entropy of the source" in shown
    lowest = [line for line in shown.split("\n") if re.search(r"[⠀-⣿]{60}", line)][-1]
    assert float(re.match(r" *([\d.]+) \|", lowest)[1]) == pytest.approx(1.5, abs=2 / 12 * 1.1)
    assert drawn(colour=False, entropy=1.5).splitlines()[-1].split()[-1] == "1.50"
