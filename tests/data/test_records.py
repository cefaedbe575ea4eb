"""Songs in JSON and Parquet, with all that such files may hold instead."""

import json
import math
import sys

import pytest

from drakegpt.data import corpus, records
from drakegpt.data.corpus import File
from drakegpt.data.records import JsonRecords, ParquetRecords
from drakegpt.errors import CorpusError


def read(tmp_path, text, column=None, name="t.jsonl"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    table = JsonRecords(File(tmp_path / name, name), column)
    songs = [("".join(song), song.title, song.artist) for song in table.documents()]
    return songs, table


def lines(*entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def test_each_line_is_a_song_and_null_ones_are_counted(tmp_path, monkeypatch):
    values = ["one\ntwo", None, "", " \n", math.nan, ["a", "b"], [], "null", "三 👩", "cr\r\nlf"]
    text = lines(*({"n": 1, "text": value} for value in values), {"n": 2}) + "\n  \n"
    for chunk in (1, 7, 10**6):
        monkeypatch.setattr(corpus, "CHUNK", chunk)
        songs, table = read(tmp_path, text)
        assert [song[0] for song in songs] == ["one\ntwo", "a\nb", "null", "三 👩", "cr\nlf"]
        assert (table.left_out, table.column) == (6, "text")


@pytest.mark.parametrize("indent", [None, 1])
def test_an_array_is_read_as_its_elements(tmp_path, indent):
    entries = [{"Lyrics": "one", "TITLE": "T", "artist": "A"}, {"Lyrics": None}, {"Lyrics": "two"}]
    songs, table = read(tmp_path, "\n " + json.dumps(entries, indent=indent), name="t.json")
    assert songs == [("one", "T", "A"), ("two", "", "")]
    assert (table.left_out, table.column) == (1, "Lyrics")


def test_strings_need_no_field(tmp_path):
    assert [song[0] for song in read(tmp_path, lines("one", "two"))[0]] == ["one", "two"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [("a.b.c", "deep"), ("x.y", "dotted"), ("top", "flat"), (" top ", "flat")],
)
def test_fields_inside_others_are_named_with_dots(tmp_path, column, expected):
    entry = {"a": {"b": {"c": "deep", "Title": "inner"}}, "x.y": "dotted", "top": "flat",
             "title": "outer"}  # fmt: skip
    ((text, title, _),), _ = read(tmp_path, lines(entry), column)
    assert (text, title) == (expected, "inner" if column == "a.b.c" else "outer")


def test_halves_of_characters_are_replaced_and_told(tmp_path):
    songs, table = read(tmp_path, '{"text": "a\\ud83d b \\ud83d\\ude00", "title": "\\udc00"}\n')
    assert songs == [("a\ufffd b 😀", "\ufffd", "")]
    assert table._file.findings.replaced == {"t.jsonl"}


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ('{"text": "a"}\n{"text": \n', None, ["line 2 is not JSON"]),
        ('\n\n{"text": "a"\n', None, ["line 3 is not JSON"]),
        ('{\n "text": "a"\n}\n', None, ["line 1 is not JSON", "one JSON object on each line"]),
        ("[1, 2", None, ["it is not JSON"]),
        ("[" * 100_000, None, ["nested too deeply"]),
        ('{"text": "a"}\n3\n', None, ["line 2 is 3, not an object"]),
        ('{"text": "a"}\n{"text": 5}\n', None, ["line 2 has 5 in 'text', not text"]),
        ('{"text": {"x": "a"}}\n', None, ["line 1 has {'x': 'a'}"]),
        ('{"text": ["a", 1]}\n', None, ["line 1 has ['a', 1]"]),
        ('{"a": {"b": "x"}, "c": 1}\n', None, ["no column 'Lyric'", "a.b, c", "--text-column"]),
        ('{"a": {"b": "x"}}\n', "a.c", ["no column 'a.c'", "Did you mean a.b"]),
        ('{"text": "' + "x" * 200 + '"}\n', None, ["line 1 has more than 100 characters"]),
        ("[" + "1," * 200 + "1]", None, ["its array has more than 100 characters"]),
    ],
)
def test_what_is_not_such_a_file_is_explained_with_its_line(
    tmp_path, monkeypatch, text, column, words
):
    monkeypatch.setattr(records, "MAX_LINE", 100 if "more than" in words[0] else 10**6)
    with pytest.raises(CorpusError) as caught:
        read(tmp_path, text, column)
    for word in words:
        assert word in str(caught.value)
    assert len(caught.value.problem) < 1000


def test_parquet_without_pyarrow_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(CorpusError, match="needs pyarrow") as caught:
        list(ParquetRecords(File(tmp_path / "a.parquet", "a.parquet")).documents())
    assert "pip install pyarrow" in caught.value.fix


def test_parquet_is_read_row_by_row(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"song": {"text": f"song {i}" if i % 3 else None, "title": f"T{i}"}} for i in range(9)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = ParquetRecords(File(tmp_path / "a.parquet", "a.parquet"), "song.text")
    songs = [("".join(song), song.title) for song in table.documents(lambda *_: None)]
    assert songs == [(f"song {i}", f"T{i}") for i in range(9) if i % 3]
    assert table.left_out == 3
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(CorpusError, match="not a readable Parquet file"):
        list(table.documents())
