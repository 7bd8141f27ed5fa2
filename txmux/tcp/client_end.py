"""What is known of a client's connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from typing_extensions import override

from txmux.net.addresses import ip_address_of, twisted_address
from txmux.net.relay.ends import End
from txmux.net.sockets.transport import SocketTransport
from txmux.rules.model.networks import unmapped
from txmux.tcp.stage import Client
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.fields import told_by
from txmux.wire.proxyprotocol.header import Command

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmux.wire.proxyprotocol.header import Address, Header


class ClientEnd(End, Client):
    """The client's end of a connection, as far as it is known."""

    _accepted_at: float  # by the engine's clock
    _source: Address | None = None
    _destination: Address | None = None

    @property
    @override
    def address(self) -> Address | None:
        return self._source or ip_address_of(self.transport.getPeer())

    @property
    @override
    def local(self) -> Address | None:
        return self._destination or ip_address_of(self.transport.getHost())

    @override
    def peer(self) -> IAddress:
        source = self._source
        return self.transport.getPeer() if source is None else twisted_address(source)

    @override
    def host(self) -> IAddress:
        destination = self._destination
        return self.transport.getHost() if destination is None else twisted_address(destination)

    @override
    def apply_proxy_header(self, header: Header) -> None:
        if header.command is Command.LOCAL:
            return
        self.record.facts |= {name: printable(text) for name, text in told_by(header).items()}
        self.tlvs = header.tlvs
        if header.source is not None and header.destination is not None:
            self._source = _unmapped(header.source)
            self._destination = _unmapped(header.destination)
            self.record.client = str(self._source)
            self.record.local = str(self._destination)

    @override
    def skip(self, count: int) -> None:
        self.received = self.received[count:]
        if self.is_looked_at and isinstance(self.transport, SocketTransport):
            self.transport.skip(count)

    def truncated(self) -> None:
        """Record that its TLS, which is ended here, has no proper end."""
        self.record.facts = {**self.record.facts, "tls_truncated": "yes"}

    @override
    def elapsed_ms(self) -> float:
        return (self.runtime.clock.seconds() - self._accepted_at) * 1000


def _unmapped(end: Address) -> Address:
    return attrs.evolve(end, host=unmapped(end.host))
