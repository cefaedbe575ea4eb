"""N-gram counts kept beside a dataset: the same as those counted, and counted again if damaged."""

import json
from unittest.mock import patch

import numpy as np
import pytest
from learning import prepare

from drakegpt.data import stored_arrays, stored_ngrams
from drakegpt.data.ngrams import fit, limit_order
from drakegpt.data.stored_ngrams import load_ngrams
from drakegpt.errors import DamagedDatasetError

ARRAYS = "grams contexts starts occurrences first_shares first_backoff lower_shares lower_backoff"
FILES = ["ngrams.json", *(f"{name}.npy" for name in ARRAYS.split())]


def check(found, data, order):
    expected = fit(data.split("train").numpy(), data.tokenizer.vocab_size, order)
    assert (found.order, found.sizes) == (expected.order, expected.sizes)
    val = data.split("val").numpy()
    for end in (0, 1, 5, 40):
        assert (found.distribution(val[:end]) == expected.distribution(val[:end])).all()
    places = np.arange(len(val))
    pairs = (each.predict(val, places, places) for each in (found, expected))
    for ours, theirs in zip(*pairs, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a == b).all()


def no_counting():
    return patch.object(stored_ngrams, "fit", side_effect=AssertionError("counted again"))


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_they_are_counted_once(corpus, kind):
    data = prepare(corpus, tokenizer=kind, vocab_size=300 if kind == "bpe" else None)
    check(load_ngrams(data, 4), data, 4)
    with no_counting():
        check(load_ngrams(data, 4), data, 4)
    check(load_ngrams(data, 2), data, 2)


def test_the_order_is_one_whose_keys_fit(prepared):
    highest = limit_order(prepared.tokenizer.vocab_size, 99)
    assert load_ngrams(prepared, 99).order == highest
    with no_counting():
        assert load_ngrams(prepared, 99).order == highest


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_files_are_replaced(prepared, name, damage, caplog):
    load_ngrams(prepared, 3)
    path = prepared.folder / "ngrams-3" / name
    good = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(good[:-9] if damage == "cut" else good[:-2] + bytes([good[-2] ^ 1, 7]))
    check(load_ngrams(prepared, 3), prepared, 3)
    assert "cannot be read: made again" in caplog.text
    assert path.read_bytes() == good


@pytest.mark.parametrize("name", ["format", "order", "vocab_size"])
def test_counts_of_another_kind_are_replaced(prepared, name):
    load_ngrams(prepared, 3)
    path = prepared.folder / "ngrams-3" / "ngrams.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {name: info[name] + 1}))
    check(load_ngrams(prepared, 3), prepared, 3)
    assert json.loads(path.read_text()) == info


def test_counts_that_cannot_be_kept_are_used(prepared, caplog):
    with patch.object(
        stored_arrays.files, "write_folder_atomically", side_effect=OSError(28, "full")
    ):
        check(load_ngrams(prepared, 3), prepared, 3)
    assert "cannot be kept" in caplog.text


def test_a_damaged_text_is_not_counted(prepared):
    path = prepared.folder / "train.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(DamagedDatasetError):
        load_ngrams(prepared, 3)
