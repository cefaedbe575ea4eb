"""N-gram counts kept beside a dataset, so that they are counted once and then only mapped.

    data/<name>/<version>/ngrams-<order>/   ngrams.json, and the arrays of all levels, one
                                            after another, in one file each: grams.npy, ...

They are of the whole training split. What is missing or damaged is counted again.

Not here: how n-grams are counted and what their probabilities are (`ngrams`).
"""

import json
import logging
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drakegpt import files
from drakegpt.data.dataset import Dataset
from drakegpt.data.ngrams import Estimate, Level, NGrams, fit, limit_order
from drakegpt.errors import is_out_of_memory

log = logging.getLogger("drakegpt")

FORMAT = 1  # grows when the estimate or the files change
INFO = "ngrams.json"


def load_ngrams(data: Dataset, order: int) -> NGrams:
    """Map the n-grams of the training split, of up to `order` tokens; count them if need be.

    Raises `DamagedDatasetError` if they must be counted and the dataset is damaged.
    """
    order = limit_order(data.tokenizer.vocab_size, order)
    folder = data.folder / f"ngrams-{order}"
    if folder.exists():
        try:
            return _read(folder, data.tokenizer.vocab_size, order)
        except Exception as error:  # a bad header of an array raises a dozen kinds of exceptions
            if is_out_of_memory(error):
                raise
            log.warning("The n-gram counts in %s are damaged: counting again.", folder)
    data.verify()
    counted = fit(data.split("train").numpy(), data.tokenizer.vocab_size, order)
    try:
        # Beside the version's folder, where what a killed process leaves is cleared.
        with files.write_folder_atomically(folder, data.folder.parent) as temporary:
            _write(temporary, counted)
    except OSError as error:
        log.warning("The n-gram counts cannot be kept in %s: %s.", folder, error.strerror)
    return counted


def _write(folder: Path, ngrams: NGrams) -> None:
    """Write an array of each kind, and the lengths and checksums to read it by."""
    levels = [_list_arrays(level) for level in ngrams.levels]
    sizes, checksums = {}, {}
    for name in levels[0]:
        parts = [level[name] for level in levels]
        array = np.concatenate(parts)
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
        sizes[name] = [len(part) for part in parts]
        checksums[name] = files.compute_checksum(array)
    info = {
        "format": FORMAT,
        "order": ngrams.order,
        "vocab_size": ngrams.vocab_size,
        "sizes": sizes,
        "sha256": checksums,
    }
    files.write_text(folder / INFO, json.dumps(info, indent=2))


def _read(folder: Path, vocab_size: int, order: int) -> NGrams:
    """Map the arrays and check them; raises `ValueError` if they are not those written."""
    info = files.parse_json((folder / INFO).read_text(encoding="utf-8"))
    if (info["format"], info["order"], info["vocab_size"]) != (FORMAT, order, vocab_size):
        raise ValueError("they are of another format, order or vocabulary")
    arrays = {}
    for name, sizes in info["sizes"].items():
        mapped = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if files.compute_checksum(mapped) != info["sha256"][name]:
            raise ValueError(f"{name}.npy has another checksum")
        arrays[name] = list(_divide(np.asarray(mapped), sizes))
    return NGrams(vocab_size, tuple(_make_level(arrays, index) for index in range(order)))


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
