"""The passes over a corpus that prepare a dataset, each in bounded memory.

`scan` measures the text and collects its characters, `train_bpe` trains a tokenizer on the
training split, `fingerprint` computes the dataset's version, and `encode_splits` encodes
the text.

Not here: how the tokens are stored (`prepare`).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from drakegpt.data.corpus import ByteProgress, Corpus, StageProgress, iter_parts
from drakegpt.data.songs import SongRecorder
from drakegpt.data.tokenizers.base import Tokenizer, Tokens
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharacterSet
from drakegpt.errors import CorpusError

TRAIN_SHARE = 0.9
# By songs, each stands as a whole in one of the splits; contiguous: the end is for validation.
SPLITS = ("songs", "contiguous")
# Stands between documents in what is fingerprinted. This byte never occurs in UTF-8, so the same
# text divided into other documents, which has other tokens, has another fingerprint.
BOUNDARY = b"\xff"


@dataclass(frozen=True)
class CorpusStats:
    """What `scan` finds out about a text."""

    characters: int
    alphabet: str  # each character once, sorted
    sha256: str  # of the UTF-8 of the text, documents joined by line feeds
    documents: int
    left_out: int | None  # rows without text; `None` if the documents are not rows
    songs_sha256: str  # of what `SongRecorder` writes
    train_characters: int  # those in the training split; the others are the validation split
    by_songs: bool = False  # whether the splits are divided between two songs, chosen as such

    @property
    def split(self) -> str:
        """How the text is divided: one of `SPLITS`."""
        return "songs" if self.by_songs else "contiguous"

    @property
    def blank(self) -> bool:
        """Whether the text is nothing but white space."""
        return not self.alphabet.strip()


def scan(
    corpus: Corpus, report: ByteProgress | None = None, train_characters: int | None = None
) -> CorpusStats:
    """Read a whole corpus; returns its statistics.

    `train_characters`: where the songs for validation begin, if the text is divided by songs.
    """
    seen, digest, songs = CharacterSet(), hashlib.sha256(), hashlib.sha256()
    characters = documents = 0
    corpus = SongRecorder(corpus, lambda text: songs.update(text.encode()))
    for number, document in enumerate(corpus.documents(report)):
        documents += 1
        for text in document if number == 0 else ("\n", *document):
            characters += len(text)
            digest.update(text.encode())
            seen.add(text)
    return CorpusStats(
        characters,
        seen.characters(),
        digest.hexdigest(),
        documents,
        corpus.left_out,
        songs.hexdigest(),
        int(characters * TRAIN_SHARE) if train_characters is None else train_characters,
        train_characters is not None,
    )


def train_bpe(
    corpus: Corpus, train_characters: int, vocab_size: int, progress: StageProgress | None = None
) -> BPETokenizer:
    """Train a BPE tokenizer on the first `train_characters` characters of a corpus."""

    def pieces() -> Iterator[str | None]:
        for split, part in split_stream(
            iter_parts(corpus, report_stage(progress, "finding words")), train_characters
        ):
            if split != "train":
                break
            yield part
        if progress:
            progress("learning tokens", 0, None)  # the library does not report progress

    return BPETokenizer.train(pieces(), vocab_size)


def fingerprint(
    tokenizer: Tokenizer, corpus: Corpus, stats: CorpusStats, report: ByteProgress | None = None
) -> str:
    """Compute the SHA-256 of a tokenizer, the text it is applied to, and a split by songs."""
    digest = hashlib.sha256(tokenizer.to_json().encode() + b"\0")
    if stats.by_songs:
        digest.update(b"%d\0" % stats.train_characters)
    boundary = b"\n" if tokenizer.end is None else BOUNDARY
    for part in iter_parts(corpus, report):
        digest.update(boundary if part is None else part.encode())
    return digest.hexdigest()


def encode_splits(
    tokenizer: Tokenizer, corpus: Corpus, stats: CorpusStats, report: ByteProgress | None = None
) -> Iterator[tuple[str, Iterator[Tokens]]]:
    """Yield "train" and then "val", each with its tokens in blocks (n,).

    Raises `CorpusError` if the text is no longer the one that `stats` describes.
    """
    digest = hashlib.sha256()

    def hash_parts() -> Iterator[str | None]:
        for part in iter_parts(corpus, report):
            digest.update(b"\n" if part is None else part.encode())
            yield part

    changed = changed_text_error()

    def check_characters(tokens: Iterator[Tokens]) -> Iterator[Tokens]:
        try:
            yield from tokens
        except ValueError as error:  # a character that `scan` has not seen
            raise changed from error

    stream = split_stream(hash_parts(), stats.train_characters)
    for split, group in groupby(stream, key=lambda item: item[0]):
        yield split, check_characters(tokenizer.encode_parts(part for _, part in group))
    if digest.hexdigest() != stats.sha256:
        raise changed


def changed_text_error() -> CorpusError:
    """Create the error for a text that differs from one pass to the next."""
    return CorpusError("The text has changed while it was being prepared.", "Add it once more.")


def report_stage(progress: StageProgress | None, stage: str) -> ByteProgress | None:
    """Return a callback that reports the bytes of one stage to `progress`."""
    return (lambda done, total: progress(stage, done, total)) if progress else None


def split_stream(
    stream: Iterable[str | None], train_characters: int
) -> Iterator[tuple[str, str | None]]:
    """Yield each part with its split; one that spans the boundary of the splits becomes two.

    `None`, between two documents, counts as one character: the line feed it stands for.
    """
    seen = 0
    for part in stream:
        length = 1 if part is None else len(part)
        left = train_characters - seen
        if part is not None and 0 < left < length:
            yield "train", part[:left]
            yield "val", part[left:]
        else:
            yield ("train" if left > 0 else "val"), part
        seen += length
