"""How a result shows itself: as a table at Python's prompt, and as HTML in a notebook."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from drakegpt.wording import escape_control_characters


@dataclass(frozen=True)
class Table:
    """A caption and rows of text; with a header, the columns after the first hold figures."""

    caption: str
    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()

    def to_text(self) -> str:
        """The table in plain text, its columns aligned: figures to the right."""
        lines = [line for line in (self.header, *self.rows) if line]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = (
            "  ".join(
                cell.rjust(width) if self.header and column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
        return "\n".join(map(escape_control_characters, (self.caption, *aligned)))

    def to_html(self) -> str:
        """The table as HTML, in which no text from outside is taken for markup."""
        align = "right" if self.header else "left"
        rows = [f"<tr>{_cells('th', self.header, align)}</tr>"] if self.header else []
        rows += [f"<tr>{_cells('td', row, align)}</tr>" for row in self.rows]
        return f"<table><caption>{escape(self.caption)}</caption>{''.join(rows)}</table>"


class Displayable(ABC):
    """Something that is shown as a table wherever its value is displayed."""

    @abstractmethod
    def to_table(self) -> Table:
        """Give the table to show."""

    def __repr__(self) -> str:
        return self.to_table().to_text()

    def _repr_html_(self) -> str:
        """The same for a notebook, which asks for it by this name."""
        return self.to_table().to_html()


def _cells(tag: str, row: Sequence[str], align: str) -> str:
    """The cells of a row: the first to the left, the others where `align` says."""
    return "".join(
        f'<{tag} style="text-align:{align if column else "left"}">{escape(cell)}</{tag}>'
        for column, cell in enumerate(row)
    )
