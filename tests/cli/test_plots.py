"""Curves in a terminal: a row of bars for each model, and a level row for what counting reaches."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from drakegpt.cli.plots import draw_curves
from drakegpt.cli.short_forms import BARS, sparkline
from drakegpt.evaluation.baseline import Baseline
from drakegpt.evaluation.scoring import Score

NAN = float("nan")
FLOORS = [Baseline(1, 8, Score(3.5, 9, 9), 99), Baseline(5, 8, Score(2.0, 9, 9), 99)]


def row(*losses, name="BigramLM", scored_on="validation"):
    evaluations = [{"iteration": 100 * n, "val_loss": loss} for n, loss in enumerate(losses)]
    return SimpleNamespace(label=name, evaluations=evaluations, scored_on=scored_on)


def drawn(rows, baselines=FLOORS, width=100, terminal=False):
    screen = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, legacy_windows=False,
        color_system="standard" if terminal else None,
    )  # fmt: skip
    screen.print(draw_curves("val_loss", rows, width, baselines))
    return screen.file.getvalue()


def test_each_row_has_its_first_and_last_loss_and_floors_theirs():
    lines = drawn([row(3.0, 2.75, 2.5)]).splitlines()
    assert lines[0].split() == ["BigramLM", "3.00", "█▅▁", "2.50"]
    assert lines[1].split() == ["1-gram", "counts", "╌╌╌", "3.50"]
    assert lines[2].split() == ["5-gram", "counts", "╌╌╌", "2.00"]
    assert "\x1b[" not in "".join(lines)


@pytest.mark.parametrize("width", [50, 60, 80, 120])
@pytest.mark.parametrize("evaluations", [1, 2, 20, 1000])
def test_rows_fit_the_screen_and_lose_nothing(width, evaluations):
    rows = [row(*(3 - n / 1000 for n in range(evaluations)), name="SingleHeadAttentionLM")]
    lines = drawn(rows, width=width).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert lines[0].split()[0] == "SingleHeadAttentionLM"
    assert f"{3 - (evaluations - 1) / 1000:.2f}" == lines[0].split()[-1]


def test_a_curve_of_the_tail_is_marked_among_others():
    tail = row(3.0, 2.5, name="BlocksLM", scored_on="training-tail")
    assert "BlocksLM (tail)" in drawn([row(3.0, 2.5), tail])
    assert "(tail)" not in drawn([tail])


def test_a_terminal_gets_colour():
    assert "\x1b[32m" in drawn([row(3.0, 2.5)], terminal=True)


def test_no_curves_are_said_to_be_none():
    assert "no curves" in drawn([])


def test_a_sparkline_by_hand():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == BARS
    assert sparkline([2.0]) == "▁"
    assert sparkline([]) == ""
    assert sparkline([NAN, 3.0, NAN, 2.0, float("inf")]) == "█▁"
    assert sparkline([8, 0, 8, 0, 0, 0, 0], width=4) == "██▁▁"  # the first, third, fifth and last
    assert sparkline(list(range(1000)), width=8) == BARS


def test_losses_that_are_no_numbers_leave_the_others():
    lines = drawn([row(3.0, NAN, 2.5), row(NAN, NAN, name="BlocksLM")], baselines=[]).splitlines()
    assert lines[0].split() == ["BigramLM", "3.00", "█▁", "2.50"]
    assert lines[1].split() == ["BlocksLM", "nan", "nan"]
