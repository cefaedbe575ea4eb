"""Rows of a CSV, read in bounded memory and strictly: what is malformed is an error with its line.

A cell in quotes may hold separators and line ends, and a quote twice stands for one. Blanks
around such a cell are no part of it. Python's `csv` lets a quote that is never closed swallow
the rest of a file, and needs 14 times the size of a large cell.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

from drakegpt.errors import CorpusError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
FIX = "Fix that line, or save the text as a .txt file."
PIECE = 1 << 18  # bytes of a cell that are decoded at once


class Row:
    """A row and the line it begins in; the cells are held as UTF-8, as small as in the file."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.blank = True  # white space in all its cells, also in those that are not held
        self.cells = [bytearray()]

    def pieces(self, place: int) -> Iterator[str]:
        """A cell's text in pieces."""
        cell = self.cells[place]
        return codecs.iterdecode(
            (bytes(cell[start : start + PIECE]) for start in range(0, len(cell), PIECE)), "utf-8"
        )

    def texts(self) -> list[str]:
        """The texts of all cells."""
        return [cell.decode() for cell in self.cells]

    def has_text(self, place: int) -> bool:
        """Whether a cell holds more than white space."""
        return any(piece.strip() for piece in self.pieces(place))


class Table:
    """The rows of a text that comes in pieces, in which lines end in line feeds alone.

    Blank lines are no rows. Raises `CorpusError` if a quote is never closed,
    or if something follows a closing one.
    """

    def __init__(self, pieces: Iterable[str], separator: str, source: str) -> None:
        """`source`: what messages call the file."""
        self._events = _Scanner(separator, source).events(pieces)
        # The places whose cells are read, once they are known; until then all are.
        self.wanted: tuple[int, ...] | None = None

    def __iter__(self) -> Iterator[Row]:
        """Each row, to be looked at before the next."""
        row, line = Row(1), 1
        for event in self._events:
            if event is Mark.ROW:
                if len(row.cells) > 1 or not row.blank:
                    yield row
                line += 1
                row = Row(line)
            elif event is Mark.CELL:
                row.cells.append(bytearray())
            else:
                line += event.count("\n")
                row.blank = row.blank and not event.strip()
                if self.wanted is None or len(row.cells) - 1 in self.wanted:
                    row.cells[-1] += event.encode()
        if len(row.cells) > 1 or not row.blank:
            yield row


def separator_of(line: str, column: str) -> str:
    """What separates the names in a table's first line: what makes `column` one, or most names."""

    def names(separator: str) -> list[str]:
        try:
            (row,) = Table([line], separator, "")
        except (CorpusError, ValueError):
            return []
        return [name.strip() for name in row.texts()]

    return max(SEPARATORS, key=lambda s: (column in names(s), len(names(s))))


class Mark(Enum):
    """The end of a cell that is not its row's last, and of a row."""

    CELL = auto()
    ROW = auto()


class _Scanner:
    """Reads a table as texts of cells, bit by bit, and the marks between them.

    Where it is, its `_next` says: the method that reads on from a place in a piece, and gives
    what it has read and the place after it.
    """

    def __init__(self, separator: str, source: str) -> None:
        self._separator, self._source = separator, source
        self._blanks = re.compile("[ \t]*".replace(separator, ""))
        self._stop = re.compile(f"[{separator}\n]")
        self._next: Callable[[str, int], tuple[str | Mark, int]] = self._start
        self._line, self._opened = 1, 0  # this line, and that of the last opening quote
        self._held = ""  # blanks that are part of the cell unless a quote follows

    def events(self, pieces: Iterable[str]) -> Iterator[str | Mark]:
        """The whole table; `CorpusError` with the line where it is malformed."""
        for piece in pieces:
            place = 0
            while place < len(piece):
                event, place = self._next(piece, place)
                if event:
                    yield event
        if self._next == self._quoted:
            raise self._malformed(f"line {self._opened}: a quote opens a cell and is never closed")
        if self._held:
            yield self._held

    def _start(self, piece: str, place: int) -> tuple[str, int]:
        end = self._after_blanks(piece, place)
        self._held += piece[place:end]
        if end == len(piece):
            return "", end
        text, self._held = self._held, ""
        if piece[end] == '"':
            self._opened, self._next = self._line, self._quoted
            return "", end + 1
        self._next = self._plain
        return text, end

    def _plain(self, piece: str, place: int) -> tuple[str, int]:
        found = self._stop.search(piece, place)
        end = found.start() if found else len(piece)
        if found:
            self._next = self._end
        return piece[place:end], end

    def _end(self, piece: str, place: int) -> tuple[Mark, int]:
        self._next = self._start
        if piece[place] != "\n":
            return Mark.CELL, place + 1
        self._line += 1
        return Mark.ROW, place + 1

    def _quoted(self, piece: str, place: int) -> tuple[str, int]:
        end = piece.find('"', place)
        if end >= 0:
            self._next = self._quote
        text = piece[place:end] if end >= 0 else piece[place:]
        self._line += text.count("\n")
        return text, place + len(text) + (end >= 0)

    def _quote(self, piece: str, place: int) -> tuple[str, int]:
        """Right after a quote in a quoted cell, which another one makes part of the text."""
        if piece[place] == '"':
            self._next = self._quoted
            return '"', place + 1
        self._next = self._closed
        return "", place

    def _closed(self, piece: str, place: int) -> tuple[str, int]:
        end = self._after_blanks(piece, place)
        if end < len(piece):
            if piece[end] not in (self._separator, "\n"):
                raise self._malformed(
                    f"line {self._line}: text follows the quote that closes a cell, which a quote "
                    f"in line {self._opened} has opened"
                )
            self._next = self._end
        return "", end

    def _after_blanks(self, piece: str, place: int) -> int:
        found = self._blanks.match(piece, place)
        return found.end() if found else place

    def _malformed(self, what: str) -> CorpusError:
        return CorpusError(f"{self._source} is not a readable CSV: {what}.", FIX)
