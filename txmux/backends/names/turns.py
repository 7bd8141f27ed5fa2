"""Turns of look-ups, so that the names of one backend that have no answer leave room for those of others."""

from __future__ import annotations

from collections import deque
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred

_MOST_AT_ONCE = 100  # look-ups; each has two queries


class LookupTurns:
    """The look-ups by one list of name servers. A backend has at most as many under way as are left for others."""

    def __init__(self) -> None:
        self.left = _MOST_AT_ONCE
        self.waiting: dict[BackendTurns, None] = {}
        self._of: WeakValueDictionary[str, BackendTurns] = WeakValueDictionary()
        self._is_passing_on = False

    def of(self, backend: str) -> BackendTurns:
        turns = self._of.get(backend)
        if turns is None:
            turns = self._of[backend] = BackendTurns(self)
        return turns

    def pass_on(self) -> None:
        if self._is_passing_on:  # a look-up has ended at once
            return
        self._is_passing_on = True
        while turns := next((each for each in self.waiting if each.may_start()), None):
            turns.start_next()
        self._is_passing_on = False


class BackendTurns:
    """Those of one backend, each as an asynchronous context."""

    def __init__(self, shared: LookupTurns) -> None:
        self._shared = shared
        self._used = 0
        self._waiting: deque[Deferred[None]] = deque()

    def may_start(self) -> bool:
        return self._used < self._shared.left

    def start_next(self) -> None:
        self._take()
        started = self._waiting.popleft()
        del self._shared.waiting[self]
        if self._waiting:  # behind other backends
            self._shared.waiting[self] = None
        started.callback(None)

    async def __aenter__(self) -> None:
        if self.may_start() and not self._waiting:
            self._take()
            return
        waiting: Deferred[None] = Deferred(self._cancelled)
        self._waiting.append(waiting)
        self._shared.waiting[self] = None
        await waiting

    def _take(self) -> None:
        self._used += 1
        self._shared.left -= 1

    def _cancelled(self, waiting: Deferred[None]) -> None:
        self._waiting.remove(waiting)
        if not self._waiting:
            self._shared.waiting.pop(self, None)

    async def __aexit__(self, *_: object) -> None:
        self._used -= 1
        self._shared.left += 1
        self._shared.pass_on()
