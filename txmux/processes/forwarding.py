"""What a worker logs goes to its parent's log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from twisted.logger import ILogObserver, LogLevel, eventAsText, textFileLogObserver
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.logger import LogEvent

    from txmux.processes.channel import Channel

__all__ = ["Forwarding"]


@implementer(ILogObserver)
class Forwarding:
    """Sends events over a channel; when that is closed, they go to the standard error stream.

    What Twisted says of its own doings is left out, unless it is a warning or worse.

    Args:
        channel: Leads to the parent.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._alone = textFileLogObserver(sys.stderr)

    def __call__(self, event: LogEvent) -> None:
        """Take an event."""
        level, namespace = event["log_level"], event.get("log_namespace", "")
        least = LogLevel.info if namespace.startswith("txmux") else LogLevel.warn
        if level < least:
            return
        if not self._channel.is_open:
            self._alone(event)
        elif namespace == "txmux.access":
            self._channel.send("access", line=event["line"])
        else:
            text = eventAsText(event, includeTimestamp=False, includeSystem=False)
            self._channel.send("log", level=level.name, text=text)
