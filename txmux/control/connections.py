"""Lists the connections of all workers and where they come from, and ends them."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

from txmux.control.broadcast import (
    ENDING,
    Answers,
    Listing,
    WorkerLink,
    broadcast,
    concurrently,
    one_after_the_other,
)
from txmux.control.clients import clients_document
from txmux.control.control import Control
from txmux.control.filters import EVERY, Filters, Page, connection_sort_key
from txmux.net.channel import messages
from txmux.telemetry.documents import (
    ClientDocument,
    ConnectionDocument,
    ExplainedConnectionDocument,
)

_LISTING = 10.0  # seconds that a worker has to go through very many connections

_ROWS_AT_ONCE = 1000
"""Connections in one answer of a worker, which must not be busy with it for long."""


async def list_connections(
    control: Control,
    filters: Filters = EVERY,
    page: Page = Page(),  # noqa: B008 - it is frozen
) -> Listing[ConnectionDocument]:
    """List connections, by the process that accepted them, then by their order."""
    listings = await one_after_the_other(
        control.serving(), lambda worker: _connections_of(worker, filters, page)
    )
    # One that has moved meanwhile may be in two of them.
    rows = _sorted({row["id"]: row for part in listings for row in part}.values())
    return Listing(rows[: page.limit], [line for part in listings for line in part.missing])


async def _connections_of(
    worker: WorkerLink, filters: Filters, page: Page
) -> Listing[ConnectionDocument]:
    """List the connections of a worker, page by page."""
    words, after = filters.words(), page.after
    rows: list[ConnectionDocument] = []
    while len(rows) < page.limit:
        limit = min(page.limit - len(rows), _ROWS_AT_ONCE)
        asked: Any = {"filters": words, "limit": limit, "after": after}
        answers = await broadcast([worker], messages.CONNECTIONS, if_late="skip", **asked)
        listed = _sorted(_rows_in(answers))
        rows += listed
        if answers.missing or len(listed) < limit:
            return Listing(rows, answers.missing)
        after = rows[-1]["id"]
    return Listing(rows)


def _rows_in(answers: Answers) -> list[ConnectionDocument]:
    rows = [{**row, "worker": worker} for worker, rows in answers for row in rows]
    return cast("list[ConnectionDocument]", rows)


def _sorted(rows: Iterable[ConnectionDocument]) -> list[ConnectionDocument]:
    return sorted(rows, key=lambda row: connection_sort_key(row["id"]))


async def list_clients(control: Control, limit: int = 100) -> Listing[ClientDocument]:
    """List the sources with the most connections."""
    answers = await control.ask_workers(messages.CLIENTS, seconds=_LISTING)
    return Listing(clients_document((rows for _, rows in answers), limit), answers.missing)


async def find_connection(control: Control, identity: str) -> Listing[ExplainedConnectionDocument]:
    """Report one connection by its ID, with the explanation of its decision; none if it has ended."""
    answers, explained = await concurrently(
        control.ask_workers(messages.CONNECTIONS, filters={}, limit=1, id=identity),
        control.ask_workers(messages.EXPLAIN_CONNECTION, id=identity),
    )
    explanation = next((answer for _, answer in explained if answer is not None), None)
    rows: list[ExplainedConnectionDocument] = [
        {**row, "explanation": explanation} for row in _rows_in(answers)
    ]
    return Listing(rows[-1:], [] if rows and explanation else answers.missing)


async def end_connections(
    control: Control, filters: Filters, identity: str = ""
) -> tuple[int, Sequence[str]]:
    """End the connections that the filters select, or the one of an ID.

    Returns:
        Their number, and a line for each worker without an answer, which may end some later.
    """
    answers = await control.change_workers(
        messages.CLOSE, seconds=ENDING, filters=filters.words(), id=identity
    )
    return sum(count for _, count in answers), answers.missing
