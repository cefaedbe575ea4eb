"""Texts read in chunks are the texts read at once."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakegpt.data import corpus
from drakegpt.data.corpus import CsvColumn, TextFile, parts
from drakegpt.errors import CorpusError, FetchError

fragments = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"a", b"bc\x0b", "é".encode(), "日".encode(), "👩".encode(),
     "\u2028".encode(), b"\xef\xbb\xbf", b"\xc3", b"\xff", b"\xfe", b"\xe6\x97"]
)  # fmt: skip


def at_once(raw):
    """The text of a file's bytes or what is wrong with them, in the plainest way."""
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    try:
        text = raw[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        place = error.start + start
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            return None, "not UTF-8 but UTF-16: line 1 begins with its mark"
        line = raw.count(b"\n", 0, place) + 1
        return None, f"line {line} has the byte 0x{raw[place]:02x} at position {place}."
    return text.replace("\r\n", "\n").replace("\r", "\n"), None


@settings(max_examples=300)
@given(st.lists(fragments, max_size=12).map(b"".join), st.integers(1, 5))
def test_chunks_make_no_difference(raw, size):
    chunks = [raw[i : i + size] for i in range(0, len(raw), size)]
    text, problem = at_once(raw)
    if problem is None:
        assert "".join(corpus._decoded(chunks, "x.txt")) == text
    else:
        with pytest.raises(CorpusError) as caught:
            list(corpus._decoded(chunks, "x.txt"))
        assert problem in caught.value.problem


@given(st.lists(st.text("ab\n\x0b\u2028", max_size=5), max_size=5))
def test_lines_end_at_line_feeds_alone(pieces):
    text = "".join(pieces)
    assert list(corpus._lines(pieces)) == list(io.StringIO(text, newline="\n"))


def test_a_csv_comes_song_by_song_whatever_the_chunks(tmp_path, monkeypatch):
    songs = ['one, "two"\nthree', "  ", "", "fünf\n\nsechs", "x" * 100]
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerows([("id", "words"), *enumerate(songs)])
    (tmp_path / "t.csv").write_bytes(table.getvalue().encode("utf-8-sig"))
    for size in (1, 2, 3, 7, 1000):
        monkeypatch.setattr(corpus, "CHUNK", size)
        text = CsvColumn(tmp_path / "t.csv", "words", "t.csv")
        assert ["".join(song) for song in text.documents()] == [songs[0], songs[3], songs[4]]
        assert list(parts(text)) == [songs[0], None, songs[3], None, songs[4]]


def test_progress_ends_with_everything(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "CHUNK", 10)
    (tmp_path / "t.txt").write_bytes(b"a" * 95)
    seen = []
    list(parts(TextFile(tmp_path / "t.txt", "t.txt"), lambda *report: seen.append(report)))
    assert seen[0] == (10, 95)
    assert seen[-1] == (95, 95)


def test_a_file_that_went_away_is_explained(tmp_path):
    with pytest.raises(FetchError, match=r"t\.txt cannot be read: No such file"):
        list(parts(TextFile(tmp_path / "t.txt", "t.txt")))
