"""How much of the validation split stands in the training split too.

On such text a validation loss tells what was learnt by heart, not what was learnt. Measured are
whole lines, long enough not to come up twice by chance, and whole songs. Of the text only
fingerprints are held: eight bytes for each line of the validation split, and for each song.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.corpus import ByteProgress, Corpus, iter_parts
from drakegpt.data.preprocess import CorpusStats, split_stream

SHORTEST_LINE = 20  # characters; shorter lines come up again in songs of their own
BATCH = 1 << 16  # lines that are looked up together


@dataclass(frozen=True)
class Overlap:
    """What stands in both splits of a text."""

    share: float  # of the validation split's characters, in lines that training has too
    songs: int | None  # of the validation split that training has too, as a whole


def measure_overlap(
    corpus: Corpus, found: CorpusStats, report: ByteProgress | None = None
) -> Overlap:
    """Compare the splits of a corpus, in two or three passes over it."""
    lengths, marks = array("Q"), array("Q")
    for length, mark in _iter_long_lines(corpus, found.cut, "val", report):
        lengths.append(length)
        marks.append(mark)
    known = _FingerprintSet(marks)
    for batch in _batches(_iter_long_lines(corpus, found.cut, "train", report)):
        known.note(batch)
    shared = int(np.frombuffer(lengths, np.uint64)[known.seen(marks)].sum()) if marks else 0
    songs = _count_shared_songs(corpus, found.cut, report) if corpus.has_songs else None
    return Overlap(shared / (found.characters - found.cut), songs)


def find_shared_lines(text: str, other: Iterable[str]) -> set[str]:
    """The lines of a text that stand in another one too, which comes in pieces."""
    own = dict(zip((mark for _, mark in iter_lines([text])), text.split("\n"), strict=True))
    return {own[mark] for _, mark in iter_lines(other) if mark in own}


def iter_lines(pieces: Iterable[str]) -> Iterator[tuple[int, int]]:
    """The length of each line of a text in characters, and its fingerprint, 64 bits."""
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
    corpus: Corpus, cut: int, split: str, report: ByteProgress | None
) -> Iterator[tuple[int, int]]:
    """The lines of a split that are long enough; at the cut of the splits one may be in two."""
    stream = split_stream(iter_parts(corpus, report), cut)
    if split == "train":  # which comes first
        stream = takewhile(lambda part: part[0] == split, stream)
    pieces = ("\n" if part is None else part for where, part in stream if where == split)
    return (line for line in iter_lines(pieces) if line[0] >= SHORTEST_LINE)


def _count_shared_songs(corpus: Corpus, cut: int, report: ByteProgress | None) -> int:
    """How many songs that lie in the validation split lie in the training split too."""
    train, val = array("Q"), array("Q")
    start = 0
    for document in corpus.documents(report):
        stop, digest = start, blake2b(digest_size=8)
        for piece in document:
            stop += len(piece)
            digest.update(piece.encode())
        if stop <= cut:
            train.append(_digest_to_int(digest))
        elif start >= cut:
            val.append(_digest_to_int(digest))
        start = stop + 1  # the line feed between two
    known = _FingerprintSet(val)
    known.note(train)
    return int(known.seen(val).sum())


class _FingerprintSet:
    """Which fingerprints of some have come up among others."""

    def __init__(self, marks: "array[int]") -> None:
        self._marks = np.unique(np.array(marks, np.uint64))
        self._seen = np.zeros(len(self._marks), bool)

    def note(self, others: "array[int]") -> None:
        """These have come up."""
        self._seen |= np.isin(self._marks, np.array(others, np.uint64))

    def seen(self, marks: "array[int]") -> NDArray[np.bool_]:
        """Whether each of these, which are among the first, has come up, (N,)."""
        return self._seen[np.searchsorted(self._marks, np.array(marks, np.uint64))]


def _batches(found: Iterable[tuple[int, int]]) -> Iterator["array[int]"]:
    """The fingerprints of lines, many together."""
    batch = array("Q")
    for _, mark in found:
        batch.append(mark)
        if len(batch) == BATCH:
            yield batch
            batch = array("Q")
    yield batch


def _digest_to_int(digest: blake2b) -> int:
    return int.from_bytes(digest.digest(), "little")
