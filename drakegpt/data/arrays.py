"""Token arrays on the disk, written and checked bit by bit.

`.npy` files as `numpy.save` writes them, byte for byte, but from blocks whose
number is not known beforehand; and checksums of arrays too large for memory.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from drakegpt import paths

BLOCK = 1 << 20  # tokens hashed at once


@dataclass(frozen=True)
class Written:
    """What has come into a file."""

    tokens: int
    sha256: str  # of the tokens, without the file's header


def write(path: Path, kind: type[np.integer[Any]], blocks: Iterable[NDArray[Any]]) -> Written:
    """Write blocks, (n,) each, one after another as one array of type `kind`, atomically."""
    dtype, tokens, digest = np.dtype(kind), 0, hashlib.sha256()
    with paths.write_atomically(path) as file:
        begin = _write_header(file, dtype, 0)
        for block in blocks:
            array = np.ascontiguousarray(block, dtype)
            digest.update(array.data)
            file.write(array.data)
            tokens += len(array)
        file.seek(0)
        if _write_header(file, dtype, tokens) != begin:
            raise RuntimeError("numpy leaves no room for the length in its header any more")
    return Written(tokens, digest.hexdigest())


def checksum(array: NDArray[Any]) -> str:
    """The sha256 of the tokens of an array (N,), which may be mapped from the disk."""
    digest = hashlib.sha256()
    for start in range(0, len(array), BLOCK):
        digest.update(np.ascontiguousarray(array[start : start + BLOCK]).data)
    return digest.hexdigest()


def _write_header(file: IO[bytes], dtype: np.dtype[Any], length: int) -> int:
    """Write numpy's header for an array (length,); returns where the tokens begin."""
    about = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    npy.write_array_header_1_0(file, about)
    return file.tell()
