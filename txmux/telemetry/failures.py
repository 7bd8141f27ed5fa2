"""Failures of one kind, by what fails: reported until it works again, or a minute without one has passed."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from txmux.classes import define

K = TypeVar("K")

_PERIOD = 60.0  # seconds
_MOST_SOURCES = 1000  # that are counted


@define
class Failure:
    """What fails now."""

    why: str
    since: float  # in seconds since 1970
    last: float  # by the monotonic clock
    count: int = 0
    sources: Counter[str | bytes] = attrs.field(factory=Counter)  # whose clients failed
    by_few: str = ""  # see `PortShortage.taken`


class Failures(Generic[K]):
    """Counts the clients of this process that fail.

    Args:
        seconds: The monotonic clock.

    Attributes:
        failing: What fails now.
        ended: When what works was last seen to, within a minute, by the monotonic clock: it shows that what other processes saw is over.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self.failing: dict[K, Failure] = {}
        self.ended: dict[K, float] = {}

    def add(self, key: K, why: str, source: str | bytes) -> Failure:
        """Count a client of a source; see `source_of_client`."""
        now, failure = self._seconds(), self.failing.get(key)
        if failure is None:
            failure = self.failing[key] = Failure(why, time.time(), now)
        failure.count, failure.last = failure.count + 1, now
        if source in failure.sources or len(failure.sources) < _MOST_SOURCES:
            failure.sources[source] += 1
        return failure

    def end(self, key: K) -> None:
        """Record that it works."""
        self.ended[key] = self._seconds()
        self._forget(key)

    def _forget(self, key: K) -> None:
        self.failing.pop(key, None)

    def end_old(self) -> None:
        begin = self._seconds() - _PERIOD
        for key in [key for key, one in self.failing.items() if one.last <= begin]:
            self._forget(key)
        self.ended = {key: when for key, when in self.ended.items() if when > begin}
