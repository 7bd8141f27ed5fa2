"""Forwards a worker's log to its parent's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver, LogLevel, eventAsText, textFileLogObserver
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.logger import LogEvent

    from txmux.net.channel.channel import Channel

_MOST = 4 * 1024 * 1024
"""Bytes that may wait for the parent; a busy worker may write that many in a moment."""


@implementer(ILogObserver)
class LogForwarder:
    """Sends events over a channel; when that is closed, they go to the standard error stream.

    What the parent does not take is buffered, up to a limit. Twisted's own events below a warning are left out.
    """

    def __init__(self, channel: Channel, alone: Any = None) -> None:
        self._channel = channel
        self._lost = 0
        self._alone = textFileLogObserver(alone or sys.stderr)

    def __call__(self, event: LogEvent) -> None:
        level, namespace = event["log_level"], event.get("log_namespace", "")
        least = LogLevel.info if namespace.startswith("txmux") else LogLevel.warn
        if level < least:
            return
        if not self._channel.is_open:
            self._alone(event)
        elif self._channel.backlog() > _MOST:
            self._lost += 1
        else:
            self._report_lost()
            self._send(event, level, namespace)

    def _report_lost(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            text = f"the parent process took no lines for a while; {lost} are lost"
            self._channel.send("log", level="warn", text=text)

    def _send(self, event: LogEvent, level: Any, namespace: str) -> None:
        if namespace == "txmux.access":
            self._channel.send("access", line=event["line"])
        else:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self._channel.send("log", level=level.name, text=text)
