"""Which songs of a text are for training, which for validation, and which only repeat others.

A song's fingerprint is that of its letters and digits, so that songs that differ in case,
spaces and punctuation alone have the same. The fingerprint decides the side, not the place in
the file: copies of a song stand on one side, and most songs stay where they are when others
are added. Memory: 25 bytes for each song.

Not here: how much the two sides have in common (`overlap`).
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drakegpt.data.corpus import ByteProgress, Corpus, Document
from drakegpt.data.preprocess import TRAIN_SHARE, changed_text_error

TRAIN, VAL, LEFT_OUT = range(3)  # what becomes of a song
BUCKETS = 1 << 16  # songs are divided by the first 16 bits of their fingerprints
MOST = 0.5  # of the characters, for validation: few long songs cannot be divided better
FEWEST = 0.5  # of the characters that validation should have

NOT_LETTERS = re.compile(r"[\W_]+")
_ASCII = [chr(code) for code in range(128)]
_LOWERED = bytes(range(256)).lower()
_DELETED = "".join(c for c in _ASCII if not c.isalnum()).encode()


@dataclass(frozen=True)
class SongSplit:
    """What becomes of each song of a corpus."""

    sides: NDArray[np.uint8]  # (number of songs,): TRAIN, VAL or LEFT_OUT
    by_songs: bool  # else all are TRAIN or LEFT_OUT, and the text is divided at a character
    train_characters: int  # with the line feed after each song
    exact_copies: int  # songs that repeat an earlier one word for word
    near_copies: int  # others that differ in case, spaces and punctuation alone


def split_songs(
    corpus: Corpus, *, by_songs: bool, dedupe: bool, report: ByteProgress | None = None
) -> SongSplit:
    """Decide what becomes of each song of a corpus, in one pass over it.

    With `by_songs`, about a tenth of the characters is for validation, in whole songs. That
    takes two different songs at least, of which the validation ones are not the longer part.
    With `dedupe`, only the first of several copies of a song is kept.
    """
    exact, folded, lengths = array("Q"), array("Q"), array("I")
    for document in corpus.documents(report):
        plain, letters, length = _fingerprint(document)
        exact.append(plain)
        folded.append(letters)
        lengths.append(length + 1)  # with the line feed after it
    exact_copies = len(_find_repeated(exact))
    del exact
    # Views, and parts at a time: a text may have millions of short songs.
    songs, sizes = np.frombuffer(folded, np.uint64), np.frombuffer(lengths, np.uintc)
    repeated = _find_repeated(folded)
    sides = np.full(len(songs), TRAIN, np.uint8)
    if dedupe and len(repeated):
        again = np.flatnonzero(np.isin(songs, repeated))
        _, firsts = np.unique(songs[again], return_index=True)
        sides[np.delete(again, firsts)] = LEFT_OUT
    buckets = (songs >> np.uint64(48)).astype(np.uint16)
    in_buckets = np.zeros(BUCKETS)
    for start in range(0, len(songs), BUCKETS):
        part = slice(start, start + BUCKETS)
        in_buckets += np.bincount(
            buckets[part], np.where(sides[part] == TRAIN, sizes[part], 0), BUCKETS
        )
    held_out = _choose_buckets(in_buckets)
    divided = by_songs and held_out.any()
    if divided:
        sides[(sides == TRAIN) & held_out[buckets]] = VAL
    return SongSplit(
        sides,
        bool(divided),
        int(sizes[sides == TRAIN].sum(dtype=np.int64)),
        exact_copies,
        len(repeated) - exact_copies,
    )


def _find_repeated(fingerprints: "array[int]") -> NDArray[np.uint64]:
    """Return the fingerprint of each song that repeats an earlier one, sorted."""
    ordered = np.array(fingerprints, np.uint64)
    ordered.sort()
    return ordered[1:][ordered[1:] == ordered[:-1]]


def _choose_buckets(sizes: NDArray[Any]) -> NDArray[np.bool_]:
    """Choose the buckets for validation, of which (BUCKETS,) are the characters; maybe none.

    In their order, each that brings the sum nearer to the share is taken. If the sum is
    still far too small, because the songs are long, the shortest others are added.
    """
    chosen = np.zeros(len(sizes), bool)
    total = sizes.sum()
    wanted, taken = total * (1 - TRAIN_SHARE), 0.0
    for bucket in np.flatnonzero(sizes):
        if sizes[bucket] < 2 * (wanted - taken):
            chosen[bucket], taken = True, taken + sizes[bucket]
    others = np.flatnonzero((sizes > 0) & ~chosen)
    for bucket in others[np.argsort(sizes[others], kind="stable")]:
        if taken >= FEWEST * wanted:
            break
        chosen[bucket], taken = True, taken + sizes[bucket]
    return chosen if 0 < taken <= MOST * total else np.zeros(len(sizes), bool)


def _fingerprint(pieces: Iterable[str]) -> tuple[int, int, int]:
    """Return the fingerprints of a song and of its letters and digits, and its length."""
    plain, letters, length, folded = blake2b(digest_size=8), blake2b(digest_size=8), 0, 0
    for piece in pieces:
        length += len(piece)
        plain.update(piece.encode())
        kept = fold(piece)
        folded += len(kept)
        letters.update(kept)
    exact = int.from_bytes(plain.digest(), "little")
    return exact, int.from_bytes(letters.digest(), "little") if folded else exact, length


def fold(text: str) -> bytes:
    """Return the letters and digits of a text in one case, as UTF-8."""
    if text.isascii():
        return text.encode().translate(_LOWERED, _DELETED)
    return NOT_LETTERS.sub("", text.casefold()).encode()


class DividedSongs:
    """The songs of a corpus without those left out: first the training songs, then the others."""

    has_songs = True

    def __init__(self, corpus: Corpus, split: SongSplit) -> None:
        self._corpus, self._split = corpus, split

    @property
    def left_out(self) -> int | None:
        """Rows without text that the last reading skipped; `None` without rows."""
        return self._corpus.left_out

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the songs; reads the corpus twice if its songs are divided."""
        turns = (TRAIN, VAL) if self._split.by_songs else (TRAIN,)
        for turn, side in enumerate(turns):

            def report_turn(done: int, total: int | None, turn: int = turn) -> None:
                if report:
                    whole = total or done
                    report(turn * whole + done, len(turns) * whole)

            number = -1
            for number, document in enumerate(self._corpus.documents(report_turn)):
                if number >= len(self._split.sides):
                    raise changed_text_error()
                if self._split.sides[number] == side:
                    yield document
            if number + 1 != len(self._split.sides):
                raise changed_text_error()
