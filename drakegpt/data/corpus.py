"""Texts that can be read again and again, in bounded memory.

A `Corpus` gives its documents one after another, as often as asked: the songs
of a CSV's rows, or a whole text file as one document in pieces. What comes out
is the same each time: without byte-order mark, every line end a line feed. Of a
CSV, a song is held as a whole, with its title and artist; nothing else grows with the file.

Not here: how the file came to be on the disk (`sources`), what encodings are
read (`encodings`), what a CSV looks like (`tables`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from drakegpt.data.encodings import decoded
from drakegpt.data.tables import SEPARATORS, Row, Table, separator_of
from drakegpt.errors import CorpusError, FetchError, did_you_mean, shortened
from drakegpt.wording import pluralize

Report = Callable[[int, int], None]  # bytes read, bytes in all
Progress = Callable[[str, int, int | None], None]  # what is done, bytes done, in all if known

CHUNK = 1 << 18  # bytes read at once
NO_TEXT = ("nan", "null")  # what programs write where a table has nothing
LONGEST_NAME, MOST_NAMES = 60, 20  # of columns, in messages


@dataclass(frozen=True)
class Document:
    """A document's text in pieces, and what its source calls it, if it does."""

    pieces: Iterable[str]
    title: str = ""
    artist: str = ""

    def __iter__(self) -> Iterator[str]:
        """The pieces, which can be read once."""
        return iter(self.pieces)


class Corpus(Protocol):
    """A text in documents."""

    @property
    def has_songs(self) -> bool:
        """Whether its documents are songs, which are worth counting."""

    @property
    def left_out(self) -> int | None:
        """Rows without text that were passed over in the last reading; `None` without rows."""

    def documents(self, report: Report | None = None) -> Iterator[Document]:
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
    left_out = None

    def __init__(self, text: str) -> None:
        self._text = text

    def documents(self, report: Report | None = None) -> Iterator[Document]:
        """The text."""
        yield Document([self._text])
        if report:
            report(len(self._text), len(self._text))


class TextFile:
    """A file of plain text, as one document."""

    has_songs = False
    left_out = None

    def __init__(self, path: Path, source: str) -> None:
        """`source`: what messages call the file."""
        self._path, self._source = path, source

    def documents(self, report: Report | None = None) -> Iterator[Document]:
        """The file's text."""
        yield Document(decoded(chunks(self._path, self._source, report), self._source))


class CsvColumn:
    """The rows of one column of a CSV that hold text, each a song."""

    has_songs = True

    def __init__(self, path: Path, column: str, source: str) -> None:
        """`source`: what messages call the file."""
        self._path, self._column, self._source = path, column.strip(), source
        self.separator = ","
        self.left_out: int | None = None

    def documents(self, report: Report | None = None) -> Iterator[Document]:
        """The songs; read to the end, `separator` and `left_out` say what was found."""
        left_out = 0
        pieces = decoded(chunks(self._path, self._source, report), self._source)
        first, pieces = _with_first_line(pieces)
        self.separator = separator_of(first, self._column)
        table = Table(pieces, self.separator, self._source)
        header: list[str] = []
        place, title, artist = 0, None, None
        for row in table:
            if not header:
                header = [name.strip() for name in row.texts()]
                place = self._place(header)
                title, artist = (_find_column(header, name) for name in ("title", "artist"))
                table.wanted = tuple(p for p in (place, title, artist) if p is not None)
            elif len(row.cells) != len(header):
                raise self._uneven(row, header)
            elif holds_text(row, place):
                yield Document(row.pieces(place), _read_name(row, title), _read_name(row, artist))
            else:
                left_out += 1
        self.left_out = left_out

    def _place(self, header: list[str]) -> int:
        """Where the column stands among the names in the header."""
        if header.count(self._column) == 1:
            return header.index(self._column)
        listed = ", ".join(name[:LONGEST_NAME] for name in header[:MOST_NAMES])
        listed += ", …" if len(header) > MOST_NAMES else ""
        if self._column in header:
            raise CorpusError(
                f"{self._source} has several columns '{self._column}'; its columns are: {listed}.",
                "Give them names of their own.",
            )
        raise CorpusError(
            f"{self._source} has no column '{self._column}'; its columns are: {listed}.",
            "Name the one that holds the text with --text-column. "
            f"{did_you_mean(self._column, header)}".rstrip(),
        )

    def _uneven(self, row: Row, header: list[str]) -> CorpusError:
        cells, names = len(row.cells), len(header)
        return CorpusError(
            f"{self._source} is not a readable CSV: the row in line {row.line} has "
            f"{pluralize(cells, 'field')}, and the header {pluralize(names, 'name')}, separated by "
            f"{SEPARATORS[self.separator]}.",
            "Put text that holds the separator or line ends in double quotes, "
            "or save the text as a .txt file.",
        )


def holds_text(row: Row, place: int) -> bool:
    """Whether a cell holds more than white space, and not only what programs write for none."""
    return row.has_text(place) and not (
        len(row.cells[place]) < LONGEST_NAME
        and row.cells[place].decode().strip().lower() in NO_TEXT
    )


def _find_column(header: list[str], name: str) -> int | None:
    """The place of the first column of that name, in any case, if there is one."""
    return next((i for i, column in enumerate(header) if column.lower() == name), None)


def _read_name(row: Row, place: int | None) -> str:
    """A title or an artist in one line of bounded length; "" where the cell holds no text."""
    if place is None or not holds_text(row, place):
        return ""
    return shortened(" ".join(row.cells[place].decode().split()))


def _with_first_line(pieces: Iterable[str]) -> tuple[str, Iterator[str]]:
    """The first line that is not blank, and all the pieces."""
    rest, begin, lines = iter(pieces), "", [""]
    for piece in rest:
        begin += piece
        lines = [line for line in begin.split("\n") if line.strip()] or [""]
        if "\n" in begin[begin.find(lines[0]) :] or len(begin) > CHUNK:
            break
    return lines[0], chain([begin], rest)


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
