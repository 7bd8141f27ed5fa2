"""One client's connection, from accept to its line in the access log.

A connection is at one *stage* at a time, and moves through them one way::

    Peeking ──> Connecting ──> Relaying ──> (over)
       │            │
       ├──> HandedOver: a protocol in this process took it
       └────────────┴──> Closing, Rejecting: it leads nowhere

Each stage (see `txmux.frontend.stages`) is told what happens at the client's end, and whatever it waits for itself
(a deadline, a server) lives and dies with it. So what can happen when is written down by the stages' methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txmux.frontend.addresses import ip_address_of, text_of
from txmux.frontend.limits.admission import Refused
from txmux.frontend.stages import Peeking, refuse
from txmux.relay.ends import NOBODY, End, Receiver
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmux.frontend.limits.per_source import Permit
    from txmux.frontend.listener import MuxFactory
    from txmux.interfaces import Exchange
    from txmux.observe.record import ConnectionRecord, EndReason
    from txmux.proxyprotocol.header import Address, Tlv
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
        admitted: Whether it was let in.
        permit: What counts it for its source, if that is counted.
        asked: Requests that were answered here, and that its server is to be asked again.
        tlvs: Fields of the PROXY protocol header that it began with.
        ended_tls: What is known of the client's TLS, if that is ended here, as fields for such a header.
    """

    factory: MuxFactory
    stage: Stage
    admitted = False
    permit: Permit | None = None
    asked: tuple[Exchange, ...] = ()
    tlvs: tuple[Tlv, ...] = ()
    ended_tls: tuple[Tlv, ...] = ()

    def __init__(self, factory: MuxFactory, record: ConnectionRecord) -> None:
        self.factory = factory
        self.record = record
        self.logged = True
        self._settled = True
        self._accepted_at = factory.clock.seconds()

    def connectionMade(self) -> None:
        """Begin to peek, if the client is let in."""
        transport = self.transport
        self.record.local = text_of(transport.getHost())
        if self.admit():
            self.opened()
            self.enter(Peeking(self))

    def admit(self, client: Address | None = None) -> bool:
        """Let the client in, or refuse it; tell which.

        Args:
            client: Its real address, if somebody who is trusted has told it.
        """
        try:
            self.permit = self.factory.admission.enter(client, self.transport.getPeer())
        except Refused as refused:
            refuse(self, Refusal.CLOSE, refused.reason)
            return False
        self.admitted = True
        return True

    def opened(self) -> None:
        """Note that it is going to be served, as far as is known."""
        self._settled = False
        self.factory.prepare(self.transport)
        self.factory.opened(self)

    @property
    def client(self) -> Address | None:
        """The client's real address; ``None`` if it has no IP address."""
        return ip_address_of(self.transport.getPeer())

    @property
    def local(self) -> Address | None:
        """The address that it connected to."""
        return ip_address_of(self.transport.getHost())

    def peer(self) -> IAddress:
        """Give the client's real address as Twisted has it."""
        return self.transport.getPeer()

    def host(self) -> IAddress:
        """Give the address that it connected to as Twisted has it."""
        return self.transport.getHost()

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
