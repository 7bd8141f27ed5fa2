"""Logs how many lines an access log has lost in all workers, once all of them write it again."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from twisted.logger import Logger

from txmux.telemetry.formatting import plural

_SETTLED = 5.0
"""Seconds for which no worker loses lines until that counts as over: short ones may still fit on a disk that is full."""


class LostLinesLog:
    """Adds up what workers report.

    Args:
        seconds: A monotonic clock.
    """

    _log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._reported: dict[tuple[int, str], int] = {}
        self._lost = Counter[str]()
        self._good_since: dict[str, float] = {}

    def add(self, log: str, count: int) -> None:
        """Count lines that the predecessor has lost."""
        self._lost[log] += count

    def record(
        self, reports: Iterable[tuple[int, Mapping[str, int]]], losing: Collection[str]
    ) -> None:
        """Record how many lines each worker has lost since it began, by its number and the name of the log.

        `losing` are the logs that some worker cannot write now.
        """
        for number, totals in reports:
            for log, total in totals.items():
                before = self._reported.get((number, log), 0)
                self._reported[number, log] = total
                # With fewer than before it is another process.
                self._lost[log] += total - before if total >= before else total
        now = self._seconds()
        for log in [log for log, count in self._lost.items() if count]:
            if log in losing:
                self._good_since.pop(log, None)
            elif now - self._good_since.setdefault(log, now) >= _SETTLED:
                self._log.info(
                    "{log}: written again; {lines} lost in all",
                    log=log,
                    lines=plural(self._lost.pop(log), "line"),
                )
                del self._good_since[log]
