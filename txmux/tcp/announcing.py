"""What a backend is told of a client by the PROXY protocol, beside the addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.backends.connect.connector import proxy_header
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.proxyprotocol.fields import carried
from txmux.wire.proxyprotocol.header import Tlv, TlvType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.model import Backend
    from txmux.tcp.stage import Client

_LONGEST_NAME = 255
_BY_TYPE = {TlvType.AUTHORITY: "authority", TlvType.ALPN: "alpn", TlvType.SSL: "ssl"}


def header_for(client: Client, backend: Backend) -> bytes:
    """Write the header that tells a backend of a client.

    Args:
        client: The client's client.
        backend: Says what it wants to know.
    """
    own = list(_own_fields(client, backend)) if backend.proxy_tlvs else []
    tlvs = carried(own, client.tlvs) if own or client.tlvs else ()
    return proxy_header(backend, client.address, client.local, tlvs)


def _own_fields(client: Client, backend: Backend) -> Iterator[Tlv]:
    wanted = backend.proxy_tlvs
    known = client.ended_tls
    if not known and not {"authority", "alpn"}.isdisjoint(wanted):
        limit = client.configuration.settings.peek_limit
        known = tuple(_fields_of(parse_client_hello(client.received[:limit], None)))
    yield from (tlv for tlv in known if _BY_TYPE[TlvType(tlv.type)] in wanted)
    if "unique-id" in wanted:
        yield Tlv(TlvType.UNIQUE_ID, client.record.id.encode("ascii"))


def _fields_of(reader: HelloReader) -> Iterator[Tlv]:
    # Names of the DNS are ASCII; whatever else is there would be no UTF-8, as the field wants it.
    if reader.sni and reader.sni.isascii() and len(reader.sni) <= _LONGEST_NAME:
        yield Tlv(TlvType.AUTHORITY, reader.sni.encode("ascii"))
    if reader.alpn:
        yield Tlv(TlvType.ALPN, reader.alpn[0].encode("latin-1"))
