"""Answers that are dear to make: one for all who ask meanwhile, and time for other work between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_REST = 3
"""How many times as long as the last one took is waited before the next one: so they take a quarter of the time at most."""
_LONGEST_REST = 2.0  # seconds


class Shared:
    """Makes answers, one at a time. None is older than the request that it answers.

    Args:
        clock: For the time between them.
        make: Makes one.
    """

    def __init__(self, clock: Any, make: Callable[[], Awaitable[bytes]]) -> None:
        self._clock = clock
        self._make = make
        self._asking: list[Deferred[bytes]] = []
        self._is_working = False
        self._not_before = 0.0

    async def get(self) -> bytes:
        """Return an answer that is begun after this call. Raises what making it does."""
        asking: Deferred[bytes] = Deferred()
        self._asking.append(asking)
        if not self._is_working:
            self._is_working = True
            Deferred.fromCoroutine(self._answer_all())
        return await asking

    async def _answer_all(self) -> None:
        while self._asking:
            rest = self._not_before - self._clock.seconds()
            if rest > 0:
                await deferLater(self._clock, rest)
            began = self._clock.seconds()
            asking, self._asking = self._asking, []
            made: bytes | Failure
            try:
                made = await self._make()
            except Exception:  # noqa: BLE001 - whoever asks is told
                made = Failure()
            ended = self._clock.seconds()
            self._not_before = ended + min(_LONGEST_REST, _REST * (ended - began))
            for one in asking:
                one.callback(made)  # which takes a failure, too
        self._is_working = False
