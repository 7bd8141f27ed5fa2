"""Bounds the lines that the log has about servers of other users' files."""

from collections.abc import Callable
from typing import Literal

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txmux.rules.model import Backend
from txmux.telemetry.formatting import plural

_MOST = 5
_PERIOD = 60.0  # seconds

What = Literal["server", "backend"]


class ServerLines:
    """Lets the log have the first few lines in a minute about servers of an author, who may have thousands, then how many there were more.

    Args:
        author_of: Returns the user whose file names a backend; ``None`` for those of root and the operator, which are not bounded.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, author_of: Callable[[Backend], int | None]) -> None:
        self._clock, self._author_of = clock, author_of
        self._counts: dict[tuple[int, What], int] = {}
        self._timers: dict[tuple[int, What], IDelayedCall] = {}

    def may_log(self, backend: Backend, what: What) -> bool:
        """Return whether the log may have a line about a server, or about all of a backend."""
        author = self._author_of(backend)
        if author is None:
            return True
        key = author, what
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count == 1:
            self._timers[key] = self._clock.callLater(_PERIOD, self._end_period, *key)
        return count <= _MOST

    def _end_period(self, author: int, what: What) -> None:
        del self._timers[author, what]
        more = self._counts.pop((author, what)) - _MOST
        if more > 0:
            self._log.warn(
                "user {author}: {lines} about {what}s in {seconds:g} s; 'txmux servers' lists what is down",
                author=author,
                lines=plural(more, "more line"),
                what=what,
                seconds=_PERIOD,
            )

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers, self._counts = {}, {}
