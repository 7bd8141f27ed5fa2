"""Makes the connector of a client: its PROXY header, affinity and local address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.interfaces import ITransport

from txmux.backends.connect.client import ProxyClient
from txmux.backends.connect.connector import BackendConnector, proxy_header
from txmux.backends.names.destinations import ClientTarget, Destinations
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.client.session import record_multipath
from txmux.net.addresses import host_text
from txmux.rules.model import Backend
from txmux.tcp.stage import Client
from txmux.telemetry.reasons import ConnectFailure
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.proxyprotocol.fields import authority, passed_on_fields
from txmux.wire.proxyprotocol.header import Tlv, TlvType

_BY_TYPE = {TlvType.AUTHORITY: "authority", TlvType.ALPN: "alpn", TlvType.SSL: "ssl"}


def connector_for(
    client: Client,
    upstream: Upstream,
    on_connected: Callable[[ProxyClient, Member], None],
    on_failed: Callable[[ConnectFailure], None],
) -> BackendConnector:
    """Make what connects a client to a backend, by what is known of the client now; it is not started."""
    header, affinity = b"", ""
    is_seen = upstream.depends_on_client or upstream.destinations is not None
    address = client.address if is_seen else None
    if upstream.depends_on_client:
        if upstream.backend.proxy_protocol != "off":
            header = header_for(client, upstream.backend)
        affinity = upstream.affinity(address, client.decided)
    connector = BackendConnector(
        upstream,
        client.configuration.dialler,
        client.runtime.clock,
        header,
        address,
        eager=bool(client.received),
        on_connected=on_connected,
        on_failed=on_failed,
    )
    connector.affinity = affinity
    connector.client = client.record.client
    if upstream.destinations is not None:
        connector.client_target = target_of(client, upstream.destinations)
    connector.on_open = partial(_note_server, client, upstream.backend)
    for preamble in client.preambles:
        connector.requests += preamble.server_steps(
            upstream.note_greeting, in_clear=client.agreed_tls is not None
        )
        connector.repeats_client |= preamble.repeats_client
    if upstream.tls is not None:
        agreed = client.agreed_tls
        connector.alpn = (agreed.alpn,) if agreed is not None and agreed.alpn else ()
    return connector


def target_of(client: Client, destinations: Destinations) -> ClientTarget:
    host, port = "", 0
    if destinations.needs_local and (local := client.local) is not None:
        host, port = host_text(client.host()), local.port
    if client.preambles:
        port = int(client.granted.get("port", port))
    return ClientTarget(client.decided, host, port)


def _note_server(client: Client, backend: Backend, transport: ITransport) -> None:
    """Note the connection to a server, before anything is sent on it: it is recognised if it leads back here."""
    if backend.mptcp:
        record_multipath(client.record, transport)
    loop_detector = client.runtime.loop_detector
    loop_detector.forget(client.hop)
    # With a header of this service before them, the client's own bytes are none.
    is_first = backend.proxy_protocol == "off" and bool(backend.names)
    noted = loop_detector.record(transport, client.transport, may_forge_header=is_first)
    if noted != client.hop:  # see `Client`
        client.hop = noted


def header_for(client: Client, backend: Backend) -> bytes:
    own = list(_own_fields(client, backend)) if backend.proxy_tlvs else []
    tlvs = passed_on_fields(own, client.tlvs) if own or client.tlvs else ()
    return proxy_header(backend, client.address, client.local, tlvs)


def _own_fields(client: Client, backend: Backend) -> Iterator[Tlv]:
    names = backend.proxy_tlvs
    known = () if client.agreed_tls is None else client.agreed_tls.fields()
    if not known and not {"authority", "alpn"}.isdisjoint(names):
        limit = client.configuration.settings.peek_limit
        known = tuple(_fields_of(parse_client_hello(client.received[:limit], None)))
    yield from (tlv for tlv in known if _BY_TYPE[TlvType(tlv.type)] in names)
    if "unique-id" in names:
        yield Tlv(TlvType.UNIQUE_ID, client.record.id.encode("ascii"))


def _fields_of(reader: HelloReader) -> Iterator[Tlv]:
    if name := authority(reader.sni):
        yield Tlv(TlvType.AUTHORITY, name.encode("ascii"))
    if reader.alpn:
        yield Tlv(TlvType.ALPN, reader.alpn[0].encode("latin-1"))
