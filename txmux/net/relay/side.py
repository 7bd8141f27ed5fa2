"""One end of a connection as its relay sees it."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from txmux.net.relay.interface import SideState
    from txmux.net.relay.silence import Silence


class Sides(Protocol):
    """The relay as its sides see it.

    Attributes:
        seconds: Gives the clock's time.
        ending: Whether one side is gone and the other being ended.
    """

    seconds: Callable[[], float]
    ending: bool

    def side_finished(self, side: RelaySide, /) -> None:
        """Record that a side's peer sends no more."""

    def side_lost(self, side: RelaySide, reason: Failure, /) -> None:
        """Record that a side is gone."""


class RelaySide(abc.ABC):
    """One end as the relay sees it; the receiver of that end. Implements `txmux.net.relay.ends.Receiver`.

    Args:
        relay: To which it belongs.

    Attributes:
        other: The side to which its bytes go.
        received: Bytes that came from its peer and were passed on.
        last_byte_at: When the last of them came, in the relay's seconds. Kept up while the relay is not `Relay.ending`.
        has_finished: Whether its peer sends no more.
        gone: Whether its connection is over.
    """

    __slots__ = (
        "_relay",
        "_unsent_before",
        "gone",
        "has_finished",
        "last_byte_at",
        "other",
        "received",
    )

    other: RelaySide

    def __init__(self, relay: Sides) -> None:
        self._relay = relay
        self.received = 0
        self.last_byte_at = 0.0
        self._unsent_before = 0
        self.has_finished = False
        self.gone = False

    # What comes from its peer.

    @abc.abstractmethod
    def data(self, data: bytes) -> None:
        """Pass bytes to the other side."""

    def finished(self) -> None:
        """Record that this side's peer sends no more."""
        if not self.has_finished:
            self.has_finished = True
            self._relay.side_finished(self)

    def lost(self, reason: Failure) -> None:
        """Record that this side is gone."""
        self.gone = True
        self._relay.side_lost(self, reason)

    # What the relay wants of it.

    @abc.abstractmethod
    def begin(self, *, reading: bool) -> None:
        """Begin to carry bytes; `other` is known by now."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Send bytes to its peer, before any that come from the other side."""

    @abc.abstractmethod
    def stop_reading(self) -> None:
        """Read no more, for good."""

    @abc.abstractmethod
    def half_close(self) -> None:
        """Send the end of the other side, after all that is held."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close cleanly, now that its peer has taken everything."""

    @abc.abstractmethod
    def close_when_sent(self) -> None:
        """Close cleanly as soon as all that is held has been sent."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Break the connection off."""

    # Moving to another relay. A side that can be moved overrides all of them.

    def suspend(self, quiet: float) -> SideState | None:  # noqa: ARG002 - others tell it
        """Touch the socket no more, and give the state; ``None`` if this kind of side cannot be moved.

        Args:
            quiet: Seconds since its peer's last byte.
        """
        return None

    def resume(self) -> None:
        """Go on after all, or after `adopt`."""
        raise NotImplementedError

    def adopt(self, state: SideState) -> None:
        """Take over a socket, and what another side held for its peer; `resume` follows."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Close this process's descriptor of the socket, which lives on."""
        raise NotImplementedError

    @abc.abstractmethod
    def unsent(self) -> int:
        """Count the bytes that its peer has yet to take."""

    @abc.abstractmethod
    def silence(self) -> Silence:
        """Return how long its peer has left bytes unanswered that are on their way to it."""

    def is_taking(self) -> bool:
        """Return whether its peer has something to take, and has taken some since this was last asked."""
        before, self._unsent_before = self._unsent_before, self.unsent()
        return self._unsent_before not in {0, before}
