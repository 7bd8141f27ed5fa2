"""Servers towards which this machine has no source port left: logged once, and reported until one is free again."""

import time
from collections import Counter
from collections.abc import Callable

import attrs
from twisted.logger import Logger

from txmux.classes import define
from txmux.telemetry.attention import of_few
from txmux.telemetry.formatting import plural

_PERIOD = 60.0  # seconds without such a failure after which it is over
_MOST_SOURCES = 1000  # that are counted
_CALM = 5.0  # seconds after which a connection shows that ports are free again: until then, some are free by chance


@define
class _Lack:
    why: str
    since: float  # in seconds since 1970
    last: float  # by the monotonic clock
    count: int = 0
    sources: Counter[str | bytes] = attrs.field(factory=Counter)  # whose clients failed
    by_few: str = ""  # see `PortShortage.taken`


class PortShortage:
    """Counts the connections of this process that failed since no source port was left.

    Args:
        now: The monotonic clock.

    Attributes:
        lacks: What is lacking now, by backend and server.
    """

    _log = Logger()

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.lacks: dict[tuple[str, str], _Lack] = {}

    def failed(self, backend: str, server: str, why: str, source: str | bytes) -> None:
        """Record that a client of a source had no connection; see `source_of_client`."""
        now, lack = self._now(), self.lacks.get((backend, server))
        if lack is None:
            lack = self.lacks[backend, server] = _Lack(why, time.time(), now)
            self._log.warn(
                "backend {backend}: cannot connect to {server}: {why}",
                backend=backend,
                server=server,
                why=why,
            )
        lack.count, lack.last = lack.count + 1, now
        if source in lack.sources or len(lack.sources) < _MOST_SOURCES:
            lack.sources[source] += 1

    def connected(self, backend: str, server: str) -> None:
        lack = self.lacks.get((backend, server))
        if lack is not None and self._now() - lack.last >= _CALM:
            self._end((backend, server))

    def taken(self, backend: str, by_few: str) -> None:
        """Record whose connections to a backend have the ports: `OF_FEW`, which holds until the lack is over, or an empty text."""
        for (name, _), lack in self.lacks.items():
            if name == backend:
                lack.by_few = lack.by_few or by_few

    def report(self) -> list[tuple[str, str, str, int, float]]:
        """Return backend, server, reason, number of failures and the time of the first, in seconds since 1970."""
        now = self._now()
        for key in [key for key, lack in self.lacks.items() if now - lack.last >= _PERIOD]:
            self._end(key)
        return [
            (*key, lack.why + (lack.by_few or of_few(lack.sources)), lack.count, lack.since)
            for key, lack in self.lacks.items()
        ]

    def _end(self, key: tuple[str, str]) -> None:
        lack = self.lacks.pop(key)
        self._log.info(
            "backend {backend}: there are ports towards {server} again; {count} had none",
            backend=key[0],
            server=key[1],
            count=plural(lack.count, "connection"),
        )


PORT_SHORTAGE = PortShortage()  # of this process
