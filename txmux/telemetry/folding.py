"""Folds repeated warnings in the service's log: the first is written at once, then one a minute with their number.

A number that comes when its lines have ended is no warning: it is written as information, with the time of the last.
"""

from collections.abc import Callable

from twisted.logger import Logger, LogLevel

from txmux.telemetry.formatting import duration, plural

_PERIOD = 60.0  # seconds
_OVER = 10.0  # seconds without a line, after which the next one is written at once again
_MOST = 1000  # distinct lines that are remembered
_NEVER_FOLDED = {"debug", "info"}
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


class FoldedLog:
    """Writes what workers log; equal lines of different workers are one."""

    _log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # By line, when it was first logged, how often since, and when last; the oldest first.
        self._lines: dict[tuple[str, str], tuple[float, int, float]] = {}

    def write(self, number: int, level: str, text: str) -> None:
        key = level, text
        if key in self._lines:
            since, count, _ = self._lines[key]
            self._lines[key] = since, count + 1, self._seconds()
            return
        if level not in _NEVER_FOLDED:  # such as the numbers of each worker
            if len(self._lines) >= _MOST:
                self._end(next(iter(self._lines)))
            self._lines[key] = (now := self._seconds()), 0, now
        self._emit(level, "worker {number}: {text}", number=number, text=text)

    def report(self) -> None:
        """Write the counts of each minute that has passed. Called each second."""
        now = self._seconds()
        for key, (since, *_) in [*self._lines.items()]:
            if now - since < _PERIOD:
                break
            if self._end(key):
                self._lines[key] = now, 0, now

    def finish(self) -> None:
        for key in [*self._lines]:
            self._end(key)

    def _end(self, key: tuple[str, str]) -> bool:
        """Write the count of a line, and return whether it still comes."""
        (level, text), (_, count, last) = key, self._lines.pop(key)
        ago = self._seconds() - last
        is_over = ago >= _OVER
        if count:
            self._emit(
                "info" if is_over else level,
                "workers: {text} (repeated {times} within a minute{end})",
                text=text.partition("\n")[0],
                times=plural(count, "time"),
                end=f", the last {duration(int(ago))} ago" if is_over else "",
            )
        return count > 0 and not is_over

    def _emit(self, level: str, line: str, **values: object) -> None:
        self._log.emit(_LEVELS.get(level, LogLevel.error), line, **values)
