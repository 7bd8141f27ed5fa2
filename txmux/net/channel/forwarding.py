"""What a worker logs goes to its parent's log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver, LogLevel, eventAsText, textFileLogObserver
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.logger import LogEvent

    from txmux.net.channel.channel import Channel

_MOST = 4 * 1024 * 1024
"""Bytes that may wait for the parent, which a busy worker may write in a moment without anything being wrong."""


@implementer(ILogObserver)
class Forwarding:
    """Sends events over a channel; when that is closed, they go to the standard error stream.

    What the parent does not take is kept, up to a limit; further events are lost, and the next one that is not tells how
    many. What Twisted says of its own doings is left out, unless it is a warning or worse.

    Args:
        channel: Leads to the parent.
        alone: Takes the place of the standard error stream.
    """

    def __init__(self, channel: Channel, alone: Any = None) -> None:
        self._channel = channel
        self._lost = 0
        self._alone = textFileLogObserver(alone or sys.stderr)

    def __call__(self, event: LogEvent) -> None:
        """Take an event."""
        level, namespace = event["log_level"], event.get("log_namespace", "")
        least = LogLevel.info if namespace.startswith("txmux") else LogLevel.warn
        if level < least:
            return
        if not self._channel.is_open:
            self._alone(event)
        elif self._channel.backlog() > _MOST:
            self._lost += 1
        else:
            self._tell_of_lost()
            self._send(event, level, namespace)

    def _tell_of_lost(self) -> None:
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
