"""Texts that can be read again and again, in bounded memory.

A `Corpus` gives its documents one after another, as often as asked: the songs
of a CSV's rows, or a whole text file as one document in pieces. What comes out
is the same each time: UTF-8 decoded, without byte-order mark, every line end a
line feed. A row of a CSV is held as a whole; nothing else grows with the file.

Not here: how the file came to be on the disk (`sources`).
"""

import codecs
import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from io import IncrementalNewlineDecoder
from pathlib import Path
from typing import Protocol

from drakegpt.errors import CorpusError, FetchError

Report = Callable[[int, int], None]  # bytes read, bytes in all
Progress = Callable[[str, int, int | None], None]  # what is done, bytes done, in all if known

CHUNK = 1 << 18  # bytes read at once
BOMS_OF_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Corpus(Protocol):
    """A text in documents."""

    @property
    def has_songs(self) -> bool:
        """Whether its documents are songs, which are worth counting."""

    def documents(self, report: Report | None = None) -> Iterator[Iterable[str]]:
        """Each document in pieces, to be read before the next is asked for.

        Joined by line feeds, the documents are the corpus's text. Raises
        `CorpusError` or `FetchError` where the file is not as it should be.
        """


def parts(corpus: Corpus, report: Report | None = None) -> Iterator[str | None]:
    """The text of a corpus in pieces, `None` between two documents."""
    for number, document in enumerate(corpus.documents(report)):
        if number:
            yield None
        yield from document


class Text:
    """A text in memory, as one document."""

    has_songs = False

    def __init__(self, text: str) -> None:
        self._text = text

    def documents(self, report: Report | None = None) -> Iterator[Iterable[str]]:
        """The text."""
        yield [self._text]
        if report:
            report(len(self._text), len(self._text))


class TextFile:
    """A file of plain text, as one document."""

    has_songs = False

    def __init__(self, path: Path, source: str) -> None:
        """`source`: what messages call the file."""
        self._path, self._source = path, source

    def documents(self, report: Report | None = None) -> Iterator[Iterable[str]]:
        """The file's text."""
        yield _decoded(chunks(self._path, self._source, report), self._source)


class CsvColumn:
    """The rows of one column of a CSV that hold text, each a song."""

    has_songs = True

    def __init__(self, path: Path, column: str, source: str) -> None:
        """`source`: what messages call the file."""
        self._path, self._column, self._source = path, column, source

    def documents(self, report: Report | None = None) -> Iterator[Iterable[str]]:
        """The songs."""
        csv.field_size_limit(2**31 - 1)  # a field may be a whole book
        raw = chunks(self._path, self._source, report)
        reader = csv.DictReader(_lines(_decoded(raw, self._source)))
        try:
            header = list(reader.fieldnames or [])
            if header and self._column not in header:
                raise CorpusError(
                    f"{self._source} has no column '{self._column}'; "
                    f"its columns are: {', '.join(header)}.",
                    "Name the one that holds the text with --text-column.",
                )
            for row in reader:
                song = row[self._column]
                if song and song.strip():
                    yield [song]
        except csv.Error as error:
            raise CorpusError(
                f"{self._source} is not a readable CSV: line {reader.line_num}: {error}.",
                "Fix that line, or save the text as a .txt file.",
            ) from error


def chunks(path: Path, source: str, report: Report | None = None) -> Iterator[bytes]:
    """The bytes of a file; `FetchError` if they cannot be read."""
    try:
        with path.open("rb") as file:
            total, done = path.stat().st_size, 0
            while chunk := file.read(CHUNK):
                done += len(chunk)
                if report:
                    report(done, max(done, total))
                yield chunk
    except OSError as error:
        raise FetchError(
            f"{source} cannot be read: {error.strerror}.", "Name a .txt or .csv file you can open."
        ) from error


def checksum(path: Path, source: str, report: Report | None = None) -> str:
    """The sha256 of a file's bytes."""
    digest = hashlib.sha256()
    for chunk in chunks(path, source, report):
        digest.update(chunk)
    return digest.hexdigest()


def _decoded(raw: Iterable[bytes], source: str) -> Iterator[str]:
    """UTF-8 with or without a byte-order mark, any line ends, to text with line feeds."""
    newlines = IncrementalNewlineDecoder(None, translate=True)
    place, line, held, start = 0, 1, b"", b""  # of `held`: bytes that wait for more
    for chunk, last in _with_last(raw):
        held += chunk
        if place == 0:
            start = held[:3]
            if len(start) < 3 and not last:
                continue
            if start == codecs.BOM_UTF8:
                place, held = 3, held[3:]
        try:
            text, used = codecs.utf_8_decode(held, "strict", last)
        except UnicodeDecodeError as error:
            line += held.count(b"\n", 0, error.start)
            byte = held[error.start]
            raise _not_utf_8(source, start, line, place + error.start, byte) from error
        line += held.count(b"\n", 0, used)
        place, held = place + used, held[used:]
        yield newlines.decode(text, final=last)


def _with_last(raw: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each chunk, and an empty one that is marked as the last."""
    for chunk in raw:
        yield chunk, False
    yield b"", True


def _not_utf_8(source: str, start: bytes, line: int, place: int, byte: int) -> CorpusError:
    """What to do about a byte that is not UTF-8, at offset `place` of a file with that start."""
    name, suffix = Path(source).name, Path(source).suffix
    if start.startswith(BOMS_OF_UTF_16):
        return CorpusError(
            f"{source} is not UTF-8 but UTF-16: line 1 begins with its mark.",
            "Save it as UTF-8 in your editor, or convert it: "
            f"`iconv -f utf-16 -t utf-8 {name} > utf8{suffix}`.",
        )
    return CorpusError(
        f"{source} is not UTF-8: line {line} has the byte 0x{byte:02x} at position {place:,}.",
        "Save it as UTF-8 in your editor, or convert it: "
        f"`iconv -f latin1 -t utf-8 {name} > utf8{suffix}`.",
    )


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    """A text cut after each line feed; `str.splitlines` would cut in other places too."""
    held: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        held.append(first)
        for line in others:
            yield "".join(held) + "\n"
            held = [line]
    if any(held):
        yield "".join(held)
