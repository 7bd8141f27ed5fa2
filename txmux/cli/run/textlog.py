"""The log of `txmux run`: each line has the time in UTC, a level, and what happened."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from twisted.logger import ILogObserver, LogLevel, eventAsText
from zope.interface import implementer

from txmux.errors import printable

if TYPE_CHECKING:
    from twisted.logger import LogEvent

LEVELS = ("debug", "info", "warn", "error", "critical")
"""The names of the levels, the least important first."""

_OWN = ("txmux", "stdout", "stderr")  # what plugins print belongs to the service, too


class _Writes(Protocol):
    def write(self, text: str, /) -> object: ...


@implementer(ILogObserver)
class TextLog:
    """Writes events as text.

    A message of several lines, such as the errors of a reload, is as many lines, of which all but the first are indented. What Twisted
    tells of its own doings is left out, unless it is a warning or worse, or all is wanted.

    Args:
        file: Where to.
        level: The least important level that is written, one of `LEVELS`.
    """

    def __init__(self, file: _Writes, level: str = "info") -> None:
        self._file = file
        self._least = LogLevel.levelWithName(level)

    def __call__(self, event: LogEvent) -> None:
        """Take an event."""
        least = self._least
        if least is LogLevel.info and not event.get("log_namespace", "").startswith(_OWN):
            least = LogLevel.warn
        if event["log_level"] >= least:
            self._file.write(as_text(event))


def as_text(event: LogEvent) -> str:
    """Return the lines of an event, each with its end."""
    before = f"{_moment(event['log_time'])} {event['log_level'].name:5} "
    text = eventAsText(event, includeTimestamp=False, includeSystem=False)
    first, *others = map(printable, text.splitlines() or [""])
    return "".join([f"{before}{first}\n", *(f"{before}  {line}\n" for line in others)])


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
