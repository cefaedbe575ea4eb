"""The suffix array of a text: all places where a piece of it stands, found by binary search.

It lists the suffixes of the text's UTF-8 bytes in alphabetical order, so that those that begin
with the same bytes stand side by side. It is built once, by divsufsort (Mori 2006), kept beside
the dataset with its checksum, and only mapped from then on: 5 bytes on the disk for each byte of
text.

    data/<name>/<version>/suffixes/   suffixes.json, text.npy, order.npy

Not here: what copied text means (`evaluation.originality`), and characters: all is in bytes.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.dataset import Dataset
from drakegpt.data.stored_arrays import StoredArrays, load_or_make
from drakegpt.errors import CorpusError

FORMAT = 1
LONGEST = 2**31 - 1  # bytes of text, so that places are int32
CHECKED_FROM = 10**8  # bytes of text, whose array is not built without a look at the memory
BYTES_WHILE_BUILT = 7  # of memory for each byte of text, at the most
BLOCK = 8  # bytes that are compared at once, as one number
AT_ONCE = 1 << 16  # places of a query that are searched together

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class SuffixArray:
    """A text, and where its suffixes begin, in their alphabetical order."""

    padded: Bytes  # (N + BLOCK,): the text's bytes, then zeros
    order: NDArray[np.int32]  # (N,)

    @property
    def length(self) -> int:
        """The number of bytes of the text, N."""
        return len(self.order)

    @cached_property
    def _text(self) -> memoryview:
        """The text's bytes, without a copy."""
        return self.padded.data[: self.length]

    def find(self, piece: bytes) -> tuple[int, int]:
        """Return the range of `order` whose suffixes begin with `piece`; empty if none does."""
        low = bisect_left(self.order, piece, key=lambda start: self._cut(int(start), len(piece)))
        if self.cut(low, 0, len(piece)) != piece:
            return low, low
        return low, self.find_end(piece, low, self.length)

    def find_end(self, piece: bytes, low: int, high: int) -> int:
        """Return where in this range of `order` the suffixes end that begin with `piece`."""
        return bisect_right(
            self.order, piece, low, high, key=lambda start: self._cut(int(start), len(piece))
        )

    def holds(self, piece: bytes) -> bool:
        """Return whether `piece` stands in the text."""
        low, high = self.find(piece)
        return low < high

    def cut(self, index: int, start: int, size: int) -> bytes:
        """Return bytes `start` to `start + size - 1` of a suffix, if it is so long.

        `index`: its place in `order`; after the last one there are no bytes.
        """
        return self._cut(int(self.order[index]) + start, size) if index < self.length else b""

    def _cut(self, start: int, size: int) -> bytes:
        return bytes(self._text[start : start + size])

    def measure_matches(self, query: bytes) -> tuple[Places, Places]:
        """Return for each byte of `query`, (M,), how long a match begins there, and with what.

        That is the number of bytes from there on that stand in the text somewhere, and the first
        byte of one such place.
        """
        asked = _pad(np.frombuffer(query, np.uint8))
        lengths, places = np.zeros(len(query), np.int64), np.zeros(len(query), np.int64)
        for start in range(0, len(query) if self.length else 0, AT_ONCE):
            positions = np.arange(start, min(start + AT_ONCE, len(query)))
            part = slice(start, start + len(positions))
            lengths[part], places[part] = self._match(asked, positions)
        return lengths, places

    def _match(self, asked: Bytes, positions: Places) -> tuple[Places, Places]:
        """Find where each suffix of the query would stand; its best match is a neighbour there."""
        low = np.zeros(len(positions), np.int64)
        high = np.full(len(positions), self.length)
        while (open_ := np.flatnonzero(low < high)).size:
            middle = (low[open_] + high[open_]) // 2
            before = self._compare(self.order[middle].astype(np.int64), asked, positions[open_])[1]
            low[open_] = np.where(before, middle + 1, low[open_])
            high[open_] = np.where(before, high[open_], middle)
        best, places = np.zeros(len(positions), np.int64), np.zeros(len(positions), np.int64)
        for neighbour in (low - 1, low):
            there = np.flatnonzero((neighbour >= 0) & (neighbour < self.length))
            starts = self.order[neighbour[there]].astype(np.int64)
            common, _ = self._compare(starts, asked, positions[there])
            longer = common > best[there]
            best[there[longer]], places[there[longer]] = common[longer], starts[longer]
        return best, places

    def _compare(
        self, starts: Places, asked: Bytes, positions: Places
    ) -> tuple[Places, NDArray[np.bool_]]:
        """Compare suffixes of the text with suffixes of the query, pair by pair.

        Returns how many bytes they have in common, and whether that of the text is before.
        """
        text, query = _as_numbers(self.padded), _as_numbers(asked)
        text_left, query_left = self.length - starts, len(asked) - BLOCK - positions
        least = np.minimum(text_left, query_left)
        common, before = np.zeros(len(starts), np.int64), np.zeros(len(starts), bool)
        active, done = np.arange(len(starts)), 0
        while active.size:
            ours = text[starts[active] + done].astype(np.uint64)
            theirs = query[positions[active] + done].astype(np.uint64)
            # Where a suffix has ended there are zeros, which the other may really have.
            same = np.minimum(_count_common_bytes(ours ^ theirs), least[active] - done)
            common[active] += same
            ended = done + same == least[active]
            before[active] = np.where(ended, text_left[active] < query_left[active], ours < theirs)
            active = active[(same == BLOCK) & ~ended]
            done += BLOCK
        return common, before


def build_suffix_array(text: bytes) -> SuffixArray:
    """Sort the suffixes of a text.

    Raises `CorpusError` if it is too long, `NotEnoughMemoryError` if it does not fit.
    """
    if len(text) > LONGEST:
        raise CorpusError(
            f"The text has {len(text):,} bytes; copied text can be searched in {LONGEST:,}.",
            "Take a part of it.",
        )
    if len(text) > CHECKED_FROM:
        _check_memory(len(text))
    if not text:
        return SuffixArray(_pad(np.empty(0, np.uint8)), np.empty(0, np.int32))
    import pydivsufsort

    order = pydivsufsort.divsufsort(text).astype(np.int32, copy=False)
    return SuffixArray(_pad(np.frombuffer(text, np.uint8)), order)


def _check_memory(length: int) -> None:
    import torch

    from drakegpt.compute.memory import check_memory_fits

    needed = {"Take a part of it, or a machine with more.": BYTES_WHILE_BUILT * length}
    check_memory_fits(needed, torch.device("cpu"), "to search the text for copies")


def _pad(text: Bytes) -> Bytes:
    return np.concatenate([text, np.zeros(BLOCK, np.uint8)])


def _as_numbers(padded: Bytes) -> NDArray[np.uint64]:
    """View each run of 8 bytes as one number that orders as they do; (N + 1,), overlapping."""
    return np.ndarray((len(padded) - BLOCK + 1,), ">u8", padded, strides=(1,))


def _count_common_bytes(difference: NDArray[np.uint64]) -> Places:
    """Return how many of 8 bytes are equal, from the first on, given their exclusive or."""
    count = np.zeros(len(difference), np.int64)
    left = difference
    for size in (4, 2, 1):
        zero = left < np.uint64(1) << np.uint64(8 * (BLOCK - size))
        count += size * zero
        left = np.where(zero, left << np.uint64(8 * size), left)
    return count + (difference == 0)


def load_suffix_array(data: Dataset) -> SuffixArray:
    """Map the suffix array of the training split; build it if need be.

    Raises `DamagedDatasetError` if it must be built and the dataset is damaged.
    """

    def build() -> StoredArrays:
        built = build_suffix_array(b"".join(piece.encode() for piece in data.iter_text("train")))
        return StoredArrays({"text": built.padded, "order": built.order})

    def parse(stored: StoredArrays) -> SuffixArray:
        return SuffixArray(stored.arrays["text"], stored.arrays["order"])

    of = {"format": FORMAT}
    return load_or_make(data, "suffixes", "suffixes", "suffix array", of, build, parse)
