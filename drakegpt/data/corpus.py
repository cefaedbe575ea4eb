"""Texts that can be read repeatedly, in bounded memory.

A `Corpus` yields its documents one after another, as often as asked: the songs in the
rows of a CSV, or a whole text file as one document in pieces. The text is the same each
time, without byte-order mark and with line feeds as line ends. One song of a CSV is held in
memory as a whole; nothing else grows with the file.

Not here: downloading (`sources`), encodings (`encodings`), parsing CSV (`tables`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from drakegpt.data.encodings import decode_chunks
from drakegpt.data.tables import SEPARATORS, Row, Table, detect_separator
from drakegpt.errors import CorpusError, FetchError, suggest_name
from drakegpt.wording import pluralize

ByteProgress = Callable[[int, int | None], None]  # bytes done, total bytes if known
StageProgress = Callable[[str, int, int | None], None]  # stage, bytes done, total bytes if known

CHUNK = 1 << 18  # bytes read together
MISSING_VALUES = ("nan", "null")  # what programs write for an empty cell
MAX_NAME, MAX_NAMES = 60, 20  # characters and number of columns' names in messages


class Corpus(Protocol):
    """A text that consists of documents."""

    @property
    def has_songs(self) -> bool:
        """Whether the documents are songs."""

    @property
    def left_out(self) -> int | None:
        """Rows without text that the last reading skipped; `None` without rows."""

    def documents(self, report: ByteProgress | None = None) -> Iterator[Iterable[str]]:
        """Yield each document in pieces, which must be read before the next document.

        The corpus's text is the documents joined by line feeds. Raises `CorpusError` or
        `FetchError` if the file cannot be read.
        """


def iter_parts(corpus: Corpus, report: ByteProgress | None = None) -> Iterator[str | None]:
    """Yield the text of a corpus in pieces, with `None` between two documents."""
    for number, document in enumerate(corpus.documents(report)):
        if number:
            yield None
        yield from document


class Text:
    """A text in memory, as one document."""

    has_songs = False
    left_out = None

    def __init__(self, text: str) -> None:
        self._text = text

    def documents(self, report: ByteProgress | None = None) -> Iterator[Iterable[str]]:
        """Yield the text as one document."""
        yield [self._text]
        if report:
            report(len(self._text), len(self._text))


class TextFile:
    """A file of plain text, as one document."""

    has_songs = False
    left_out = None

    def __init__(self, path: Path, source: str) -> None:
        """`source`: the file's name in messages."""
        self._path, self._source = path, source

    def documents(self, report: ByteProgress | None = None) -> Iterator[Iterable[str]]:
        """Yield the file's text as one document."""
        yield decode_chunks(read_chunks(self._path, self._source, report), self._source)


class CsvColumn:
    """One column of a CSV: each row that has text there is a song."""

    has_songs = True

    def __init__(self, path: Path, column: str, source: str) -> None:
        """`source`: the file's name in messages."""
        self._path, self._column, self._source = path, column.strip(), source
        self.separator = ","
        self.left_out: int | None = None

    def documents(self, report: ByteProgress | None = None) -> Iterator[Iterable[str]]:
        """Yield the songs; sets `separator`, and at the end `left_out`."""
        left_out = 0
        pieces = decode_chunks(read_chunks(self._path, self._source, report), self._source)
        first, pieces = _peek_first_line(pieces)
        self.separator = detect_separator(first, self._column)
        table = Table(pieces, self.separator, self._source)
        header: list[str] = []
        column = 0
        for row in table:
            if not header:
                header = [name.strip() for name in row.texts()]
                column = table.column = self._find_column(header)
            elif len(row.cells) != len(header):
                raise self._describe_uneven_row(row, header)
            elif has_text(row, column):
                yield row.pieces(column)
            else:
                left_out += 1
        self.left_out = left_out

    def _find_column(self, header: list[str]) -> int:
        """Find the column's index; raises `CorpusError` unless the header names it once."""
        if header.count(self._column) == 1:
            return header.index(self._column)
        listed = ", ".join(name[:MAX_NAME] for name in header[:MAX_NAMES])
        listed += ", …" if len(header) > MAX_NAMES else ""
        if self._column in header:
            raise CorpusError(
                f"{self._source} has several columns '{self._column}'; its columns are: {listed}.",
                "Give each a different name.",
            )
        raise CorpusError(
            f"{self._source} has no column '{self._column}'; its columns are: {listed}.",
            "Name the one that holds the text with --text-column. "
            f"{suggest_name(self._column, header)}".rstrip(),
        )

    def _describe_uneven_row(self, row: Row, header: list[str]) -> CorpusError:
        cells, names = len(row.cells), len(header)
        return CorpusError(
            f"{self._source} is not a readable CSV: the row in line {row.line} has "
            f"{pluralize(cells, 'field')}, and the header {pluralize(names, 'name')}, separated by "
            f"{SEPARATORS[self.separator]}.",
            "Put text that contains the separator or line ends in double quotes, "
            "or save the text as a .txt file.",
        )


def has_text(row: Row, column: int) -> bool:
    """Tell whether a cell has text other than white space and what stands for a missing value."""
    cell = row.cells[column]
    is_missing = len(cell) < MAX_NAME and cell.decode().strip().lower() in MISSING_VALUES
    return row.has_text(column) and not is_missing


def _peek_first_line(pieces: Iterable[str]) -> tuple[str, Iterator[str]]:
    """Return the first line that is not blank, and an iterator over all pieces."""
    rest, head, lines = iter(pieces), "", [""]
    for piece in rest:
        head += piece
        lines = [line for line in head.split("\n") if line.strip()] or [""]
        if "\n" in head[head.find(lines[0]) :] or len(head) > CHUNK:
            break
    return lines[0], chain([head], rest)


def read_chunks(path: Path, source: str, report: ByteProgress | None = None) -> Iterator[bytes]:
    """Read a file in chunks of bytes; raises `FetchError` if that fails."""
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


def compute_checksum(path: Path, source: str, report: ByteProgress | None = None) -> str:
    """Compute the SHA-256 of a file."""
    digest = hashlib.sha256()
    for chunk in read_chunks(path, source, report):
        digest.update(chunk)
    return digest.hexdigest()
