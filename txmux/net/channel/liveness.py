"""Whether the process at the other end of a channel lives, while it owes an answer that may take as long as a connection lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from txmux.net.channel.channel import LateError

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.net.channel.channel import Channel

__all__ = ["Liveness"]

_PAUSE = 5.0  # seconds between two questions
_PATIENCE = 10.0
"""Seconds that it may take to say that it lives."""

_log = Logger()


class Liveness:
    """Breaks a channel off whose other process does not answer any more: it may have been halted.

    Args:
        channel: As above. All who wait for an answer then learn that there will be none.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._owed = 0
        self._is_asking = False
        self._timer: IDelayedCall | None = None

    def owes(self) -> None:
        """Record that it owes an answer more."""
        self._owed += 1
        self._wait()

    def has_answered(self) -> None:
        """Record that it owes one less."""
        self._owed -= 1
        if not self._owed and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._owed and self._timer is None and not self._is_asking and self._channel.is_open:
            self._timer = self._channel.clock.callLater(_PAUSE, self._ask)

    def _ask(self) -> None:
        self._timer = None
        self._is_asking = True
        # One of an older version says that it does not know the question, so it lives.
        self._channel.ask("alive", seconds=_PATIENCE).addBoth(self._asked)

    def _asked(self, answer: Failure | None) -> None:
        self._is_asking = False
        if answer is not None and answer.check(LateError):
            _log.warn(
                "the process that connections came from does not answer: places at servers that it keeps are free from now on; "
                "if it is halted, end it (kill -KILL), or let it go on (kill -CONT)"
            )
            self._channel.break_off()
        else:
            self._wait()
