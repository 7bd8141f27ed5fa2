"""What a service tells of its connections, over all its processes, and does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults

from txmux.control.broadcast import Listing, broadcast
from txmux.control.filters import EVERY, Page, place_of
from txmux.telemetry.recent import KEPT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from txmux.control.broadcast import Answers, Askable
    from txmux.control.filters import Filters

__all__ = ["LiveControl"]

_AT_ONCE = 1000
"""Connections in one answer of a process, which is not to be busy with it for long."""

_ENDING = 20.0
"""Seconds that a process has to end connections."""


class LiveControl:
    """The part of `txmux.control.interface.Control` that is about live connections."""

    def processes(self) -> Sequence[Askable]:
        raise NotImplementedError

    async def connections(self, filters: Filters = EVERY, page: Page = Page()) -> Listing:  # noqa: B008 - it is frozen
        """List connections, by the process that accepted them, and then in the order in which they came.

        Args:
            filters: Which.
            page: Which part of the list.
        """
        parts = [_part(one, filters, page) for one in self.processes()]
        found = await gatherResults([Deferred.fromCoroutine(part) for part in parts])
        rows = [row for part in found for row in part]
        rows.sort(key=_place)
        return Listing(rows[: page.limit], [line for part in found for line in part.missing])

    async def connection(self, identity: str) -> dict[str, Any] | None:
        """Report one connection, by its ID, with the explanation of its decision; ``None`` if it is not there any more."""
        processes = self.processes()
        # Both at once: a worker that hangs is waited for once.
        answers, explained = await gatherResults(
            [
                Deferred.fromCoroutine(
                    broadcast(processes, "connections", filters={}, limit=1, id=identity)
                ),
                Deferred.fromCoroutine(broadcast(processes, "explain_connection", id=identity)),
            ]
        )
        explanation = next((found for _, found in explained.answers if found is not None), None)
        for found in _by_place(answers):
            return {**found, "explanation": explanation}
        return None

    async def recent(self) -> Listing:
        """List the last connections that did not end as they should, the last one first."""
        answers = await broadcast(self.processes(), "recent")
        rows = [{**row, "worker": worker} for worker, rows in answers.answers for row in rows]
        rows.sort(key=_ended, reverse=True)
        return Listing(rows[:KEPT], answers.missing)

    async def close(self, filters: Filters, identity: str = "") -> int:
        """End connections, and count them.

        Args:
            filters: Which.
            identity: The ID of the only one that is meant.
        """
        answers = await broadcast(
            self.processes(), "close", seconds=_ENDING, filters=filters.words(), id=identity
        )
        return sum(count for _, count in answers.answers)


async def _part(process: Askable, filters: Filters, page: Page) -> Listing:
    """List the connections of one process, a bounded number at a time."""
    words, after = filters.words(), page.after
    rows: list[dict[str, Any]] = []
    while len(rows) < page.limit:
        limit = min(page.limit - len(rows), _AT_ONCE)
        answers = await broadcast([process], "connections", filters=words, limit=limit, after=after)
        listed = _by_place(answers)
        rows += listed
        if answers.missing or len(listed) < limit:
            return Listing(rows, answers.missing)
        after = rows[-1]["id"]
    return Listing(rows)


def _by_place(answers: Answers) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for worker, listed in answers.answers:
        rows += [{**row, "worker": worker} for row in listed]
    return sorted(rows, key=_place)


def _ended(row: Mapping[str, Any]) -> float:
    ended: float = row["ended"]
    return ended


def _place(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return place_of(row["id"])
