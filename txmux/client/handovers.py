"""Servers that do not take the sockets of clients."""

from txmux.telemetry.failures import Failures

_MANY = 3  # sources: then no single client's doing


class Handovers(Failures[str]):
    """Counts the clients of this process whose sockets were not taken since one last was, by the path of the server."""

    def failed(self, path: str, why: str, source: str | bytes) -> None:
        self.add(path, why, source).why = why

    def report(self) -> list[tuple[str, str, int, float, bool, float]]:
        """Return path, newest reason, number of clients, the time of the first, whether they are of three sources, and when the newest was; of those that work, no clients, and when that was seen."""
        self.end_old()
        failing = [
            (path, one.why, one.count, one.since, len(one.sources) >= _MANY, one.last)
            for path, one in self.failing.items()
        ]
        return [*failing, *((path, "", 0, 0.0, False, when) for path, when in self.ended.items())]
