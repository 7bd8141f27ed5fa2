"""A second connection from the address of a client: where each may have one, it is refused."""

from __future__ import annotations

import socket
from collections.abc import Callable

from campaign.bytes.loops import READ, Loop
from campaign.bytes.talks import Talk

ENTRIES = ("few", "rated")
"""The ways in where a client comes again: one connection at a time is allowed, or one an hour."""
_LOOK = 0.05  # seconds from one look at the first connection to the next


class Again:
    """Comes again as soon as the first connection has heard something, and so is known to be counted.

    Args:
        loop: Where it waits.
        address: The client's, with its port, and where it comes in.
        first: The connection that it has.
        lasts: Whether one that has ended counts, too.
        patience: Seconds that it waits to be refused.
        on_over: Told once: ``refused``, ``served`` if it was not, ``unsure`` if the first one ended meanwhile, or nothing if that ended before.
    """

    def __init__(
        self,
        loop: Loop,
        addresses: tuple[tuple[str, int], tuple[str, int]],
        first: Talk,
        on_over: Callable[[str], None],
        *,
        lasts: bool,
        patience: float,
    ) -> None:
        self._loop, self._addresses, self._first = loop, addresses, first
        self._lasts, self._on_over = lasts, on_over
        self._deadline = loop.now + patience
        self._socket: socket.socket | None = None
        self._is_over = False

    def look(self) -> None:
        if self._is_over:
            return
        counts = self._lasts or not self._first.is_over
        if self._socket is not None:
            if not counts:
                self._end("unsure")
            elif self._loop.now > self._deadline:
                self._end("served")
        elif self._first.received and counts:
            self._come()
        elif self._first.is_over:
            self._end("")
        if not self._is_over:
            self._loop.later(_LOOK, self.look)

    def _come(self) -> None:
        own, there = self._addresses
        self._socket = socket.socket()
        self._socket.setblocking(False)  # noqa: FBT003
        self._socket.bind(own)
        self._socket.connect_ex(there)
        self._loop.watch(self._socket.fileno(), READ, self._hear)

    def _hear(self, _: int) -> None:
        assert self._socket is not None
        try:
            said = self._socket.recv(1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        self._end("served" if said else "refused")

    def _end(self, what: str) -> None:
        self._is_over = True
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
        self._on_over(what)
