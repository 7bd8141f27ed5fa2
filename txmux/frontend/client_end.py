"""What is known of a client's connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.frontend.addresses import ip_address_of, twisted_address
from txmux.proxyprotocol.fields import told_by
from txmux.proxyprotocol.header import Command
from txmux.relay.ends import End
from txmux.rules.model.networks import unmapped
from txmux.wire.facts import printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

    from txmux.frontend.engine import Engine
    from txmux.frontend.generation import Generation
    from txmux.interfaces import Exchange
    from txmux.observe.record import ConnectionRecord
    from txmux.proxyprotocol.header import Address, Header, Tlv

__all__ = ["ClientEnd"]


class ClientEnd(End):
    """The client's end of a connection; see `txmux.frontend.stage.Client` for its attributes.

    Args:
        generation: The rules under which the client was accepted.
        engine: What it works with.
        record: What is known of it so far.
    """

    said = b""
    has_finished = False
    asked: tuple[Exchange, ...] = ()
    tlvs: tuple[Tlv, ...] = ()
    ended_tls: tuple[Tlv, ...] = ()
    _source: Address | None = None
    _destination: Address | None = None

    def __init__(self, generation: Generation, engine: Engine, record: ConnectionRecord) -> None:
        self.generation = generation
        self.engine = engine
        self.record = record
        self._accepted_at = engine.clock.seconds()

    @property
    def address(self) -> Address | None:
        """The client's real address; ``None`` if it has no IP address."""
        return self._source or ip_address_of(self.transport.getPeer())

    @property
    def local(self) -> Address | None:
        """The address that it connected to."""
        return self._destination or ip_address_of(self.transport.getHost())

    def peer(self) -> IAddress:
        """Give the client's real address as Twisted has it."""
        source = self._source
        return self.transport.getPeer() if source is None else twisted_address(source)

    def host(self) -> IAddress:
        """Give the address that it connected to as Twisted has it."""
        destination = self._destination
        return self.transport.getHost() if destination is None else twisted_address(destination)

    def is_introduced(self, header: Header) -> None:
        """Take note of what a PROXY protocol header says of it.

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

    def elapsed_ms(self) -> float:
        """Tell how long ago the client was accepted, in milliseconds."""
        return (self.engine.clock.seconds() - self._accepted_at) * 1000


def _unmapped(end: Address) -> Address:
    return attrs.evolve(end, host=unmapped(end.host))
