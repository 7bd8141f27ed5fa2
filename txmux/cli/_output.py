"""What the commands write: with colours on a terminal if `rich` is installed, else plain and aligned."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from txmux.errors import printable
from txmux.telemetry import presentation
from txmux.telemetry.formatting import aligned

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod


Row = tuple[Sequence[str], str]
"""The cells of a row, and its style in the terms of `rich`: ``green``, ``dim``, nothing."""

_GAP = 2


class Output:
    """Writes to the standard output."""

    def __init__(self) -> None:
        self._console = _console()

    def line(self, text: str = "", style: str = "") -> None:
        if self._console is None:
            print(printable(text))
        else:
            from rich.text import Text  # noqa: PLC0415 - it is optional

            self._console.print(Text(printable(text), style))

    def table(
        self,
        rows: Sequence[Row],
        head: Sequence[str] = (),
        numbers: Collection[int] = (),
        widths: Sequence[int] = (),
    ) -> None:
        """Write a table; `numbers` are the columns that are aligned at the right, `widths` for a terminal that folds cells."""
        rows = [([printable(cell) for cell in cells], style) for cells, style in rows]
        if self._console is None:
            lines = [cells for cells, _ in rows]
            for line in aligned([head, *lines] if head else lines, numbers):
                print(line)
            return
        from rich.table import Table  # noqa: PLC0415 - it is optional
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=bool(head))
        for number, column in enumerate(head or rows[0][0]):
            justify: JustifyMethod = "right" if number in numbers else "left"
            width = widths[number] if widths else None
            table.add_column(column, overflow="fold", justify=justify, width=width)
        for cells, style in rows:
            table.add_row(*map(Text, cells), style=style)
        self._console.print(table)

    def listing(self, table: presentation.Table, rows: Sequence[presentation.Row]) -> None:
        """Write rows of a document; what has no value, and on a terminal what has no room, is left out."""
        columns = table.columns
        cells = [table.cells(row, presentation.COMMAND) for row in rows]
        titles = [column.title for column in columns]
        width = sys.maxsize if self._console is None else self._console.width
        shown, widths = presentation.fitted(columns, [titles, *cells], width, _GAP)
        self.table(
            [
                ([line[at] for at in shown], table.style(row))
                for row, line in zip(rows, cells, strict=True)
            ],
            [titles[at] for at in shown],
            [number for number, at in enumerate(shown) if columns[at].is_number],
            widths,
        )


def _console() -> Console | None:
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console  # noqa: PLC0415 - it is optional, and slow to import
    except ModuleNotFoundError:
        return None
    return Console(highlight=False)
