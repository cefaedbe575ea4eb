"""A strict CSV parser in bounded memory: malformed text is an error that names its line.

A quoted cell may contain separators, line ends and doubled quotes. Blanks around it are not
part of it. Python's `csv` reads the rest of a file as one cell if a quote is never closed, and
needs 14 times the memory of a large cell.
"""

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

from drakegpt.errors import CorpusError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
FIX = "Fix that line, or save the text as a .txt file."
PIECE = 1 << 18  # bytes of a cell decoded together


class Row:
    """A row and the line it starts in; cells are held as UTF-8, as compact as in the file."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.blank = True  # all its cells are white space, including those that are not held
        self.cells = [bytearray()]

    def pieces(self, column: int) -> Iterator[str]:
        """Decode a cell piece by piece."""
        cell = self.cells[column]
        if len(cell) <= PIECE:
            return iter((cell.decode(),))
        return codecs.iterdecode(
            (bytes(cell[start : start + PIECE]) for start in range(0, len(cell), PIECE)), "utf-8"
        )

    def texts(self) -> list[str]:
        """Decode all cells."""
        return [cell.decode() for cell in self.cells]

    def has_text(self, column: int) -> bool:
        """Tell whether a cell has anything but white space."""
        return any(piece.strip() for piece in self.pieces(column))


class Table:
    """The rows of a text that comes in pieces and has line feeds as line ends.

    Blank lines are skipped. Raises `CorpusError` if a quote is never closed or if text
    follows a closing quote.
    """

    def __init__(self, pieces: Iterable[str], separator: str, source: str) -> None:
        """`source`: the file's name in messages."""
        self._events = _Scanner(separator, source).events(pieces)
        self.columns: tuple[int, ...] | None = None  # if set, only these columns' cells are held

    def __iter__(self) -> Iterator[Row]:
        """Yield each row, which must be used before the next."""
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
                if self.columns is None or len(row.cells) - 1 in self.columns:
                    row.cells[-1] += event.encode()
        if len(row.cells) > 1 or not row.blank:
            yield row


def detect_separator(line: str, column: str) -> str:
    """Choose the separator with which a header has the name `column`, or the most names."""

    def split_header(separator: str) -> list[str]:
        try:
            (row,) = Table([line], separator, "")
        except (CorpusError, ValueError):
            return []
        return [name.strip() for name in row.texts()]

    return max(SEPARATORS, key=lambda s: (column in split_header(s), len(split_header(s))))


class Mark(Enum):
    """The end of a cell that is not the last of its row, or of a row."""

    CELL = auto()
    ROW = auto()


class _Scanner:
    """A state machine that reads a table as pieces of cells' texts and the marks between them.

    The state is `_next`: the method that reads on from an index in a piece and returns what it
    has read and the index after that.
    """

    def __init__(self, separator: str, source: str) -> None:
        self._separator, self._source = separator, source
        self._blanks = re.compile("[ \t]*".replace(separator, ""))
        self._stop = re.compile(f"[{separator}\n]")
        self._next: Callable[[str, int], tuple[str | Mark, int]] = self._start
        self._line, self._opened = 1, 0  # the current line, and that of the last opening quote
        self._held = ""  # leading blanks, part of the cell unless a quote follows

    def events(self, pieces: Iterable[str]) -> Iterator[str | Mark]:
        """Yield the whole table; raises `CorpusError` with the line where it is malformed."""
        for piece in pieces:
            index = 0
            while index < len(piece):
                event, index = self._next(piece, index)
                if event:
                    yield event
        if self._next == self._quoted:
            raise self._describe_error(
                f"line {self._opened}: a quote opens a cell and is never closed"
            )
        if self._held:
            yield self._held

    def _start(self, piece: str, index: int) -> tuple[str, int]:
        end = self._skip_blanks(piece, index)
        self._held += piece[index:end]
        if end == len(piece):
            return "", end
        text, self._held = self._held, ""
        if piece[end] == '"':
            self._opened, self._next = self._line, self._quoted
            return "", end + 1
        self._next = self._plain
        return text, end

    def _plain(self, piece: str, index: int) -> tuple[str, int]:
        found = self._stop.search(piece, index)
        end = found.start() if found else len(piece)
        if found:
            self._next = self._end
        return piece[index:end], end

    def _end(self, piece: str, index: int) -> tuple[Mark, int]:
        self._next = self._start
        if piece[index] != "\n":
            return Mark.CELL, index + 1
        self._line += 1
        return Mark.ROW, index + 1

    def _quoted(self, piece: str, index: int) -> tuple[str, int]:
        end = piece.find('"', index)
        if end >= 0:
            self._next = self._quote
        text = piece[index:end] if end >= 0 else piece[index:]
        self._line += text.count("\n")
        return text, index + len(text) + (end >= 0)

    def _quote(self, piece: str, index: int) -> tuple[str, int]:
        """Read what follows a quote in a quoted cell: a second quote makes it part of the text."""
        if piece[index] == '"':
            self._next = self._quoted
            return '"', index + 1
        self._next = self._closed
        return "", index

    def _closed(self, piece: str, index: int) -> tuple[str, int]:
        end = self._skip_blanks(piece, index)
        if end < len(piece):
            if piece[end] not in (self._separator, "\n"):
                raise self._describe_error(
                    f"line {self._line}: text follows the quote that closes a cell, which a quote "
                    f"in line {self._opened} has opened"
                )
            self._next = self._end
        return "", end

    def _skip_blanks(self, piece: str, index: int) -> int:
        found = self._blanks.match(piece, index)
        return found.end() if found else index

    def _describe_error(self, what: str) -> CorpusError:
        return CorpusError(f"{self._source} is not a readable CSV: {what}.", FIX)
