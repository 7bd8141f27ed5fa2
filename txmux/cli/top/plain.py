"""What there is at one moment, as plain text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.cli.top.panes import TABLES, lines_of
from txmux.cli.top.state import PANES, State
from txmux.cli.top.summary import attention_of, counts_of, title_of
from txmux.telemetry.present import aligned, rates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.cli.top.state import Pane, Snapshot

__all__ = ["text_of"]

_MOST = 20
"""Rows of each pane; `txmux connections` lists all."""


def text_of(snapshot: Snapshot) -> Iterator[str]:
    """Yield the lines."""
    yield title_of(snapshot)
    yield counts_of(snapshot)
    yield f"rates: {rates(snapshot.status) or '-'}"
    yield from attention_of(snapshot)
    for pane in PANES:
        yield ""
        yield from _pane(pane, snapshot)


def _pane(pane: Pane, snapshot: Snapshot) -> Iterator[str]:
    lines, columns = lines_of(pane, State(), snapshot), TABLES[pane].columns
    yield f"{TABLES[pane].title}: {len(lines)}"
    if lines:
        rows = [[column.title for column in columns], *(line.cells for line in lines[:_MOST])]
        yield from aligned(rows, [at for at, column in enumerate(columns) if column.is_number])
    if len(lines) > _MOST:
        yield f"and {len(lines) - _MOST} more"
