"""The connections of an old process are on their way to this one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - this is what it raises
from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

__all__ = ["IncomingTransfer"]

_log = Logger()

_LONGEST = 70.0
"""Seconds; the old process gives up before that."""


class IncomingTransfer:
    """Lets what would change who serves wait for them.

    Args:
        clock: Tells when to wait no longer.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._is_expected = False
        self._expected_at = 0.0
        self._waiting: list[Deferred[None]] = []

    def expect(self) -> None:
        """Record that there will be some; `over` tells when all are here."""
        self._is_expected = True
        self._expected_at = self._clock.seconds()

    def over(self) -> None:
        """Record that no more will come."""
        self._is_expected = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)

    async def wait(self) -> None:
        """Wait until no more will come."""
        if not self._is_expected:
            return
        arrived: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(arrived)
        left = max(0.0, self._expected_at + _LONGEST - self._clock.seconds())
        try:
            await arrived.addTimeout(left, self._clock)
        except TimeoutError:
            if self._is_expected:
                _log.warn(
                    "the old process has not handed over all connections in {seconds:g} s, and is waited for no longer",
                    seconds=_LONGEST,
                )
                self.over()
