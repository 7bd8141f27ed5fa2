"""Datagrams that come before the flow that they belong to, which is on its way from another process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LONGEST", "Waiting"]

LONGEST = 5.0
"""Seconds for which datagrams are kept at most: flows come within a fraction of one."""

_MOST = 8 * 1024 * 1024  # bytes that are kept
_EACH = 200  # what a datagram takes beside its own bytes


class Waiting:
    """Keeps the datagrams of unknown clients of a port, each client's in its order.

    Args:
        reactor: Tells when it has lasted too long.
        over: Called then.
        lost: Told of datagrams that are dropped, since there are too many.
    """

    def __init__(
        self, reactor: Any, over: Callable[[], object], lost: Callable[[int], object]
    ) -> None:
        self._kept: dict[Any, list[tuple[bytes, int]]] = {}
        self._room = _MOST
        self._lost = lost
        self._timer = reactor.callLater(LONGEST, over)

    def keep(self, key: Any, data: memoryview, size: int, count: int) -> None:
        """Keep datagrams, or drop them.

        Args:
            key: Of the client.
            data: Their bytes.
            size: The bytes of each but the last; 0 if there is one.
            count: How many they are.
        """
        needed = len(data) + _EACH
        if needed > self._room:
            self._lost(count)
            return
        self._room -= needed
        self._kept.setdefault(key, []).append((bytes(data), size))

    def take(self, key: Any) -> list[tuple[memoryview, int]]:
        """Return what has come from a client, and keep it no more."""
        kept = self._kept.pop(key, [])
        self._room += sum(len(data) + _EACH for data, _ in kept)
        return [(memoryview(data), size) for data, size in kept]

    def end(self) -> list[tuple[Any, memoryview, int]]:
        """Keep nothing any more, and give what nobody has taken."""
        if self._timer.active():
            self._timer.cancel()
        kept, self._kept = self._kept, {}
        return [(key, memoryview(data), size) for key, all_ in kept.items() for data, size in all_]
