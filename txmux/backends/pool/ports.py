"""Servers towards which this machine has no source port left: logged once, and reported until one is free again."""

from twisted.logger import Logger
from typing_extensions import override

from txmux.telemetry.attention import of_few
from txmux.telemetry.failures import Failures
from txmux.telemetry.formatting import plural

_CALM = 5.0  # seconds after which a connection shows that ports are free again: until then, some are free by chance


class PortShortage(Failures[tuple[str, str]]):
    """Counts the connections of this process that failed since no source port was left, by backend and server."""

    _log = Logger()

    def failed(self, backend: str, server: str, why: str, source: str | bytes) -> None:
        if self.add((backend, server), why, source).count == 1:
            self._log.warn(
                "backend {backend}: cannot connect to {server}: {why}",
                backend=backend,
                server=server,
                why=why,
            )

    def connected(self, backend: str, server: str) -> None:
        lack = self.failing.get((backend, server))
        if lack is not None and self._seconds() - lack.last >= _CALM:
            self.end((backend, server))

    def taken(self, backend: str, by_few: str) -> None:
        """Record whose connections to a backend have the ports: `OF_FEW`, which holds until the lack is over, or an empty text."""
        for (name, _), lack in self.failing.items():
            if name == backend:
                lack.by_few = lack.by_few or by_few

    def report(self) -> list[tuple[str, str, str, int, float, float]]:
        """Return backend, server, reason, number of failures, the time of the first, in seconds since 1970, and when the newest was; of those with ports again, no failures, and when that was seen."""
        self.end_old()
        failing = [
            (
                *key,
                lack.why + (lack.by_few or of_few(lack.sources)),
                lack.count,
                lack.since,
                lack.last,
            )
            for key, lack in self.failing.items()
        ]
        return [*failing, *((*key, "", 0, 0.0, when) for key, when in self.ended.items())]

    @override
    def _forget(self, key: tuple[str, str]) -> None:
        self._log.info(
            "backend {backend}: there are ports towards {server} again; {count} had none",
            backend=key[0],
            server=key[1],
            count=plural(self.failing[key].count, "connection"),
        )
        super()._forget(key)


PORT_SHORTAGE = PortShortage()  # of this process
