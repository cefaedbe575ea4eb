"""What stands in both splits, against sets of whole lines and songs."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drakegpt.data import dataset, overlap, preprocess
from drakegpt.data.corpus import Document, Text
from drakegpt.data.metadata import SHORTEST_LINE
from drakegpt.data.overlap import find_shared_lines, iter_lines
from drakegpt.data.prepare import prepare_dataset

ABOUT = {"source": "t", "provenance": "t", "source_sha256": ""}


class Songs:
    """Songs in memory, each in two pieces."""

    has_songs, left_out = True, 0

    def __init__(self, songs):
        self.songs = songs

    def documents(self, report=None):
        for song in self.songs:
            yield Document([song[:7], song[7:]])


def in_both(songs):
    """The share and the number of songs, in the plainest way."""
    text = "\n".join(songs)
    cut = int(0.9 * len(text))
    train, val = text[:cut], text[cut:]
    known = set(train.split("\n"))
    share = sum(len(x) for x in val.split("\n") if len(x) >= SHORTEST_LINE and x in known)
    starts = [sum(len(song) + 1 for song in songs[:i]) for i in range(len(songs))]
    ours = {song for start, song in zip(starts, songs, strict=True) if start + len(song) <= cut}
    return share / len(val), sum(
        song in ours
        for start, song in zip(starts, songs, strict=True)
        if start >= cut and start + len(song) > cut  # an empty one at the cut is before it
    )


some_lines = st.sampled_from(
    ["a line of no more and no less", "another one that comes up", "é" * 19, "é" * 20, "short", ""]
)
some_songs = st.lists(
    st.lists(some_lines, min_size=1, max_size=4).map("\n".join), min_size=12, max_size=40
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(some_songs.filter(lambda songs: len("\n".join(songs)) > 20))
def test_the_figures_are_those_of_sets(songs):
    corpus = Songs(songs)
    found = overlap.measure_overlap(corpus, preprocess.scan(corpus))
    share, both = in_both(songs)
    assert found.share == pytest.approx(share, abs=1e-12)
    assert found.songs == both
    whole = Text("\n".join(songs))
    alone = overlap.measure_overlap(whole, preprocess.scan(whole))
    assert alone.share == found.share
    assert alone.songs is None


@given(st.lists(st.text("ab\n", max_size=4), max_size=6))
def test_lines_are_those_of_the_whole_text(pieces):
    expected = "".join(pieces).split("\n")
    found = list(iter_lines(pieces))
    assert [length for length, _ in found] == list(map(len, expected))
    assert [mark for _, mark in found] == [mark for x in expected for _, mark in iter_lines([x])]


def test_lines_in_both():
    assert find_shared_lines("a\nb\nc", ["x\nb", "\nc", "a\n"]) == {"b"}


def test_many_lines_are_looked_up_in_batches(monkeypatch):
    monkeypatch.setattr(overlap, "BATCH", 3)
    chance = random.Random(1)
    songs = [
        "\n".join(f"line number {chance.randrange(40)} of the songs" for _ in range(4))
        for _ in range(60)
    ]
    corpus = Songs([*songs, *songs[:3]])
    found = overlap.measure_overlap(corpus, preprocess.scan(corpus))
    assert found.songs == 3
    assert found.share == pytest.approx(in_both(corpus.songs)[0])
    assert found.share > 0.9


@pytest.mark.parametrize("tokenizer", ["char", "bpe"])
def test_the_figures_are_kept_and_older_datasets_get_them_at_the_next_fetch(tokenizer):
    songs = [f"song number {i} about rain\nand a line of its own {i * i}" for i in range(40)]
    how = {"name": "d", "tokenizer": tokenizer, **ABOUT}
    new = prepare_dataset(Songs([*songs, *songs[:2]]), **how).metadata
    assert (new.val_songs_in_train, new.rows_left_out) == (2, 0)
    assert new.val_share_in_train == in_both([*songs, *songs[:2]])[0]
    assert "2 whole songs are in both" in new.overlap
    file = dataset.load("d").folder / "dataset.json"
    import json

    stored = json.loads(file.read_text())
    for name in ("val_share_in_train", "val_songs_in_train", "rows_left_out"):
        del stored[name]
    file.write_text(json.dumps(stored))
    old = dataset.load("d").metadata
    assert (old.val_share_in_train, old.val_songs_in_train, old.overlap) == (None, None, "")
    again = prepare_dataset(Songs([*songs, *songs[:2]]), **how)
    assert again.metadata == new
    before = file.stat().st_mtime_ns
    prepare_dataset(Songs([*songs, *songs[:2]]), **how)
    assert file.stat().st_mtime_ns == before


def test_little_in_common_is_not_told():
    text = "".join(f"line number {i} of a long text\n" for i in range(2000))
    data = prepare_dataset(text + "line number 1 of a long text\n", name="d", **ABOUT)
    assert 0 < data.metadata.val_share_in_train < 0.01
    assert data.metadata.overlap == ""


def test_the_same_text_without_songs_is_measured_anew():
    songs = [f"song number {i} about rain\nand a line of its own {i * i}" for i in range(40)]
    prepare_dataset(Songs([*songs, *songs[:2]]), name="d", **ABOUT)
    text = prepare_dataset("\n".join([*songs, *songs[:2]]), name="d", **ABOUT).metadata
    assert (text.songs, text.val_songs_in_train, text.rows_left_out) == (None, None, None)
    again = prepare_dataset(Songs([*songs, *songs[:2]]), name="d", **ABOUT).metadata
    assert (again.songs, again.val_songs_in_train) == (42, 2)
