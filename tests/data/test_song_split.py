"""No song stands on both sides, wherever its copies are."""

import random
import re
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.data import overlap, preprocess
from drakegpt.data.corpus import Document
from drakegpt.data.prepare import prepare_dataset
from drakegpt.data.song_split import LEFT_OUT, TRAIN, VAL, DividedSongs, fold, split_songs
from drakegpt.errors import CorpusError

ABOUT = {"source": "t", "provenance": "t", "source_sha256": ""}
WORDS = "rain window street light late again morning coffee blue river hold letting home".split()


class Songs:
    """Songs in memory, each in two pieces."""

    has_songs, left_out = True, 0

    def __init__(self, songs):
        self.songs = songs

    def documents(self, report=None):
        for number, song in enumerate(self.songs):
            yield Document([song[:7], song[7:]], f"title {number}")
            if report:
                report(number + 1, len(self.songs))


def make_songs(count, seed=1, lines=8):
    chance = random.Random(seed)
    return [
        "\n".join(" ".join(chance.choices(WORDS, k=6)) for _ in range(lines)) for _ in range(count)
    ]


def letters(song):
    """What makes two songs the same, in the plainest way."""
    return "".join(c for c in song.casefold() if c.isalnum()) or song


def split(songs, **how):
    return split_songs(Songs(songs), **{"by_songs": True, "dedupe": False, **how})


some_songs = st.lists(
    st.sampled_from([*make_songs(6), "A b!", "a B", "ab", "?!", "!?", "", "É", "é.", "x" * 900]),
    max_size=30,
)


@given(some_songs, st.booleans())
def test_copies_stand_on_one_side_and_nothing_is_lost(songs, dedupe):
    found = split(songs, dedupe=dedupe)
    sides = dict.fromkeys(map(letters, songs), ())
    for song, side in zip(songs, found.sides, strict=True):
        sides[letters(song)] = (*sides[letters(song)], int(side))
    for side in sides.values():
        if dedupe:
            assert side[0] != LEFT_OUT
            assert set(side[1:]) <= {LEFT_OUT}
        else:
            assert len(set(side)) == 1
            assert side[0] != LEFT_OUT
    assert found.exact_copies == len(songs) - len(set(songs))
    assert found.exact_copies + found.near_copies == len(songs) - len(sides)
    sizes = np.array([len(song) + 1 for song in songs])
    assert found.train_characters == sum(sizes[found.sides == TRAIN])
    assert found.by_songs == (VAL in found.sides)
    if found.by_songs:
        assert sum(sizes[found.sides == VAL]) <= found.train_characters


@pytest.mark.parametrize("count", [10, 40, 400])
def test_about_a_tenth_is_for_validation(count):
    songs = make_songs(count)
    found = split(songs)
    total = sum(len(song) + 1 for song in songs)
    assert 1 - found.train_characters / total == pytest.approx(0.1, abs=0.6 / count)


def test_the_song_decides_and_not_its_place():
    songs = make_songs(50)
    held_out = {song for song, side in zip(songs, split(songs).sides, strict=True) if side == VAL}
    mixed = random.Random(2).sample(songs, len(songs))
    assert {s for s, side in zip(mixed, split(mixed).sides, strict=True) if side == VAL} == held_out
    assert held_out != set(songs[-len(held_out) :])


def test_most_songs_stay_on_their_side_when_others_are_added():
    songs = make_songs(100)
    before, after = split(songs).sides, split([*songs, *make_songs(10, seed=9)]).sides
    assert (before != after[:100]).sum() <= 2


@pytest.mark.parametrize("count", [2, 3, 5])
def test_few_songs_are_divided_as_well_as_they_can_be(count):
    found = split(make_songs(count))
    assert found.by_songs
    assert (found.sides == VAL).sum() == 1


@pytest.mark.parametrize("songs", [[], ["one song"], ["One song!", "one  song"], ["a", "x" * 500]])
def test_what_cannot_be_divided_by_songs_is_not(songs):
    assert not split(songs).by_songs


def test_letters_are_folded_alike_in_pieces():
    text = "Straße, ÉTÉ_1; Ⅷ don't — 日本"
    assert b"".join(map(fold, text)) == fold(text)
    assert fold(text).decode() == re.sub(r"[\W_]", "", text.casefold())
    assert fold("Don't STOP_it 9!") == b"dontstopit9"


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("dedupe", [False, True])
def test_the_splits_are_whole_songs(kind, dedupe):
    songs = make_songs(30)
    given_ = [*songs, songs[0], songs[1].upper()]
    how = {"tokenizer": kind, "vocab_size": 300 if kind == "bpe" else None}
    data = prepare_dataset(Songs(given_), name="d", by_songs=True, dedupe=dedupe, **how, **ABOUT)
    text = {split: "".join(data.iter_text(split)) for split in ("train", "val")}
    cut = len(text["train"])
    whole = text["train"] + text["val"]
    starts = [song.start for song in data.songs] + [len(whole) + 1]
    found = [whole[a : b - 1] for a, b in pairwise(starts)]
    assert sorted(found) == sorted(songs if dedupe else given_)
    assert cut in starts
    sides = {}
    for start, song in zip(starts, found, strict=False):
        sides.setdefault(letters(song), set()).add(start < cut)
    assert all(len(side) == 1 for side in sides.values())
    for start, song in zip(data.songs, found, strict=True):
        assert given_[int(start.title.split()[1])] == song
    about = data.metadata
    assert (about.split, about.exact_copies, about.near_copies) == ("songs", 1, 1)
    assert about.copies_left_out == (2 if dedupe else None)
    assert about.val_songs_in_train == 0
    assert "2 songs repeat others" in about.copies


def test_the_split_is_part_of_the_version():
    """Also where the songs for validation happen to be the last ones."""
    songs = make_songs(40)
    sides = split(songs).sides
    ordered = [
        s for side in (TRAIN, VAL) for s, own in zip(songs, sides, strict=True) if own == side
    ]
    first = prepare_dataset(Songs(ordered), name="d", **ABOUT).metadata
    second = prepare_dataset(Songs(ordered), name="d", by_songs=True, **ABOUT).metadata
    assert first.text_sha256 == second.text_sha256
    assert first.version != second.version
    assert first.train_tokens != second.train_tokens
    again = prepare_dataset(Songs(ordered), name="d", **ABOUT).metadata
    assert again == first


@pytest.mark.parametrize("count", [39, 41])
def test_songs_that_come_or_go_meanwhile_are_refused(count):
    songs = make_songs(40)
    found = split(songs)
    changed = DividedSongs(Songs(make_songs(count)), found)
    with pytest.raises(CorpusError, match="changed while"):
        list(preprocess.scan(changed).alphabet)


def test_progress_of_both_readings_is_one(tmp_path):
    songs = make_songs(20)
    seen = []
    for document in DividedSongs(Songs(songs), split(songs)).documents(
        lambda *report: seen.append(report)
    ):
        list(document)
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)


def measure(songs, *, by_songs, dedupe=False):
    """The share of validation, and its songs, that stand in training too."""
    corpus = Songs(songs)
    found = split(songs, by_songs=by_songs, dedupe=dedupe)
    divided = DividedSongs(corpus, found)
    stats = preprocess.scan(divided, None, found.train_characters if found.by_songs else None)
    shared = overlap.measure_overlap(divided, stats)
    return SimpleNamespace(share=shared.share, songs=shared.songs)


def test_duplicated_songs_no_longer_leak_into_validation():
    """Of 400 songs 30 % are copies of others, at random places."""
    chance = random.Random(4)
    originals = make_songs(280)
    songs = chance.sample([*originals, *chance.choices(originals, k=120)], 400)
    before = measure(songs, by_songs=False)
    after = measure(songs, by_songs=True)
    deduped = measure(songs, by_songs=True, dedupe=True)
    assert before.share > 0.4
    assert before.songs > 15
    assert (after.share, after.songs) == (0, 0)
    assert (deduped.share, deduped.songs) == (0, 0)
