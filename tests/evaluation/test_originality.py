"""Copied text: beside a plain search, and what people repeat, to the digit."""

import csv
import io
import os
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.data.ngrams import fit
from drakegpt.data.suffix_array import build_suffix_array
from drakegpt.data.tokenizers.char import CharTokenizer
from drakegpt.evaluation import originality
from drakegpt.evaluation.originality import (
    LENGTHS,
    expect_by_counting,
    find_spans,
    match_text,
    measure_blocks,
    measure_held_out,
    measure_originality,
    measure_songs,
)

SAMPLE = (resources.files("drakegpt.data") / "sample_lyrics.csv").read_text(encoding="utf-8")
texts = st.lists(st.sampled_from(["a", "b", "ab" * 6, "é", "日", "👩", "\r", "\0", "\n"])).map(
    "".join
)


def source_of(text):
    return build_suffix_array(text.encode())


@given(texts, texts)
def test_matches_begin_and_end_at_characters(text, source):
    matches = match_text(text, source_of(source))
    for start, length in enumerate(matches.lengths.tolist()):
        rest = range(len(text) - start + 1)
        assert length == max(n for n in rest if text[start : start + n] in source)


@given(texts, texts)
def test_spans_are_the_matches_that_are_in_no_other(text, source):
    matches = match_text(text, source_of(source))
    found = [(span.start, span.start + span.length) for span in find_spans(matches)]
    all_ = [(s, s + n) for s, n in enumerate(matches.lengths.tolist()) if n]
    inside = {(a, b) for a, b in all_ for c, d in all_ if (a, b) != (c, d) and c <= a and b <= d}
    assert found == [span for span in all_ if span not in inside]


@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_figures_are_those_of_a_plain_count(several, source):
    judged = measure_originality(several, source_of(source))
    assert judged.characters == sum(map(len, several))
    for n in (1, 2, 3, 12):
        grams = [text[i : i + n] for text in several for i in range(len(text) - n + 1)]
        new = [gram not in source for gram in grams]
        assert judged.novelty[n - 1] == pytest.approx(sum(new) / len(new) if new else 0.0)
    for least, share in zip(LENGTHS, judged.shares, strict=True):
        covered = 0
        for text in several:
            runs = range(len(text) - least + 1)
            copied = [i for i in runs if text[i : i + least] in source]
            covered += len({place for i in copied for place in range(i, i + least)})
        assert share == pytest.approx(covered / max(1, judged.characters))


def test_a_text_checked_by_hand():
    source = source_of("the night is long and the road is longer, said the driver")
    judged = measure_originality(["so the night is long and the road was long"], source)
    assert judged.longest.cut("so the night is long and the road was long") == (
        "the night is long and the road "
    )
    assert judged.longest.length == 31
    assert judged.shares == (31 / 42, 31 / 42, 0.0)


def read_songs():
    return [row["Lyric"] for row in csv.DictReader(io.StringIO(SAMPLE))]


@pytest.mark.slow
def test_what_people_repeat_in_the_bundled_songs():
    people = measure_songs(read_songs(), 1000)
    assert people.what == "each song, in all the others"
    assert people.whole.longest.length == 23
    assert [round(100 * share, 2) for share in people.whole.shares] == [0.42, 0.0, 0.0]
    mean, low, high = people.blocks.longest
    assert low <= mean <= high <= 23


@pytest.mark.skipif("TINY_SHAKESPEARE" not in os.environ, reason="needs tiny Shakespeare")
def test_what_people_repeat_in_tiny_shakespeare():
    with open(os.environ["TINY_SHAKESPEARE"], encoding="utf-8", newline="") as file:
        text = file.read()
    cut = int(0.9 * len(text))
    people = measure_held_out(text[cut:], source_of(text[:cut]), 1000)
    assert people.whole.longest.length == 31
    assert [round(100 * share, 2) for share in people.whole.shares] == [1.54, 0.08, 0.0]


def test_some_of_many_songs_are_measured(monkeypatch):
    monkeypatch.setattr(originality, "MOST_SORTED", 400)
    songs = [f"song number {number} of the night" for number in range(9)]
    assert measure_songs(songs, 10).what == "2 of 9 songs, in all the others"


def test_a_match_ends_with_its_block():
    matches = match_text("abcdefgh", source_of("abcdefgh"))
    assert measure_blocks(matches, 4).longest == (4.0, 4.0, 4.0)
    assert measure_blocks(matches, 4).blocks == 2
    assert measure_blocks(matches, 9) is None
    assert measure_blocks(matches, 0) is None


def test_a_phrase_is_what_counting_would_write_as_often():
    phrase, once = "yeah yeah yeah yeah yeah", "a quick brown fox jumps over it"
    text = f"{phrase} tonight\n" * 30 + f"{once}\n" + f"{phrase}, said the road to me\n" * 10
    tokenizer = CharTokenizer.from_text(text)
    ngrams = fit(tokenizer.encode(text), tokenizer.vocab_size, 8)
    source = source_of(text)
    assert expect_by_counting(phrase, ngrams, source, tokenizer) > 10
    assert expect_by_counting(once, ngrams, source, tokenizer) < 1
    # A beginning as short as what counting is given is written as often as it stands there.
    assert expect_by_counting("tonight\n", ngrams, source, tokenizer) == 30
