"""Servers that do not take the sockets of clients: reported until one does, or a minute without a client has passed."""

import time
from collections.abc import Callable

import attrs

from txmux.classes import define

_PERIOD = 60.0  # seconds without a failure after which it is over
_MANY = 3  # sources: then no single client's doing


@define
class _Failure:
    why: str
    since: float  # in seconds since 1970
    last: float  # by the monotonic clock
    count: int = 0
    sources: set[str | bytes] = attrs.field(factory=set)


class Handovers:
    """Counts the clients of this process whose sockets were not taken since one last was, by the path of the server.

    Args:
        seconds: The monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._failing: dict[str, _Failure] = {}

    def failed(self, path: str, why: str, source: str | bytes) -> None:
        now = self._seconds()
        failure = self._failing.get(path)
        if failure is None:
            failure = self._failing[path] = _Failure(why, time.time(), now)
        failure.why, failure.last, failure.count = why, now, failure.count + 1
        if len(failure.sources) < _MANY:
            failure.sources.add(source)

    def taken(self, path: str) -> None:
        self._failing.pop(path, None)

    def report(self) -> list[tuple[str, str, int, float, bool]]:
        """Return path, newest reason, number of clients, the time of the first, and whether they are of three sources."""
        now = self._seconds()
        self._failing = {
            path: one for path, one in self._failing.items() if now - one.last < _PERIOD
        }
        return [
            (path, one.why, one.count, one.since, len(one.sources) == _MANY)
            for path, one in self._failing.items()
        ]
