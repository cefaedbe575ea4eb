"""Texts that can be read repeatedly, in bounded memory.

A `Corpus` yields its documents one after another, as often as asked: the songs in the
rows of a CSV, or a whole text file as one document in pieces. The text is the same each
time, without byte-order mark and with line feeds as line ends. One song of a CSV is held in
memory as a whole, with its title and artist; nothing else grows with the file.

Not here: downloading (`sources`), encodings (`encodings`), parsing CSV (`tables`), other kinds of
files (`song_files`, `records`), several files as one text (`collection`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Protocol

from drakegpt.data.encodings import Findings, decode_chunks
from drakegpt.data.tables import SEPARATORS, Row, Table, detect_separator
from drakegpt.errors import CorpusError, FetchError, shorten, suggest_name
from drakegpt.wording import pluralize

ByteProgress = Callable[[int, int | None], None]  # bytes done, total bytes if known
StageProgress = Callable[[str, int, int | None], None]  # stage, bytes done, total bytes if known

CHUNK = 1 << 18  # bytes read together
MISSING_VALUES = ("nan", "null")  # what programs write for an empty cell
MAX_NAME, MAX_NAMES = 60, 20  # characters and number of columns' names in messages
LYRIC_COLUMN = "Lyric"  # the column of the original's CSV
USUAL_COLUMNS = (LYRIC_COLUMN.lower(), "lyrics", "text")  # if none is named; in any case


@dataclass(frozen=True)
class File:
    """A file of text: where it is, its name in messages, its encoding if that was named."""

    path: Path
    name: str
    encoding: str | None = None
    findings: Findings = field(default_factory=Findings)  # what reading it finds out

    def decode(self, report: ByteProgress | None = None) -> Iterator[str]:
        """Yield the text in pieces; raises `CorpusError` or `FetchError`."""
        raw = read_chunks(self.path, self.name, report)
        return decode_chunks(raw, self.name, self.encoding, self.findings)


@dataclass(frozen=True)
class Document:
    """The text of a document in pieces, with its title and artist if the source names them."""

    pieces: Iterable[str]
    title: str = ""
    artist: str = ""

    def __iter__(self) -> Iterator[str]:
        """Yield the pieces, which can be read once."""
        return iter(self.pieces)


class Corpus(Protocol):
    """A text that consists of documents."""

    @property
    def has_songs(self) -> bool:
        """Whether the documents are songs."""

    @property
    def left_out(self) -> int | None:
        """Rows without text that the last reading skipped; `None` without rows."""

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield each document in pieces, which can be read until the next document.

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

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the text as one document."""
        yield Document([self._text])
        if report:
            report(len(self._text), len(self._text))


class TextFile:
    """A file of plain text, as one document."""

    has_songs = False
    left_out = None

    def __init__(self, file: File) -> None:
        self._file = file

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the file's text as one document."""
        yield Document(self._file.decode(report))


class CsvColumn:
    """One column of a CSV: each row that has text there is a song."""

    has_songs = True

    def __init__(self, file: File, column: str | None = None, separator: str | None = None) -> None:
        """`column`: by default the usual one; `separator`: by default what the header shows."""
        self._file, self.source, self.expected = file, file.name, separator
        self.column = column.strip() if column else None  # the one that is read, if it is known
        self.separator = separator or ","
        self.left_out: int | None = None

    def documents(self, report: ByteProgress | None = None) -> Iterator[Document]:
        """Yield the songs; sets `column` and `separator`, and at the end `left_out`."""
        left_out = 0
        first, pieces = peek_first_line(self._file.decode(report))
        self.separator = self.expected or detect_separator(first, self.column or LYRIC_COLUMN)
        table = Table(pieces, self.separator, self.source)
        header: list[str] = []
        column, title, artist = 0, None, None
        for row in table:
            if not header:
                header = [name.strip() for name in row.texts()]
                self.column = self.column or choose_column(header)
                column = self._find_column(header, self.column)
                title, artist = (_find_optional(header, name) for name in ("title", "artist"))
                table.columns = tuple(c for c in (column, title, artist) if c is not None)
            elif len(row.cells) != len(header):
                raise self._describe_uneven_row(row, header)
            elif has_text(row, column):
                yield Document(row.pieces(column), _read_name(row, title), _read_name(row, artist))
            else:
                left_out += 1
        self.left_out = left_out

    def _find_column(self, header: list[str], column: str) -> int:
        """Find the column's index; raises `CorpusError` unless the header names it once."""
        if header.count(column) == 1:
            return header.index(column)
        if column in header:
            raise CorpusError(
                f"{self.source} has several columns '{column}'; its columns are: "
                f"{list_columns(header)}.",
                "Give each a different name.",
            )
        raise describe_missing_column(self.source, column, header)

    def _describe_uneven_row(self, row: Row, header: list[str]) -> CorpusError:
        cells, names = len(row.cells), len(header)
        return CorpusError(
            f"{self.source} is not a readable CSV: the row in line {row.line} has "
            f"{pluralize(cells, 'field')}, and the header {pluralize(names, 'name')}, separated by "
            f"{SEPARATORS[self.separator]}.",
            "Put text that contains the separator or line ends in double quotes, "
            "or save the text as a .txt file.",
        )


def choose_column(names: Sequence[str]) -> str:
    """Choose the column of the text: the first of the usual ones, or the original's name."""
    found = [n for usual in USUAL_COLUMNS for n in names if n.lower() == usual]
    return LYRIC_COLUMN if LYRIC_COLUMN in names or not found else found[0]


def describe_missing_column(source: str, column: str, names: Sequence[str]) -> CorpusError:
    """Build the error for a table without the column."""
    return CorpusError(
        f"{source} has no column '{column}'; its columns are: {list_columns(names)}.",
        "Name the one that holds the text with --text-column. "
        f"{suggest_name(column, names)}".rstrip(),
    )


def list_columns(names: Sequence[str]) -> str:
    """List the names of columns, shortened."""
    listed = ", ".join(name[:MAX_NAME] for name in names[:MAX_NAMES])
    return listed + (", …" if len(names) > MAX_NAMES else "")


def has_text(row: Row, column: int) -> bool:
    """Tell whether a cell has text other than white space and what stands for a missing value."""
    cell = row.cells[column]
    is_missing = len(cell) < MAX_NAME and cell.decode().strip().lower() in MISSING_VALUES
    return row.has_text(column) and not is_missing


def _find_optional(header: list[str], name: str) -> int | None:
    """Find the first column of a name in any case; `None` if there is none."""
    return next((i for i, column in enumerate(header) if column.lower() == name), None)


def _read_name(row: Row, column: int | None) -> str:
    """Read a title or an artist as one line of bounded length; "" if the cell has no text."""
    if column is None or not has_text(row, column):
        return ""
    return shorten(" ".join(row.cells[column].decode().split()))


def peek_first_line(pieces: Iterable[str]) -> tuple[str, Iterator[str]]:
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
            f"{source} cannot be read: {error.strerror}.", "Name a file you can open."
        ) from error


def compute_checksum(path: Path, source: str, report: ByteProgress | None = None) -> str:
    """Compute the SHA-256 of a file."""
    digest = hashlib.sha256()
    for chunk in read_chunks(path, source, report):
        digest.update(chunk)
    return digest.hexdigest()
