"""The passes over a corpus that make a dataset of it, each in bounded memory.

First a survey: how long is it, which characters has it. Then, for BPE, the
tokenizer learns from the training split. Then the corpus gets its identity,
and last its tokens, split by split.

Not here: what becomes of the tokens (`dataset`).
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from drakegpt.data.corpus import Corpus, Progress, Report, parts
from drakegpt.data.songs import SongRecorder
from drakegpt.data.tokenizers.base import Tokenizer, Tokens
from drakegpt.data.tokenizers.bpe import BPETokenizer
from drakegpt.data.tokenizers.char import CharacterSet
from drakegpt.errors import CorpusError

TRAIN_SHARE = 0.9
# Between documents, in what the identity of a dataset is made from. No UTF-8 has this byte, so
# the same text in other documents, which has other tokens, has another identity.
BOUNDARY = b"\xff"


@dataclass(frozen=True)
class CorpusStats:
    """What the first pass finds out about a text."""

    characters: int
    alphabet: str  # each character once, sorted
    sha256: str  # of the UTF-8 of the text, documents joined by line feeds
    documents: int
    left_out: int | None  # rows without text, if the documents are rows
    songs_sha256: str = ""  # of songs.json, whatever the documents are

    @property
    def cut(self) -> int:
        """The characters to train on; the others are there to validate."""
        return int(self.characters * TRAIN_SHARE)

    @property
    def blank(self) -> bool:
        """Whether there is nothing but white space."""
        return not self.alphabet.strip()


def scan(corpus: Corpus, report: Report | None = None) -> CorpusStats:
    """Read a corpus from beginning to end."""
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
    )


def train_bpe(
    corpus: Corpus, cut: int, vocab_size: int, progress: Progress | None = None
) -> BPETokenizer:
    """A BPE tokenizer of the first `cut` characters of a corpus."""

    def pieces() -> Iterator[str | None]:
        for split, part in split_stream(parts(corpus, reporter(progress, "finding words")), cut):
            if split != "train":
                break
            yield part
        if progress:
            progress("learning tokens", 0, None)  # the library does not tell how far it is

    return BPETokenizer.train(pieces(), vocab_size)


def fingerprint(tokenizer: Tokenizer, corpus: Corpus, report: Report | None = None) -> str:
    """The sha256 of a tokenizer and the text it is applied to."""
    digest = hashlib.sha256(tokenizer.to_json().encode() + b"\0")
    boundary = b"\n" if tokenizer.end is None else BOUNDARY
    for part in parts(corpus, report):
        digest.update(boundary if part is None else part.encode())
    return digest.hexdigest()


def encode_splits(
    tokenizer: Tokenizer, corpus: Corpus, found: CorpusStats, report: Report | None = None
) -> Iterator[tuple[str, Iterator[Tokens]]]:
    """The splits of a corpus, "train" and then "val", each with its tokens in blocks (n,).

    Raises `CorpusError` at the end if the text is not that of the survey any more.
    """
    digest = hashlib.sha256()

    def watched() -> Iterator[str | None]:
        for part in parts(corpus, report):
            digest.update(b"\n" if part is None else part.encode())
            yield part

    changed = changed_text_error()

    def as_surveyed(tokens: Iterator[Tokens]) -> Iterator[Tokens]:
        try:
            yield from tokens
        except ValueError as error:  # a character that was not there before
            raise changed from error

    for split, some in groupby(split_stream(watched(), found.cut), key=lambda item: item[0]):
        yield split, as_surveyed(tokenizer.encode_parts(part for _, part in some))
    if digest.hexdigest() != found.sha256:
        raise changed


def changed_text_error() -> CorpusError:
    """The error for a text that differs from one pass to the next."""
    return CorpusError("The text has changed while it was being prepared.", "Fetch it once more.")


def reporter(progress: Progress | None, what: str) -> Report | None:
    """Reports of one pass, passed on with its name."""
    return (lambda done, total: progress(what, done, total)) if progress else None


def split_stream(stream: Iterable[str | None], cut: int) -> Iterator[tuple[str, str | None]]:
    """Each part with the split it is in; the one that spans the cut becomes two.

    The boundary of two documents counts as one character, the line feed it stands for.
    """
    seen = 0
    for part in stream:
        length = 1 if part is None else len(part)
        if part is not None and seen < cut < seen + length:
            yield "train", part[: cut - seen]
            yield "val", part[cut - seen :]
        else:
            yield ("train" if seen < cut else "val"), part
        seen += length
