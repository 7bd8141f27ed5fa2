"""What a backend is told of a client by the PROXY protocol, beside the addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.backends.connect.connector import proxy_header
from txmux.frontend.closing import refuse
from txmux.proxyprotocol.fields import carried
from txmux.proxyprotocol.header import Tlv, TlvType
from txmux.rules.model import Refusal
from txmux.wire.client_hello import HelloReader, parse_client_hello

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.python.failure import Failure

    from txmux.frontend.connection import MuxProtocol
    from txmux.relay.interface import AbortReason
    from txmux.rules.model import Backend

__all__ = ["AwaitingHello", "header_for", "lacks_hello"]

_LONGEST_NAME = 255
_HELLO = 0x16  # the first byte of a TLS record with a handshake message
_BY_TYPE = {TlvType.AUTHORITY: "authority", TlvType.ALPN: "alpn", TlvType.SSL: "ssl"}


def header_for(connection: MuxProtocol, backend: Backend, pending: bytes) -> bytes:
    """Write the header that tells a backend of a client.

    Args:
        connection: The client's.
        backend: Says what it wants to know.
        pending: What the client has sent so far.
    """
    own = list(_own_fields(connection, backend, pending)) if backend.proxy_tlvs else []
    tlvs = carried(own, connection.tlvs) if own or connection.tlvs else ()
    return proxy_header(backend, connection.client, connection.local, tlvs)


def _own_fields(connection: MuxProtocol, backend: Backend, pending: bytes) -> Iterator[Tlv]:
    wanted = backend.proxy_tlvs
    known = connection.ended_tls
    if not known and not {"authority", "alpn"}.isdisjoint(wanted):
        limit = connection.factory.settings.peek_limit
        known = tuple(_fields_of(parse_client_hello(pending[:limit], None)))
    yield from (tlv for tlv in known if _BY_TYPE[TlvType(tlv.type)] in wanted)
    if "unique-id" in wanted:
        yield Tlv(TlvType.UNIQUE_ID, connection.record.id.encode("ascii"))


def _fields_of(reader: HelloReader) -> Iterator[Tlv]:
    # Names of the DNS are ASCII; whatever else is there would be no UTF-8, as the field wants it.
    if reader.sni and reader.sni.isascii() and len(reader.sni) <= _LONGEST_NAME:
        yield Tlv(TlvType.AUTHORITY, reader.sni.encode("ascii"))
    if reader.alpn:
        yield Tlv(TlvType.ALPN, reader.alpn[0].encode("latin-1"))


def lacks_hello(connection: MuxProtocol, backend: Backend, pending: bytes) -> bool:
    """Tell whether a backend wants to know what is in a ClientHello that has begun, but has not come in full."""
    if connection.ended_tls or {"authority", "alpn"}.isdisjoint(backend.proxy_tlvs):
        return False
    settings = connection.factory.settings
    too_late = connection.elapsed_ms() >= settings.detect_timeout * 1000
    if pending[:1] != bytes([_HELLO]) or len(pending) >= settings.peek_limit or too_late:
        return False
    reader = parse_client_hello(pending, None)
    return not (reader.hello or reader.malformed)


class AwaitingHello:
    """A stage: it is known where a client of TLS is led, but not all that has to be told there.

    Otherwise what a backend is told would hang on how the network cut the hello.

    Args:
        connection: The client's.
        pending: What has come.
        connect: Goes on with all that has come; told whether the client has finished sending.
    """

    def __init__(
        self, connection: MuxProtocol, pending: bytes, connect: Callable[[bytes, bool], None]
    ) -> None:
        self._connection = connection
        self._bytes = pending
        self._connect = connect
        self._reader = parse_client_hello(pending, None)
        factory = connection.factory
        self._limit = factory.settings.peek_limit
        self._deadline = factory.clock.callLater(factory.settings.detect_timeout, self._go_on)

    def start(self) -> None:
        """Wait."""
        self._connection.enter(self)

    def data(self, data: bytes) -> None:
        """Go on when the hello is complete, or will never be."""
        self._connection.record.bytes_in += len(data)
        self._bytes += data
        self._reader = reader = parse_client_hello(self._bytes[: self._limit], self._reader)
        if reader.hello or reader.malformed or len(self._bytes) >= self._limit:
            self._go_on()

    def finished(self) -> None:
        """Go on with what came."""
        self._go_on(finished=True)

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """Give up: there is nobody left to connect for."""
        self._deadline.cancel()
        self._connection.over("client-gone")

    def abort(self, reason: AbortReason) -> None:
        """Give up on the client."""
        self._deadline.cancel()
        refuse(self._connection, Refusal.RESET, reason)

    def _go_on(self, *, finished: bool = False) -> None:
        if self._deadline.active():
            self._deadline.cancel()
        self._connection.record.detect_ms = self._connection.elapsed_ms()
        self._connect(self._bytes, finished)
