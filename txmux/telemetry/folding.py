"""Folds repeated warnings in the service's log: the first is written at once, then one a minute with their number."""

from collections.abc import Callable

from twisted.logger import Logger, LogLevel

from txmux.telemetry.formatting import counted

_PERIOD = 60.0  # seconds
_MOST = 1000  # distinct lines that are remembered
_NEVER_FOLDED = {"debug", "info"}
_LEVELS = {level.name: level for level in LogLevel.iterconstants()}


class FoldedLog:
    """Writes what workers log; equal lines of different workers are one."""

    _log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # By line, when it was first logged, and how often since; the oldest first.
        self._lines: dict[tuple[str, str], tuple[float, int]] = {}

    def write(self, number: int, level: str, text: str) -> None:
        key = level, text
        if key in self._lines:
            since, count = self._lines[key]
            self._lines[key] = since, count + 1
            return
        if level not in _NEVER_FOLDED:  # such as the numbers of each worker
            if len(self._lines) >= _MOST:
                self._end(next(iter(self._lines)))
            self._lines[key] = self._seconds(), 0
        self._emit(level, "worker {number}: {text}", number=number, text=text)

    def report(self) -> None:
        """Write the counts of each minute that has passed. Called each second."""
        now = self._seconds()
        for key, (since, _) in [*self._lines.items()]:
            if now - since < _PERIOD:
                break
            if self._end(key):
                self._lines[key] = now, 0

    def finish(self) -> None:
        for key in [*self._lines]:
            self._end(key)

    def _end(self, key: tuple[str, str]) -> int:
        (level, text), (_, count) = key, self._lines.pop(key)
        if count:
            self._emit(
                level,
                "workers: {text} (repeated {times} within a minute)",
                text=text.partition("\n")[0],
                times=counted(count, "time"),
            )
        return count

    def _emit(self, level: str, line: str, **values: object) -> None:
        self._log.emit(_LEVELS.get(level, LogLevel.error), line, **values)
