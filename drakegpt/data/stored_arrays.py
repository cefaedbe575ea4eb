"""Arrays that follow from the training split of a dataset, kept beside it and only mapped then.

    data/<name>/<version>/<folder>/   <kind>.json, with what they are and their checksums, and
                                      each array in a file: <array>.npy

What is missing, damaged or of another kind is made again.
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from drakegpt import files
from drakegpt.data.dataset import Dataset
from drakegpt.errors import is_out_of_memory

log = logging.getLogger("drakegpt")

T = TypeVar("T")


@dataclass(frozen=True)
class StoredArrays:
    """Arrays by their names, and facts that are needed to read them, as plain values."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)


def load_or_make(
    data: Dataset,
    folder: str,
    kind: str,
    what: str,
    of: Mapping[str, Any],
    make: Callable[[], StoredArrays],
    parse: Callable[[StoredArrays], T],
) -> T:
    """Map the arrays in a folder of a dataset; make them if need be, and keep them.

    `what`: their name in warnings. `of`: what they must be of, such as a format. `parse` returns
    what they stand for; if it fails, they count as damaged.
    Raises `DamagedDatasetError` if they must be made and the dataset is damaged.
    """
    path = data.folder / folder
    if path.exists():
        try:
            return parse(_read(path, kind, of))
        except Exception as error:  # a bad header of an array raises a dozen kinds of exceptions
            if is_out_of_memory(error):
                raise
            log.warning("The %s in %s cannot be read: made again.", what, path)
    data.verify()
    made = make()
    try:
        # Beside the version's folder, where what a killed process leaves is cleared.
        with files.write_folder_atomically(path, data.folder.parent) as temporary:
            _write(temporary, kind, of, made)
    except OSError as error:
        log.warning("The %s cannot be kept in %s: %s.", what, path, error.strerror)
    return parse(made)


def _write(folder: Path, kind: str, of: Mapping[str, Any], made: StoredArrays) -> None:
    for name, array in made.arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    checksums = {name: files.compute_checksum(array) for name, array in made.arrays.items()}
    info = {**of, **made.facts, "sha256": checksums}
    files.write_text(folder / f"{kind}.json", json.dumps(info, indent=2))


def _read(folder: Path, kind: str, of: Mapping[str, Any]) -> StoredArrays:
    """Map the arrays and check them; raises `ValueError` if they are not those written."""
    info = files.parse_json((folder / f"{kind}.json").read_text(encoding="utf-8"))
    if any(info[name] != value for name, value in of.items()):
        raise ValueError("they are of something else")
    arrays = {}
    for name, checksum in info["sha256"].items():
        mapped = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if files.compute_checksum(mapped) != checksum:
            raise ValueError(f"{name}.npy has another checksum")
        arrays[name] = np.asarray(mapped)
    return StoredArrays(arrays, info)
