"""Songs in text files: divided by blank lines, one a file, and LRC."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.data import song_files
from drakegpt.data.corpus import File, iter_parts
from drakegpt.data.song_files import DividedText, LrcFile, SongFile, divide_text, is_divided
from drakegpt.errors import CorpusError


def songs_of(text):
    """The songs of a text with their blank lines, in the plainest way: line by line."""
    songs, blank = [[]], 0
    for line in text.split("\n"):
        begun = any(part.strip() for part in songs[-1])
        if line.strip() and begun and blank >= 2:
            songs.append([])
        blank = 0 if line.strip() else blank + 1
        songs[-1].append(line)
    return ["\n".join(lines) for lines in songs]


texts = st.lists(st.sampled_from(["a", "b c", "\n", "\n\n", " ", "\t\n", "\u3000\n", "é"])).map(
    "".join
)


@given(texts, st.integers(1, 4))
def test_songs_are_those_of_the_lines_whatever_the_pieces(text, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    parts = list(divide_text(pieces))
    assert "".join("\n" if part is None else part for part in parts) == text
    found = "".join("\0" if part is None else part for part in parts).split("\0")
    assert found == songs_of(text)


def test_a_divided_file_is_its_songs(tmp_path):
    text = "\n\none\n\nstill one\n \n\n\ntwo\n\n\nthree\n\n\n"
    (tmp_path / "t.txt").write_text(text)
    file = File(tmp_path / "t.txt", "t.txt")
    songs = ["".join(song) for song in DividedText(file).documents()]
    assert songs == ["\n\none\n\nstill one\n \n\n", "two\n\n", "three\n\n\n"]
    assert "".join("\n" if part is None else part for part in iter_parts(DividedText(file))) == text


@pytest.mark.parametrize(
    ("text", "divided"),
    [
        ("one\n\ntwo\n\nthree\n", False),
        ("one\n\n\ntwo\n", True),
        ("one\n \t\n\u3000\ntwo", True),
        ("\n\n\n\none\n\n\n\n", False),
        ("one\r\n\r\n\r\ntwo", True),
        ("one\r\r\n\r\r\ntwo", False),  # a line end of three characters is one
        ("", False),
    ],
)
def test_two_blank_lines_between_songs_divide_a_file(tmp_path, text, divided):
    (tmp_path / "t.txt").write_bytes(text.encode())
    assert is_divided(File(tmp_path / "t.txt", "t.txt")) is divided


@pytest.mark.parametrize("text", ["one\n\n\ntwo", "\n\none\n\n\ntwo\n\n\n \n", "one\n\n\ntwo  "])
def test_a_file_of_one_song_ends_with_two_blank_lines(tmp_path, text):
    (tmp_path / "t.txt").write_text(text)
    (song,) = SongFile(File(tmp_path / "t.txt", "t.txt"), "A title").documents()
    assert ("".join(song), song.title) == ("one\n\n\ntwo\n\n", "A title")


LRC = """[ti: The  Title ]
[ar:Someone]
[length: 03:12]
[00:01.50]first [verse 1] line
[00:02:30][01:00.1]sung twice
[1:02:03.456] <00:03.00>word <00:04>by word

[chorus: x]
[00:09.99]
no stamp at [10:30pm]
"""


def test_time_stamps_and_tags_of_lrc_are_removed(tmp_path):
    (tmp_path / "a.lrc").write_text(LRC)
    (song,) = LrcFile(File(tmp_path / "a.lrc", "a.lrc"), "a").documents()
    assert (song.title, song.artist) == ("The Title", "Someone")
    assert "".join(song) == (
        "first [verse 1] line\nsung twice\nword by word\n\n[chorus: x]\n\nno stamp at [10:30pm]\n\n"
    )


def test_lrc_without_a_title_has_that_of_its_file_and_none_but_stamps_is_blank(tmp_path):
    (tmp_path / "a.lrc").write_text("[00:01.00]\n[00:02.00] \n")
    (song,) = LrcFile(File(tmp_path / "a.lrc", "a.lrc"), "a").documents()
    assert (song.title, "".join(song)) == ("a", "")


def test_an_lrc_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(song_files, "MAX_LRC", 10)
    (tmp_path / "a.lrc").write_text(LRC)
    with pytest.raises(CorpusError, match="larger than the 10 bytes"):
        list(LrcFile(File(tmp_path / "a.lrc", "a.lrc"), "a").documents())


@pytest.mark.parametrize(("length", "divided"), [(100, True), (19_000, True), (21_000, False)])
def test_parts_longer_than_songs_are_none(tmp_path, length, divided):
    """A play has blank lines somewhere, too."""
    (tmp_path / "t.txt").write_text("\n\n\n".join("la" * (length // 2) for _ in range(3)))
    assert is_divided(File(tmp_path / "t.txt", "t.txt")) is divided
