"""Waits for conditions that only callbacks change, and merges concurrent requests into one run."""

from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txmux.classes import define

_T = TypeVar("_T")
_REST = 3
"""How many times as long as the last run the pause after it is, so that runs take a quarter of the time at most."""
_LONGEST_REST = 2.0  # seconds


class Conditions:
    """Checks what is waited for whenever `check` is called; a condition may be false again before its turn."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        async def wait() -> None:
            while not condition():
                changed: Deferred[None] = Deferred()
                self._waiting.append(changed)
                await changed

        return Deferred.fromCoroutine(wait())

    def check(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            changed.callback(None)


@define(eq=False)
class Coalescer(Generic[_T]):
    """Does one run at a time. Requests that come during a run share the next one, so no result is older than its request.

    With a clock there are pauses between runs, which leave time for other work; `spent` gives the seconds of the processor, so that
    waiting for others is not counted.
    """

    _run: Callable[[], Awaitable[_T]]
    _clock: Any = None
    _spent: Callable[[], float] = process_time
    _not_before: float = attrs.field(default=0.0, init=False)
    is_busy: bool = attrs.field(default=False, init=False)
    _waiting: list[Deferred[_T]] = attrs.field(factory=list, init=False)
    _changes: Conditions = attrs.field(factory=Conditions, init=False)

    def request(self) -> Deferred[_T]:
        """Return the result of a run that starts after this call."""
        waiting: Deferred[_T] = Deferred()
        self._waiting.append(waiting)
        if not self.is_busy:
            self.is_busy = True
            Deferred.fromCoroutine(self._run_all())
        return waiting

    def wait_until_idle(self) -> Deferred[None]:
        return self._changes.until(lambda: not self.is_busy)

    async def _run_all(self) -> None:
        while self._waiting:
            await self._rest()
            began = self._spent()
            waiting, self._waiting = self._waiting, []
            result: _T | Failure
            try:
                result = await self._run()
            except Exception:  # noqa: BLE001 - passed to the waiting callers
                result = Failure()
            if self._clock is not None:
                rest = min(_LONGEST_REST, _REST * (self._spent() - began))
                self._not_before = self._clock.seconds() + rest
            for deferred in waiting:
                deferred.callback(result)  # which takes a failure, too
        self.is_busy = False
        self._changes.check()

    async def _rest(self) -> None:
        rest = 0.0 if self._clock is None else self._not_before - self._clock.seconds()
        if rest > 0:
            await deferLater(self._clock, rest)
