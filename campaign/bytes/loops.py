"""An epoll loop with timers and nothing else: what the campaign's own ends cost is time that txmux is not tried."""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT


class Loop:
    """Calls whoever has something to do, until nobody has."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def change(self, descriptor: int, events: int) -> None:
        """Call it for these events from now on."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Call it no more; before the descriptor is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Call it once, after this time. It cannot be taken back."""
        due = time.monotonic() + seconds
        heapq.heappush(self._timers, (due, next(self._numbers), do))

    def turn(self, most: float = 1.0) -> None:
        """Wait for something to do, not longer than this, and do it."""
        timeout = most
        if self._timers:
            timeout = max(0.0, min(most, self._timers[0][0] - time.monotonic()))
        for descriptor, events in self._epoll.poll(timeout):
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(events)
        self.now = now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()

    def close(self) -> None:
        self._epoll.close()
