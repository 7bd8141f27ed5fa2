"""What a peer has sent, seen and left in its socket, so that the socket can still be given to somebody else."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Looking:
    """Looks at the first bytes of a TCP socket.

    The system tells of a socket as long as there is anything to read (epoll(7), level-triggered). So it is asked to tell of more
    than has been seen alone: `SO_RCVLOWAT`, socket(7).

    Args:
        connected: The socket, not blocking.
        most: Bytes that are looked at.
        on_full: Called when there can be no more of them before some are taken.

    Attributes:
        on_full: As above.
        seen: So many bytes have been seen, and not been taken.
    """

    __slots__ = ("_most", "_socket", "on_full", "seen")

    def __init__(self, connected: socket.socket, most: int, on_full: Callable[[], object]) -> None:
        self._socket = connected
        self._most = most
        self.on_full = on_full
        self.seen = 0

    def more(self) -> bytes:
        """Return what has come since it was asked last.

        Raises:
            OSError: The connection is broken.
        """
        try:
            there = self._socket.recv(self._most, socket.MSG_PEEK)
        except BlockingIOError:
            return b""
        new = there[self.seen :]
        if new:
            self._saw(len(there))
        return new

    def is_full(self) -> bool:
        """Return whether there can be no more, though the peer has more to say: the socket takes no more, or is not looked at any further."""
        asked = select.poll()
        asked.register(self._socket, select.POLLIN)
        return bool(asked.poll(0))

    def take(self, count: int) -> None:
        """Take so many of the bytes that have been seen out of the socket.

        Raises:
            OSError: The connection is broken.
        """
        self._saw(self.seen - count)
        left = count
        while left:
            left -= len(self._socket.recv(left)) or left

    def end(self) -> None:
        """Have every byte reported again, as the next reader expects."""
        if self.seen:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _saw(self, count: int) -> None:
        self.seen = count
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count + 1)
