"""A dataset keeps where each of its songs begins, and what its source calls it."""

import csv
import io
import json
import os
import subprocess
import sys
from importlib import resources

import pytest

from drakegpt.data import dataset, preprocess, sources
from drakegpt.data.corpus import Document
from drakegpt.data.songs import SONGS, Song, SongRecorder, songs_from_json
from drakegpt.errors import CorpusError, DamagedDatasetError, DrakeGPTError

SAMPLE = (resources.files("drakegpt.data") / "sample_lyrics.csv").read_text(encoding="utf-8")
LONG = "la la la\n" * 20


def write_csv(path, *rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def whole_text(data):
    return "".join(piece for split in ("train", "val") for piece in data.iter_text(split))


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_each_song_of_the_sample_begins_where_it_is_said_to(tokenizer):
    """What Python's csv reads in the bundled file stands at these places of the text."""
    data = sources.fetch("sample", tokenizer=tokenizer).dataset
    text = whole_text(data)
    rows = list(csv.DictReader(io.StringIO(SAMPLE)))
    assert len(data.songs) == len(rows) == data.metadata.songs == 52
    for song, row in zip(data.songs, rows, strict=True):
        assert text.startswith(row["Lyric"], song.start)
        assert (song.title, song.artist) == (row["Title"], row["Artist"])
    ends = [song.start - 1 for song in data.songs[1:]]
    assert {text[end] for end in ends} == {"\n"}
    assert data.songs[0].start == 0


def test_identity_is_that_of_the_text_alone(tmp_path):
    rows = [("Lyric", "Title"), (LONG, "one"), (LONG, "two")]
    named = sources.fetch(write_csv(tmp_path / "a.csv", *rows), name="a").dataset
    bare = sources.fetch(write_csv(tmp_path / "b.csv", *(r[:1] for r in rows)), name="b").dataset
    assert named.metadata.version == bare.metadata.version
    assert [song.title for song in named.songs] == ["one", "two"]
    assert [song.title for song in bare.songs] == ["", ""]
    assert [song.start for song in named.songs] == [song.start for song in bare.songs]


def test_columns_in_any_case_and_cells_without_a_name(tmp_path):
    path = write_csv(
        tmp_path / "a.csv",
        ("ARTIST", "Lyric", " title "),
        ("nan", LONG, " Two\nlines "),
        ("left out", "", "no text"),
        ("Someone", "second " + LONG, ""),
        ("x" * 500, "third " + LONG, "\u00e9\u65e5"),
    )
    first, second, third = sources.fetch(path, split="contiguous").dataset.songs
    assert first == Song(0, "Two lines", "")
    assert second == Song(len(LONG) + 1, "", "Someone")
    assert (third.title, len(third.artist)) == ("\u00e9\u65e5", 200)


def test_a_plain_text_has_no_songs(prepared):
    assert prepared.songs == ()
    assert not (prepared.folder / SONGS).exists()


def test_a_dataset_from_before_loads_and_gets_its_songs_when_fetched_again(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("Lyric",), (LONG,), (LONG,))
    data = sources.fetch(path).dataset
    (data.folder / SONGS).unlink()
    old = dataset.load("a")
    assert old.songs == ()
    old.verify()
    assert sources.fetch(path).outcome == "already there"
    assert dataset.load("a").songs == data.songs


def test_titles_that_were_corrected_are_taken_up(tmp_path):
    for title in ("Tite", "Title"):
        path = write_csv(tmp_path / "a.csv", ("Lyric", "Title"), (LONG, title), (LONG, "b"))
        data = sources.fetch(path).dataset
        assert [song.title for song in data.songs] == [title, "b"]


def test_the_same_text_that_is_songs_no_more(tmp_path):
    path = write_csv(tmp_path / "a.csv", ("Lyric",), (LONG,), (LONG,))
    songs = sources.fetch(path, name="a").dataset
    (tmp_path / "a.txt").write_text(f"{LONG}\n{LONG}")
    text = sources.fetch(str(tmp_path / "a.txt"), name="a", force=True).dataset
    assert text.folder == songs.folder
    assert text.songs == ()
    assert sources.fetch(path, name="a", force=True).dataset.songs == songs.songs


def test_songs_of_a_text_that_changes_meanwhile_are_refused(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", ("Lyric",), (LONG,), (LONG,))
    folder = sources.fetch(path).dataset.folder
    (folder / SONGS).unlink()
    fingerprint = preprocess.fingerprint

    def change(*arguments):
        result = fingerprint(*arguments)
        write_csv(tmp_path / "a.csv", ("Lyric",), (LONG,), ("other " + LONG,))
        return result

    monkeypatch.setattr(preprocess, "fingerprint", change)
    with pytest.raises(CorpusError, match="changed while"):
        sources.fetch(path)
    assert not (folder / SONGS).exists()


class Documents:
    """Songs in memory, each in two pieces."""

    has_songs, left_out = True, 0

    def __init__(self, *documents):
        self._documents = documents

    def documents(self, report=None):
        for text, title, artist in self._documents:
            yield Document([text[:3], text[3:]], title, artist)


def test_what_is_written_is_read():
    songs = ("one\ntwo", '\u65e5 "x"', "\\"), ("\u65e5", "", ""), ("three", "\x1b", "b")
    recorder = SongRecorder(Documents(*songs), (lines := []).append)
    for _ in range(2):  # a corpus may be read again
        lines.clear()
        text = "\n".join("".join(document) for document in recorder.documents())
    found = songs_from_json("".join(lines), len(text))
    assert [(song.title, song.artist) for song in found] == [song[1:] for song in songs]
    for song, (words, *_) in zip(found, songs, strict=True):
        assert text.startswith(words, song.start)
    assert songs_from_json("[\n]\n", 0) == ()


def starting(*starts):
    return json.dumps([{"start": start, "title": "", "artist": ""} for start in starts])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"start": 0}]',
        '[{"start": true, "title": "", "artist": ""}]',
        '[{"start": 0, "title": null, "artist": ""}]',
        starting(1),
        starting(0, 5, 5),
        starting(0, 22),
        "[" * 100_000,
    ],
)
def test_what_is_not_songs_is_refused(text):
    with pytest.raises(ValueError, match="."):
        songs_from_json(text, 21)


def test_damaged_songs_are_told_of_and_harm_nothing_else(tmp_path):
    data = sources.fetch(write_csv(tmp_path / "a.csv", ("Lyric",), (LONG,), (LONG,))).dataset
    (data.folder / SONGS).write_text("[{]")
    with pytest.raises(DamagedDatasetError, match=r"songs\.json"):
        _ = dataset.load("a").songs
    assert whole_text(dataset.load("a")) == f"{LONG}\n{LONG}"


KILLED = """
import os, sys
from drakegpt import files
from drakegpt.data import dataset, preprocess, sources
text, real = sys.argv[1], files.write_atomically
for kill_at in range(20):
    process = os.fork()
    if not process:
        os.environ["DRAKEGPT_HOME"] += f"/{kill_at}"
        written = []
        def write(path, *rest):
            if len(written) == kill_at:
                os._exit(9)
            written.append(path)
            return real(path, *rest)
        files.write_atomically = write
        sources.fetch(text)
        os._exit(0)
    if not os.waitpid(process, 0)[1]:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are killed are forked")
def test_a_kill_between_two_writes_leaves_a_whole_dataset_or_none(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "a.csv", ("Lyric", "Title"), (LONG, "x"), (LONG, "y"))
    homes = tmp_path / "homes"
    environment = os.environ | {"DRAKEGPT_HOME": str(homes)}
    command = [sys.executable, "-c", KILLED, path]
    subprocess.run(command, env=environment, check=True)
    found = []
    for home in sorted(homes.iterdir(), key=lambda folder: int(folder.name)):
        monkeypatch.setenv("DRAKEGPT_HOME", str(home))
        try:
            data = dataset.load("a")
        except DrakeGPTError:
            assert dataset.list_names() == []
            found.append(False)
        else:
            data.verify()
            assert [song.title for song in data.songs] == ["x", "y"]
            found.append(True)
        assert sources.fetch(path).dataset.songs  # and the next fetch is not in its way
    assert found[:4] == [False] * 4
    assert found[-2:] == [True] * 2
