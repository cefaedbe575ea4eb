"""Tables that fit the screen: a narrow one drops the least important columns.

If not even the others fit, each row becomes a few lines. The first column, which names
the rows, is never cut, so that names can be copied.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich.cells import cell_len
from rich.measure import Measurement
from rich.segment import Segment

from drakegpt.cli import console

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

Row = TypeVar("Row")
MIN_WRAPPED = 24  # least width of a column that wraps
HIGHLIGHT = "bold green"
MANY = 100  # rows from which each column is drawn as one cell, which rich does much faster


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: its title, the value of a row, and its priority to be dropped (0: never).

    A column that `wraps` takes the width that the others leave.
    """

    title: str
    value: Callable[[Row], str]
    drop: int = 0
    wraps: bool = False
    style: str = ""

    def width(self, rows: "Sequence[Row]") -> int:
        """Return the width in characters, with border and padding."""
        texts = [self.title, *(console.results().drawn(self.value(row)) for row in rows)]
        longest = max(cell_len(line) for text in texts for line in text.split("\n"))
        return 3 + (min(longest, MIN_WRAPPED) if self.wraps else longest)


def show_table(
    title: str,
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    highlight: Callable[[Row], bool] = lambda _: False,
    style: Callable[[Row], str] = lambda _: "",
) -> None:
    """Show the columns that have a value, as many as fit the screen.

    The first names the rows. Columns that are left out are named below the table.
    """

    def style_of(row: Row) -> str:
        return HIGHLIGHT if highlight(row) else style(row)

    screen = console.results()
    filled = [column for column in columns if any(column.value(row) for row in rows)]
    kept = list(filled)
    while (needed := 1 + sum(column.width(rows) for column in kept)) > screen.width:
        expendable = max(kept, key=lambda column: column.drop)
        if not screen.limited or not expendable.drop:
            break
        kept.remove(expendable)
    if screen.limited and (needed > screen.width or len(kept) < min(2, len(filled))):
        _show_list(title, filled, rows, style_of)
        return
    left_out = [column.title for column in filled if column not in kept]
    with screen.at_least(needed), _frozen_garbage():
        console.show(_table(title, kept, left_out, rows, style_of))


@contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Collect garbage only among the objects that the block makes.

    Otherwise a long table has all of PyTorch's objects searched, which takes 0.1 s.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _table(
    title: str,
    columns: Sequence[Column[Any]],
    left_out: Sequence[str],
    rows: Sequence[Any],
    style_of: Callable[[Any], str],
) -> "Table":
    from rich.table import Table

    names = ", ".join(map(_in_one_line, left_out))
    hidden = f"Left out: {names}. Widen the window or use --json."
    table = Table(
        title=title or None,
        title_justify="left",
        caption=hidden if left_out else None,
        caption_justify="left",
    )
    for place, column in enumerate(columns):
        table.add_column(
            column.title,
            justify="right" if place and not column.wraps else "left",
            no_wrap=not column.wraps,
            overflow="fold",
            style=column.style,
        )
    cells = [[column.value(row) for column in columns] for row in rows]
    styles = [style_of(row) for row in rows]
    in_lines = not any(column.wraps for column in columns) and not any(styles)
    if len(rows) > MANY and in_lines and not any("\n" in cell for row in cells for cell in row):
        table.add_row(*(_Lines(column) for column in zip(*cells, strict=True)))
        return table
    for row_cells, style in zip(cells, styles, strict=True):
        table.add_row(*row_cells, style=style)
    return table


class _Lines:
    """All cells of a column, one per line, as one cell of rich's table."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [console.results().drawn(text) for text in texts]
        self._width = max(map(cell_len, self._texts))

    def __rich_measure__(self, _: "Console", __: "ConsoleOptions") -> Measurement:
        return Measurement(self._width, self._width)

    def __rich_console__(self, _: "Console", options: "ConsoleOptions") -> "RenderResult":
        for text in self._texts:
            padding = " " * (options.max_width - cell_len(text))
            yield Segment(padding + text if options.justify == "right" else text + padding)
            yield Segment.line()


def _show_list(
    title: str,
    columns: Sequence[Column[Any]],
    rows: Sequence[Any],
    style_of: Callable[[Any], str],
) -> None:
    """Show each row as its name and one line per value; the terminal wraps long lines."""
    if title:
        console.show(console.styled(title, "italic"))
    first, *others = columns
    for row in rows:
        console.show(console.styled(first.value(row), style_of(row) or "bold"), soft_wrap=True)
        for column in others:
            if value := column.value(row):
                console.show(f"  {_in_one_line(column.title)}: {value}", soft_wrap=True)


def _in_one_line(title: str) -> str:
    return " ".join(title.split())
