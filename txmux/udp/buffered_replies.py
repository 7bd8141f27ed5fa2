"""Answers that wait until their client's new address has proved itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.udp import ancillary

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST_BUFFERED", "BufferedReplies"]

MOST_BUFFERED = 32 * 1024
"""Bytes that may wait."""


class BufferedReplies:
    """What may not go out yet, in its order. The first that come are kept, so the client can tell which ones it lacks."""

    __slots__ = ("_datagrams", "_size")

    def __init__(self) -> None:
        self._datagrams: list[bytes] = []
        self._size = 0

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._datagrams)

    def keep(self, data: memoryview, size: int) -> int:
        """Keep datagrams; see `txmux.udp.ancillary.read` for the size.

        Returns:
            How many of them there is no room for.
        """
        lost = 0
        for part in ancillary.split(data, size):
            if self._size + len(part) > MOST_BUFFERED:
                lost += 1
            else:
                self._datagrams.append(bytes(part))
                self._size += len(part)
        return lost

    def take(self) -> Sequence[bytes]:
        """Return all of them, and forget them."""
        datagrams, self._datagrams = self._datagrams, []
        self._size = 0
        return datagrams
