"""One client's connection, from accept to its line in the access log.

A connection is at one *stage* at a time, and moves through them one way::

    Peeking ──> Connecting ──> Relaying ──> (over)
       │            │
       ├──> HandedOver: a protocol in this process took it
       └────────────┴──> Closing: it leads nowhere

Each stage (see `txmux.frontend.stages`) is told what happens at the client's end, and whatever it waits for itself
(a deadline, a server) lives and dies with it. So what can happen when is written down by the stages' methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txmux.frontend.addresses import ip_address_of, text_of
from txmux.frontend.stages import Peeking, refuse
from txmux.relay.ends import NOBODY, End, Receiver
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from txmux.frontend.listener import MuxFactory
    from txmux.observe.record import ConnectionRecord, EndReason
    from txmux.proxyprotocol.header import Address
    from txmux.relay.interface import AbortReason

__all__ = ["MuxProtocol", "ReceivingStage", "Stage"]


class Stage(Protocol):
    """What a connection is at, seen from outside."""

    def abort(self, reason: AbortReason, /) -> None:
        """End the connection at once, whatever it is doing."""
        ...


class ReceivingStage(Stage, Receiver, Protocol):
    """A stage that is told itself what happens at the client's end."""


class MuxProtocol(End):
    """The client's end of a connection. Made by `MuxFactory` for each client.

    Attributes:
        factory: The listener it came in by.
        record: What is known of it so far.
        stage: What it is at.
        logged: Whether it gets a line in the access log.
    """

    factory: MuxFactory
    stage: Stage

    def __init__(
        self, factory: MuxFactory, record: ConnectionRecord, refused: EndReason | None
    ) -> None:
        self._refused = refused
        self.factory = factory
        self.record = record
        self.logged = True
        self._settled = refused is not None
        self._accepted_at = factory.clock.seconds()

    def connectionMade(self) -> None:
        """Begin to peek, if the client is let in."""
        transport = self.transport
        self.record.local = text_of(transport.getHost())
        if self._refused is not None:
            refuse(self, Refusal.CLOSE, self._refused)
            return
        self.factory.prepare(transport)
        self.factory.opened(self)
        self.enter(Peeking(self))

    @property
    def client(self) -> Address | None:
        """The client's real address; ``None`` if it has no IP address."""
        return ip_address_of(self.transport.getPeer())

    @property
    def local(self) -> Address | None:
        """The address that it connected to."""
        return ip_address_of(self.transport.getHost())

    def settle(self) -> None:
        """Note that it needs no further socket."""
        if not self._settled:
            self._settled = True
            self.factory.engine.undecided -= 1

    def enter(self, stage: ReceivingStage) -> None:
        """Go on to the next stage."""
        self.stage = self.receiver = stage

    def elapsed_ms(self) -> float:
        """Tell how long ago the client was accepted, in milliseconds."""
        return (self.factory.clock.seconds() - self._accepted_at) * 1000

    def over(self, reason: EndReason) -> None:
        """Note that nothing is left of this connection. Called by the last stage; only the first call counts."""
        record = self.record
        if record.reason is not None:
            return
        record.reason = reason
        record.duration_ms = self.elapsed_ms()
        self.settle()
        self.stage = self.receiver = NOBODY
        self.factory.closed(self)
