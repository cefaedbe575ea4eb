"""N-gram counts kept beside a dataset, so that they are counted once and then only mapped.

    data/<name>/<version>/ngrams-<order>/   ngrams.json, and the arrays of all levels, one
                                            after another, in one file each: grams.npy, ...

They are of the whole training split.

Not here: how n-grams are counted and what their probabilities are (`ngrams`).
"""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.dataset import Dataset
from drakegpt.data.ngrams import Estimate, Level, NGrams, fit, limit_order
from drakegpt.data.stored_arrays import StoredArrays, load_or_make

FORMAT = 1  # grows when the estimate or the files change


def load_ngrams(data: Dataset, order: int) -> NGrams:
    """Map the n-grams of the training split, of up to `order` tokens; count them if need be.

    Raises `DamagedDatasetError` if they must be counted and the dataset is damaged.
    """
    vocab_size = data.tokenizer.vocab_size
    order = limit_order(vocab_size, order)
    of = {"format": FORMAT, "order": order, "vocab_size": vocab_size}

    def parse(stored: StoredArrays) -> NGrams:
        sizes = stored.facts["sizes"]
        arrays = {name: list(_divide(stored.arrays[name], sizes[name])) for name in sizes}
        return NGrams(vocab_size, tuple(_make_level(arrays, index) for index in range(order)))

    def count() -> StoredArrays:
        return _count(data, order)

    return load_or_make(data, f"ngrams-{order}", "ngrams", "n-gram counts", of, count, parse)


def _count(data: Dataset, order: int) -> StoredArrays:
    """Count n-grams; the arrays of all levels are one after another."""
    counted = fit(data.split("train").numpy(), data.tokenizer.vocab_size, order)
    levels = [_list_arrays(level) for level in counted.levels]
    arrays = {name: np.concatenate([level[name] for level in levels]) for name in levels[0]}
    sizes = {name: [len(level[name]) for level in levels] for name in levels[0]}
    return StoredArrays(arrays, {"sizes": sizes})


def _divide(array: NDArray[Any], sizes: list[int]) -> Iterator[NDArray[Any]]:
    for start, end in pairwise(accumulate(sizes, initial=0)):
        yield array[start:end]


def _list_arrays(level: Level) -> dict[str, NDArray[Any]]:
    """Name the arrays of a level."""
    return {
        "grams": level.grams,
        "contexts": level.contexts,
        "starts": level.starts,
        "occurrences": level.occurrences,
        "first_shares": level.first.shares,
        "first_backoff": level.first.backoff,
        "lower_shares": level.lower.shares,
        "lower_backoff": level.lower.backoff,
    }


def _make_level(arrays: dict[str, list[NDArray[Any]]], index: int) -> Level:
    """Make a level of what `_list_arrays` named."""
    of = {name: parts[index] for name, parts in arrays.items()}
    first = Estimate(of["first_shares"], of["first_backoff"])
    lower = Estimate(of["lower_shares"], of["lower_backoff"])
    return Level(of["grams"], of["contexts"], of["starts"], of["occurrences"], first, lower)
