"""Clients that wait because their backend is full."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Protocol

import attrs

from txmux.classes import define


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


@define(eq=False, weakref_slot=False)
class Waiter:
    """One client's place in a queue."""

    number: int
    group: Hashable
    turn: Callable[[], bool]
    too_late: Callable[[], None]
    timer: _Cancellable | None = attrs.field(default=None, init=False)


@define(eq=False, slots=False)
class ClientQueue:
    """Serves clients in the order in which they came; one that finds no room does not hold up others.

    Args:
        capacity: How many may wait.
        seconds: How long each may wait.
        seconds_until_probe: Returns in how many seconds there may be room without a call of `serve`; infinite if never.
    """

    _capacity: int
    _seconds: float
    _call_later: Callable[[float, Callable[[], None]], _Cancellable]
    _seconds_until_probe: Callable[[], float] = lambda: math.inf
    _numbers: Iterator[int] = attrs.field(factory=itertools.count, init=False)
    # By group, in the order in which they came; only groups with waiters.
    _groups: dict[Hashable, OrderedDict[Waiter, None]] = attrs.field(factory=dict, init=False)
    _alarm: _Cancellable | None = attrs.field(default=None, init=False)
    _count = 0
    _serving = False

    def __len__(self) -> int:
        return self._count

    def add_client(
        self, turn: Callable[[], bool], too_late: Callable[[], None], group: Hashable = None
    ) -> Waiter | None:
        """Add a client; ``None`` if the queue is full.

        Args:
            turn: Called when there may be room. It returns whether the client has found room or given up; if not, it keeps
                its place.
            too_late: Called when it has waited too long.
            group: Clients of a group can use the same room: after one that finds none, the others of its group are skipped.
        """
        if self._count >= self._capacity:
            return None
        waiter = Waiter(next(self._numbers), group, turn, too_late)
        waiter.timer = self._call_later(self._seconds, lambda: self._too_late(waiter))
        self._groups.setdefault(group, OrderedDict())[waiter] = None
        self._count += 1
        self._set_alarm()
        return waiter

    def remove_client(self, waiter: Waiter) -> None:
        """Remove a client, which is not called again. It may have been removed already."""
        waiters = self._groups.get(waiter.group)
        if waiters is not None and waiter in waiters:
            del waiters[waiter]
            self._count -= 1
            if not waiters:
                del self._groups[waiter.group]
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
        if not self._count and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def serve(self) -> None:
        """Serve waiting clients as far as there is room. A new client must call it first."""
        if self._serving:  # the loop below continues if a turn makes room
            return
        self._serving = True
        without_room: set[Hashable] = set()
        try:
            while heads := [
                next(iter(waiters))
                for group, waiters in self._groups.items()
                if group not in without_room
            ]:
                waiter = min(heads, key=lambda head: head.number)
                if waiter.turn():
                    self.remove_client(waiter)
                else:
                    without_room.add(waiter.group)
        finally:
            self._serving = False
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is None and self._count:
            seconds = self._seconds_until_probe()
            if seconds < math.inf:
                self._alarm = self._call_later(seconds, self._has_rung)

    def _has_rung(self) -> None:
        self._alarm = None
        self.serve()

    def _too_late(self, waiter: Waiter) -> None:
        waiter.timer = None
        self.remove_client(waiter)
        waiter.too_late()
