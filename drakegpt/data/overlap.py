"""Measure how much of the validation split is in the training split too.

On such text a validation loss measures memorization, not generalization. Compared are whole
lines, long enough not to repeat by chance, and whole songs. Only fingerprints are held in
memory: eight bytes for each line of the validation split and for each song.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.corpus import ByteProgress, Corpus, iter_parts
from drakegpt.data.metadata import SHORTEST_LINE
from drakegpt.data.preprocess import CorpusStats, split_stream

BATCH = 1 << 16  # lines looked up together


@dataclass(frozen=True)
class Overlap:
    """What both splits of a text have in common."""

    share: float  # of the validation characters, those in lines that are in the training split
    songs: int | None  # whole songs of the validation split that are in the training split


def measure_overlap(
    corpus: Corpus, stats: CorpusStats, report: ByteProgress | None = None
) -> Overlap:
    """Compare the splits of a corpus, in two or three passes over it."""
    boundary = stats.train_characters
    lengths, fingerprints = array("Q"), array("Q")
    for length, fingerprint in _iter_long_lines(corpus, boundary, "val", report):
        lengths.append(length)
        fingerprints.append(fingerprint)
    val = _FingerprintSet(fingerprints)
    for batch in _batch_fingerprints(_iter_long_lines(corpus, boundary, "train", report)):
        val.mark(batch)
    is_shared = val.is_marked(fingerprints)
    shared = int(np.frombuffer(lengths, np.uint64)[is_shared].sum()) if fingerprints else 0
    songs = _count_shared_songs(corpus, boundary, report) if corpus.has_songs else None
    return Overlap(shared / (stats.characters - boundary), songs)


def find_shared_lines(text: str, other: Iterable[str]) -> set[str]:
    """Find the lines of a text that are in another one too, which comes in pieces."""
    own = dict(zip((key for _, key in iter_lines([text])), text.split("\n"), strict=True))
    return {own[key] for _, key in iter_lines(other) if key in own}


def iter_lines(pieces: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield the length in characters and the 64-bit fingerprint of each line of a text."""
    length, digest = 0, blake2b(digest_size=8)
    for piece in pieces:
        first, *others = piece.split("\n")
        length += len(first)
        digest.update(first.encode("utf-8", "surrogatepass"))
        for line in others:
            yield length, _digest_to_int(digest)
            length = len(line)
            digest = blake2b(line.encode("utf-8", "surrogatepass"), digest_size=8)
    yield length, _digest_to_int(digest)


def _iter_long_lines(
    corpus: Corpus, boundary: int, split: str, report: ByteProgress | None
) -> Iterator[tuple[int, int]]:
    """Yield the long lines of a split; the boundary of the splits may divide a line."""
    stream = split_stream(iter_parts(corpus, report), boundary)
    if split == "train":  # which comes first
        stream = takewhile(lambda part: part[0] == split, stream)
    pieces = ("\n" if part is None else part for where, part in stream if where == split)
    return (line for line in iter_lines(pieces) if line[0] >= SHORTEST_LINE)


def _count_shared_songs(corpus: Corpus, boundary: int, report: ByteProgress | None) -> int:
    """Count the songs of the validation split that are in the training split too."""
    train, val = array("Q"), array("Q")
    start = 0
    for document in corpus.documents(report):
        stop, digest = start, blake2b(digest_size=8)
        for piece in document:
            stop += len(piece)
            digest.update(piece.encode())
        if stop <= boundary:
            train.append(_digest_to_int(digest))
        elif start >= boundary:
            val.append(_digest_to_int(digest))
        start = stop + 1  # the line feed between two
    songs = _FingerprintSet(val)
    songs.mark(train)
    return int(songs.is_marked(val).sum())


class _FingerprintSet:
    """A fixed set of fingerprints, each of which can be marked."""

    def __init__(self, members: "array[int]") -> None:
        self._members = np.unique(np.array(members, np.uint64))
        self._marked = np.zeros(len(self._members), bool)

    def mark(self, fingerprints: "array[int]") -> None:
        """Mark the members that are among `fingerprints`."""
        self._marked |= np.isin(self._members, np.array(fingerprints, np.uint64))

    def is_marked(self, members: "array[int]") -> NDArray[np.bool_]:
        """Tell which members, (N,), are marked, (N,)."""
        return self._marked[np.searchsorted(self._members, np.array(members, np.uint64))]


def _batch_fingerprints(lines: Iterable[tuple[int, int]]) -> Iterator["array[int]"]:
    """Yield the fingerprints of lines in batches."""
    batch = array("Q")
    for _, fingerprint in lines:
        batch.append(fingerprint)
        if len(batch) == BATCH:
            yield batch
            batch = array("Q")
    yield batch


def _digest_to_int(digest: blake2b) -> int:
    return int.from_bytes(digest.digest(), "little")
