"""CSVs as Python's own writer makes them are read alike, whatever the pieces they come in."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakegpt.data.tables import SEPARATORS, Row, Table, detect_separator

cells = st.text(st.sampled_from('ab ",;\t\n\x0b\u2028é👩\0'), max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=5),
    st.sampled_from(list(SEPARATORS)),
    st.booleans(),
    st.integers(1, 4),
)
def test_what_python_writes_is_what_is_read(rows, separator, all_quoted, size):
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if all_quoted else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=separator, lineterminator="\n", quoting=quoting).writerows(rows)
    text = file.getvalue()
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    read = list(Table(pieces, separator, "x.csv"))
    assert [row.texts() for row in read] == rows
    lines = [sum(cell.count("\n") for cell in row) + 1 for row in rows]
    assert [row.line for row in read] == [1 + sum(lines[:i]) for i in range(len(rows))]


def test_only_the_wanted_cells_are_kept():
    table = Table(["a,b\n1,2\n3,4\n"], ",", "x.csv")
    read = []
    for row in table:
        read.append(row.texts())
        table.column = 1
    assert read == [["a", "b"], ["", "2"], ["", "4"]]


@pytest.mark.parametrize(
    ("line", "column", "separator"),
    [
        ("a,Lyric", "Lyric", ","),
        ("a, Lyric ;b", "Lyric ;b", ","),
        ("a,b;Lyric", "Lyric", ";"),
        ("\tLyric", "Lyric", "\t"),
        ('"a;b;c",d', "Lyric", ","),
        ("a;b;c", "Lyric", ";"),
        ("Lyric", "Lyric", ","),
        ('"never closed', "Lyric", ","),
        ("", "Lyric", ","),
    ],
)
def test_the_separator_is_what_makes_the_column_one(line, column, separator):
    assert detect_separator(line, column) == separator


def test_long_cells_come_in_pieces_of_whole_characters(monkeypatch):
    monkeypatch.setattr("drakegpt.data.tables.PIECE", 5)
    row = Row(1)
    row.cells = [bytearray("日本 👩 é".encode())]
    assert "".join(row.pieces(0)) == "日本 👩 é"
    assert row.has_text(0)
