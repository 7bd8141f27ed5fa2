"""Clients that wait because their backend is full."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Queue", "Waiter"]


class _Timer(Protocol):
    def cancel(self) -> None: ...


class Waiter:
    """One client's place in a queue. Made by `Queue.join`."""

    __slots__ = ("timer", "too_late", "turn")

    def __init__(self, turn: Callable[[], bool], too_late: Callable[[], None]) -> None:
        self.turn = turn
        self.too_late = too_late
        self.timer: _Timer | None = None


class Queue:
    """Serves clients in the order in which they came.

    Args:
        capacity: How many may wait.
        seconds: How long each may wait.
        call_later: Calls a function after so many seconds, unless what it returns is cancelled.
    """

    def __init__(
        self,
        capacity: int,
        seconds: float,
        call_later: Callable[[float, Callable[[], None]], _Timer],
    ) -> None:
        self._capacity = capacity
        self._seconds = seconds
        self._call_later = call_later
        self._waiters: OrderedDict[Waiter, None] = OrderedDict()
        self._serving = False

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, turn: Callable[[], bool], too_late: Callable[[], None]) -> Waiter | None:
        """Let a client wait.

        Args:
            turn: Called when there may be room. It says whether the client is done with waiting, having found room or
                given up; if not, it keeps its place.
            too_late: Called when it has waited too long.

        Returns:
            Its place; ``None`` if the queue is full.
        """
        if len(self._waiters) >= self._capacity:
            return None
        waiter = Waiter(turn, too_late)
        waiter.timer = self._call_later(self._seconds, lambda: self._too_late(waiter))
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Let a client go, which is called no more. One that does not wait any longer may be given, too."""
        self._waiters.pop(waiter, None)
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None

    def serve(self) -> None:
        """Give room to those who wait, as long as the first one finds some. Meant to be the pool's `on_room`."""
        if self._serving:  # a turn that makes room is followed by another turn anyway
            return
        self._serving = True
        try:
            while self._waiters:
                waiter = next(iter(self._waiters))
                if not waiter.turn():
                    break
                self.leave(waiter)
        finally:
            self._serving = False

    def _too_late(self, waiter: Waiter) -> None:
        waiter.timer = None
        self.leave(waiter)
        waiter.too_late()
