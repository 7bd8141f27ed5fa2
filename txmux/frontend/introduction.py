"""Connections that a proxy makes on behalf of clients, and that begin with a PROXY protocol header which says whose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.internet import address

from txmux.frontend.addresses import ip_address_of, text_of, unmapped
from txmux.frontend.closing import refuse
from txmux.frontend.connection import MuxProtocol
from txmux.frontend.stages import Peeking
from txmux.proxyprotocol.decode import Incomplete, decode
from txmux.proxyprotocol.fields import told_by
from txmux.proxyprotocol.header import Address, Command, InvalidHeader
from txmux.rules.model import Refusal, Senders
from txmux.wire.facts import printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from txmux.proxyprotocol.header import Header
    from txmux.relay.interface import AbortReason
    from txmux.rules.model import NetworkSet

__all__ = ["IntroducedProtocol", "Introduction", "is_sender"]

_START_OF_V2 = 16  # has the length of the rest
_CUT = "the stream ended inside of the header"


def is_sender(peer: IAddress, senders: NetworkSet) -> bool:
    """Tell whether a connection has to begin with a header.

    Args:
        peer: Where it comes from.
        senders: As in the rules.
    """
    end = ip_address_of(peer)
    if end is not None:
        return end.host in senders
    by_unix = isinstance(peer, address.UNIXAddress)
    return by_unix and isinstance(senders, Senders) and senders.by_unix


class IntroducedProtocol(MuxProtocol):
    """The client's end of a connection that must begin with a header.

    Before the header has come nothing of it is the client's, and who is to be admitted is not known either.
    """

    _source: Address | None = None
    _destination: Address | None = None

    def connectionMade(self) -> None:
        """Wait for the header."""
        self.record.local = text_of(self.transport.getHost())
        self.opened()
        self.enter(Introduction(self))

    def introduce(self, header: Header) -> None:
        """Take note of whose connection it is.

        Raises:
            InvalidHeader: A field that is looked into cannot be read.
        """
        if header.command is Command.LOCAL:
            return
        self.record.facts |= {name: printable(text) for name, text in told_by(header).items()}
        self.tlvs = header.tlvs
        if header.source is not None and header.destination is not None:
            self._source = _unmapped(header.source)
            self._destination = _unmapped(header.destination)
            self.record.client = str(self._source)
            self.record.local = str(self._destination)

    @property
    def client(self) -> Address | None:
        """The client's real address; ``None`` if it has no IP address."""
        return self._source or super().client

    @property
    def local(self) -> Address | None:
        """The address that the client connected to."""
        return self._destination or super().local

    def peer(self) -> IAddress:
        """Give the client's address as Twisted has it."""
        return super().peer() if self._source is None else _twisted_address(self._source)

    def host(self) -> IAddress:
        """Give the address that the client connected to as Twisted has it."""
        return super().host() if self._destination is None else _twisted_address(self._destination)


def _unmapped(end: Address) -> Address:
    return attrs.evolve(end, host=unmapped(end.host))


def _twisted_address(end: Address) -> IAddress:
    form = address.IPv4Address if end.host.version == 4 else address.IPv6Address
    return form("TCP", str(end.host), end.port)


class Introduction:
    """The header is awaited, and nothing else is done for the connection."""

    def __init__(self, connection: IntroducedProtocol) -> None:
        self._connection = connection
        self._bytes = b""
        self._length = 0  # of the header, at least
        factory = connection.factory
        settings, clock = factory.settings, factory.clock
        self._deadline = clock.callLater(settings.proxy_timeout, self._too_late)
        # The time that detection has counts from accept for every client.
        self._detection = clock.callLater(settings.detect_timeout, self._detection_over)
        self._peeking: Peeking | None = None
        connection.record.facts["proxy_peer"] = text_of(connection.transport.getPeer())

    def data(self, data: bytes) -> None:
        """Read the header, as far as it has come."""
        self._bytes += data
        if len(self._bytes) < self._length:
            return
        try:
            answer = decode(self._bytes)
            if isinstance(answer, Incomplete):
                # The fields may be many, and would be read again with every byte.
                if self._bytes.startswith(b"\r") and len(self._bytes) >= _START_OF_V2:
                    self._length = len(self._bytes) + answer.need
                return
            self._connection.introduce(answer.header)
        except InvalidHeader as problem:
            self._refuse(str(problem))
            return
        self._go_on(self._bytes[answer.length :])

    def _go_on(self, rest: bytes) -> None:
        """Begin with what the client itself has sent."""
        connection = self._connection
        self._deadline.cancel()
        if not connection.admit(connection.client):
            self._stop_waiting()
            return
        self._peeking = peeking = Peeking(connection, self._detection)
        connection.enter(peeking)
        if rest:
            peeking.data(rest)
        if connection.stage is peeking and not self._detection.active():
            peeking.too_late()

    def _detection_over(self) -> None:
        if self._peeking is not None:
            self._peeking.too_late()

    def finished(self) -> None:
        """Close what will never have a header; without a byte it was a port scan or a health check."""
        if self._bytes:
            self._refuse(_CUT)
        else:
            self._stop_waiting()
            refuse(self._connection, Refusal.CLOSE, "client-gone")

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """The sender went away."""
        self._stop_waiting()
        if self._bytes:
            self._connection.record.facts["proxy_error"] = _CUT
        self._connection.over("proxy-header" if self._bytes else "client-gone")

    def abort(self, reason: AbortReason) -> None:
        """Give up on the sender."""
        self._stop_waiting()
        refuse(self._connection, Refusal.RESET, reason)

    def _too_late(self) -> None:
        seconds = self._connection.factory.settings.proxy_timeout
        self._refuse(f"there was no header in {seconds:g} s: see accept_proxy_from")

    def _refuse(self, problem: str) -> None:
        self._stop_waiting()
        self._connection.record.facts["proxy_error"] = printable(problem)
        refuse(self._connection, Refusal.CLOSE, "proxy-header")

    def _stop_waiting(self) -> None:
        for timer in (self._deadline, self._detection):
            if timer.active():
                timer.cancel()
