"""Tables on screens of any width: no crash, names whole, and what is left out is named."""

import pytest

from drakegpt.cli import console, tables
from drakegpt.cli.console import Screen
from drakegpt.cli.tables import Column, show_table

LONG = "TransformerLM-a-name-of-more-than-fifty-characters-2026"
ROWS = [("BigramLM", "1,000", "2.1234", ""), (LONG, "2", "1.9", "a long story " * 5)]
COLUMNS = (
    Column("run", lambda row: row[0]),
    Column("iterations", lambda row: row[1], 2),
    Column("validation\nloss", lambda row: row[2]),
    Column("from", lambda row: row[3], 1, wraps=True),
)


def shown(monkeypatch, capsys, width, rows=ROWS, columns=COLUMNS, title="Runs"):
    screen = Screen(width=width)
    monkeypatch.setattr(console, "results", lambda: screen)
    show_table(title, columns, rows)
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [1, 2, 8, 20, 30, 40, 60, 80, 100, 140])
def test_names_and_vital_values_are_whole_at_any_width(monkeypatch, capsys, width):
    out = shown(monkeypatch, capsys, width)
    for value in ("BigramLM", LONG, "2.1234", "1.9"):
        assert any(value in line for line in out.splitlines())
    assert "…" not in out
    table = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    assert all(len(line) <= width for line in table)


def test_a_narrow_screen_does_without_the_least_important_first(monkeypatch, capsys):
    assert "Left out" not in shown(monkeypatch, capsys, 140)
    some = shown(monkeypatch, capsys, 100)
    assert "Left out: iterations. Widen the window or use --json." in some
    fewer = shown(monkeypatch, capsys, 76)
    assert "Left out: iterations, from" in " ".join(fewer.split())


def test_a_row_that_does_not_fit_becomes_lines(monkeypatch, capsys):
    out = shown(monkeypatch, capsys, 30).splitlines()
    place = out.index("BigramLM")
    assert out[place : place + 4] == [
        "BigramLM", "  iterations: 1,000", "  validation loss: 2.1234", LONG,
    ]  # fmt: skip


def test_a_pipe_has_no_width(monkeypatch, capsys):
    console.results.cache_clear()
    name = "r" * 200
    show_table("", COLUMNS, [(name, "1", "2", "3")])
    console.results.cache_clear()
    out = capsys.readouterr().out
    assert name in out
    assert "iterations" in out
    assert "Left out" not in out


def test_many_rows_are_shown_as_few_are(monkeypatch, capsys):
    """They go through the table in one piece."""
    plain = COLUMNS[:3]
    few = shown(monkeypatch, capsys, 140, ROWS, plain).splitlines()
    many = shown(monkeypatch, capsys, 140, ROWS * tables.MANY, plain).splitlines()
    assert many == [*few[:-3], *few[-3:-1] * tables.MANY, few[-1]]


@pytest.mark.parametrize("times", [1, tables.MANY])
def test_a_pipe_gets_the_characters_of_a_cell_as_they_are(capsys, times):
    name = "a\ab\bc\td\ve\ff\rg\x1bh"
    console.results.cache_clear()
    show_table(name, COLUMNS, [(name, "1", "2", "")] * (times + 1))
    console.results.cache_clear()
    out = capsys.readouterr().out
    assert out.count(name) == times + 2


@pytest.mark.parametrize("width", [30, 40])
def test_every_command_fits_a_narrow_terminal(drakegpt, terminal, prepared, width):
    name = "TransformerLM-of-the-second-of-november"
    tiny = ("--iters", 2, "--eval-iters", 1, "--embedding-dim", 8, "-q")
    assert drakegpt("train", "TransformerLM", *tiny, "--name", name).code == 0
    for command in ("runs", "data list", "data show", f"eval {name}", "params", "compare --claims",
                    "runs --help", "generate --help", f"runs show {name}"):  # fmt: skip
        seen = terminal(*command.split(), columns=width)
        assert seen.code == 0, seen.text
        if command == "runs":
            assert name in seen.text.splitlines()
        if command not in ("data show", "compare --claims") and "--help" not in command:
            lines = [line for line in seen.text.splitlines() if line[:1] in "┏┃┡│└"]
            assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("name", ["COLUMNS", "TERMINAL_WIDTH"])
@pytest.mark.parametrize("size", ["9" * 400, "\u00b2", "wide"])
def test_a_window_of_no_size_is_not_believed(program, name, size):
    usual = program("params", "--help")
    odd = program("params", "--help", **{name: size})
    assert odd == usual
    assert usual.code == 0
