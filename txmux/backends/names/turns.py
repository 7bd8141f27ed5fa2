"""Turns of look-ups, so that the names of one owner or backend that have no answer leave room for those of others."""

from __future__ import annotations

from collections import deque
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred

_MOST_AT_ONCE = 100  # look-ups; each has two queries


class LookupTurns:
    """The look-ups by one list of name servers, or those of one owner among them.

    An owner has at most as many under way as are left for others, and so has each backend of theirs.
    """

    def __init__(self, outer: BackendTurns | None = None) -> None:
        # Of one owner, what they may have beside no other: none of its backends waits with a turn of its own.
        self.left = _MOST_AT_ONCE if outer is None else _MOST_AT_ONCE // 2
        self.outer = outer
        self.waiting: dict[BackendTurns, None] = {}
        self._of: WeakValueDictionary[str, BackendTurns] = WeakValueDictionary()
        self._owners: WeakValueDictionary[str, LookupTurns] = WeakValueDictionary()
        self._is_passing_on = False

    def within(self, owner: str) -> LookupTurns:
        turns = self._owners.get(owner)
        if turns is None:
            turns = self._owners[owner] = LookupTurns(self.of(owner))
        return turns

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
    """Those of one backend, or of one owner, each as an asynchronous context."""

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
        await self._start()
        if self._shared.outer is not None:
            try:
                await self._shared.outer.__aenter__()
            except BaseException:
                self._end()
                raise

    async def _start(self) -> None:
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
        if self._shared.outer is not None:
            await self._shared.outer.__aexit__()
        self._end()

    def _end(self) -> None:
        self._used -= 1
        self._shared.left += 1
        self._shared.pass_on()
