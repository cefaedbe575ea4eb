"""Tables that fit the screen: on a narrow one, the least important columns stay away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from drakegpt.cli import console

if TYPE_CHECKING:
    from rich.table import Table

Row = TypeVar("Row")


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A column: its title, a row's value, how soon a narrow screen does without it (0: never)."""

    title: str
    value: Callable[[Row], str]
    sooner: int = 0


def fitting(
    title: str,
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    highlight: Callable[[Row], bool] = lambda _: False,
) -> "Table":
    """The columns that say something, as many as the screen is wide enough for.

    The first names the rows. What is left out is named below the table.
    """
    telling = [column for column in columns if any(column.value(row) for row in rows)]
    kept = list(telling)
    screen = console.results()
    unbounded = screen.options.update(max_width=10_000)
    while True:
        left_out = [column.title for column in telling if column not in kept]
        table = _table(title, kept, left_out, rows, highlight)
        expendable = max(kept, key=lambda column: column.sooner)
        fits = table.__rich_measure__(screen, unbounded).maximum <= screen.width
        if fits or not expendable.sooner:
            return table
        kept.remove(expendable)


def _table(
    title: str,
    columns: Sequence[Column[Any]],
    left_out: Sequence[str],
    rows: Sequence[Any],
    highlight: Callable[[Any], bool],
) -> "Table":
    from rich.table import Table

    names = ", ".join(" ".join(name.split()) for name in left_out)
    hidden = f"Left out: {names}. Widen the window or use --json."
    table = Table(
        title=title,
        title_justify="left",
        caption=hidden if left_out else None,
        caption_justify="left",
    )
    for place, column in enumerate(columns):
        table.add_column(column.title, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        style = "bold green" if highlight(row) else None
        table.add_row(*(column.value(row) for column in columns), style=style)
    return table
