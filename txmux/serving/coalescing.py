"""Doing something once for all who ask for it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.python.failure import Failure

_T = TypeVar("_T")


class Coalescer(Generic[_T]):
    """Does something one at a time. All who ask while it is being done get one more, which is done after that.

    Args:
        do: What is done.
    """

    def __init__(self, do: Callable[[], Awaitable[_T]]) -> None:
        self._do = do
        self._is_busy = False
        self._waiting: list[Deferred[_T]] = []
        self._idle: list[Deferred[None]] = []

    def ask(self) -> Deferred[_T]:
        """Run it, or join a run that has not begun; returns the result."""
        asked: Deferred[_T] = Deferred()
        self._waiting.append(asked)
        if not self._is_busy:
            self._begin()
        return asked

    def idle(self) -> Deferred[None]:
        """Wait until nothing is being done."""
        if not self._is_busy:
            return succeed(None)
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        return idle

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._is_busy = bool(waiting)
        if not waiting:
            idle, self._idle = self._idle, []
            for one in idle:
                one.callback(None)
            return

        async def do() -> _T:
            return await self._do()

        def done(result: _T) -> None:
            for one in waiting:
                one.callback(result)

        def failed(failure: Failure) -> None:
            for one in waiting:
                one.errback(failure)

        Deferred.fromCoroutine(do()).addCallbacks(done, failed).addBoth(lambda _: self._begin())
