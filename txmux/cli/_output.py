"""What the commands write: with colours on a terminal if `rich` is installed, else plain and aligned."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from txmux.errors import printable
from txmux.telemetry.formatting import ExplainedRoute, aligned

if TYPE_CHECKING:
    from rich.console import Console


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

    def table(self, rows: Sequence[Row], head: Sequence[str] = ()) -> None:
        rows = [([printable(cell) for cell in cells], style) for cells, style in rows]
        if self._console is None:
            lines = [cells for cells, _ in rows]
            for line in aligned([head, *lines] if head else lines):
                print(line)
            return
        from rich.table import Table  # noqa: PLC0415 - it is optional
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=bool(head))
        for column in head or rows[0][0]:
            table.add_column(column, overflow="fold")
        for cells, style in rows:
            table.add_row(*map(Text, cells), style=style)
        self._console.print(table)


def explained_style(route: ExplainedRoute) -> str:
    if route.wins:
        return "bold green"
    return {"match": "green", "undecided": "yellow"}.get(route.answer, "dim")


def _console() -> Console | None:
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console  # noqa: PLC0415 - it is optional, and slow to import
    except ModuleNotFoundError:
        return None
    return Console(highlight=False)
