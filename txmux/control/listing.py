"""Lists the connections of a worker, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from txmux.control.broadcast import Answers, Listing, WorkerLink, broadcast
from txmux.control.filters import Filters, Page, connection_sort_key
from txmux.net.channel import messages

_ROWS_AT_ONCE = 1000
"""Connections in one answer of a worker, which must not be busy with it for long."""


async def connections_of(worker: WorkerLink, filters: Filters, page: Page) -> Listing:
    words, after = filters.words(), page.after
    rows: list[dict[str, Any]] = []
    while len(rows) < page.limit:
        limit = min(page.limit - len(rows), _ROWS_AT_ONCE)
        answers = await broadcast(
            [worker],
            messages.CONNECTIONS,
            if_late="skip",
            filters=words,
            limit=limit,
            after=after,
        )
        listed = sorted(rows_of_workers(answers), key=row_order)
        rows += listed
        if answers.missing or len(listed) < limit:
            return Listing(rows, answers.missing)
        after = rows[-1]["id"]
    return Listing(rows)


def rows_of_workers(answers: Answers) -> list[dict[str, Any]]:
    return [{**row, "worker": worker} for worker, rows in answers.answers for row in rows]


def row_order(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return connection_sort_key(row["id"])
