"""The suffix array beside a plain search of all places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drakegpt.data import suffix_array
from drakegpt.data.suffix_array import build_suffix_array, load_suffix_array
from drakegpt.errors import CorpusError, NotEnoughMemoryError

# Repeats, zeros, which fill up the last block, and all bytes.
texts = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"ab", b"a", b"\0", b"\xff", b"abc" * 5])).map(b"".join),
)


@given(texts, texts)
def test_matches_are_the_longest_there_are(text, query):
    built = build_suffix_array(text)
    lengths, places = built.measure_matches(query)
    for start, (length, place) in enumerate(zip(lengths.tolist(), places.tolist(), strict=True)):
        longest = max(n for n in range(len(query) - start + 1) if query[start : start + n] in text)
        assert length == longest
        assert text[place : place + length] == query[start : start + length]


@given(texts, texts)
def test_a_piece_is_found_wherever_it_stands(text, piece):
    built = build_suffix_array(text)
    low, high = built.find(piece)
    places = [start for start in range(len(text)) if text.startswith(piece, start)]
    assert sorted(built.order[low:high].tolist()) == places


@given(texts)
def test_the_suffixes_are_in_order(text):
    order = build_suffix_array(text).order.tolist()
    assert order == sorted(range(len(text)), key=lambda start: text[start:])


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_long_query_is_searched_in_parts(monkeypatch, at_once):
    monkeypatch.setattr(suffix_array, "AT_ONCE", at_once)
    text, query = b"the night is long, the road is long", b"long is the night, and the road is"
    lengths, _ = build_suffix_array(text).measure_matches(query)
    monkeypatch.undo()
    assert np.array_equal(lengths, build_suffix_array(text).measure_matches(query)[0])


def test_it_is_kept_beside_the_dataset_and_only_mapped_then(prepared, monkeypatch):
    built = load_suffix_array(prepared)
    folder = prepared.folder / "suffixes"
    size = sum(path.stat().st_size for path in folder.iterdir())
    characters = sum(map(len, prepared.iter_text("train")))
    assert size < 5 * characters + 1000
    monkeypatch.setattr(suffix_array, "build_suffix_array", None)
    again = load_suffix_array(prepared)
    assert np.array_equal(again.order, built.order)
    assert again.measure_matches(b"the rain")[0].tolist() == (
        built.measure_matches(b"the rain")[0].tolist()
    )


@pytest.mark.parametrize("name", ["order.npy", "text.npy", "suffixes.json"])
def test_a_damaged_one_is_built_again(prepared, caplog, name):
    right = load_suffix_array(prepared).order.tolist()
    path = prepared.folder / "suffixes" / name
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert load_suffix_array(prepared).order.tolist() == right
    assert "cannot be read: made again" in caplog.text


def test_a_text_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(suffix_array, "LONGEST", 5)
    with pytest.raises(CorpusError, match="6 bytes"):
        build_suffix_array(b"abcdef")


def test_a_text_that_does_not_fit_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(suffix_array, "CHECKED_FROM", 5)
    assert build_suffix_array(b"abcdef").length == 6
    monkeypatch.setattr(suffix_array, "BYTES_WHILE_BUILT", 2**50)
    with pytest.raises(NotEnoughMemoryError, match="to search the text for copies"):
        build_suffix_array(b"abcdef")
