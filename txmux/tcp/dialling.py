"""What a connection to a server depends on that is made for a client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.backends.connect.connector import BackendConnector
from txmux.net.addresses import asked_host
from txmux.tcp.announcing import header_for
from txmux.tcp.preconnection import Preconnection
from txmux.wire.proxyprotocol.header import TlvType

if TYPE_CHECKING:
    from collections.abc import Callable

    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.tcp.stage import Client
    from txmux.telemetry.reasons import ConnectFailure


def connector_for(
    client: Client,
    upstream: Upstream,
    on_connected: Callable[[ProxyClient, Member], None],
    on_failed: Callable[[ConnectFailure], None],
) -> BackendConnector:
    """Make what connects a client to a backend; it is not started.

    Args:
        client: The client, with what is known of it by now.
        upstream: The backend.
        on_connected: As for the connector.
        on_failed: As for the connector.
    """
    header, address, affinity = b"", None, ""
    if upstream.asks_who:
        address = client.address
        if upstream.backend.proxy_protocol != "off":
            header = header_for(client, upstream.backend)
        affinity = upstream.affinity(address, client.record.facts)
    connector = BackendConnector(
        upstream,
        client.configuration.dial,
        client.runtime.clock,
        header,
        address,
        eager=bool(client.received),
        on_connected=on_connected,
        on_failed=on_failed,
    )
    connector.affinity = affinity
    if upstream.asks_where:
        connector.local = asked_host(client.host())
    connector.on_open = client.note_server
    if client.asked:
        connector.requests = client.asked
    if upstream.tls is not None:
        agreed = (tlv.value for tlv in client.ended_tls if tlv.type == TlvType.ALPN)
        connector.alpn = tuple(agreed)
    return connector


def race_for(client: Client, upstream: Upstream) -> Preconnection:
    """Begin to connect a client that may turn out not to want it."""
    race = Preconnection(upstream, client.configuration.settings.peek_limit)
    race.connector = connector_for(client, upstream, race.connected, race.failed)
    race.connector.start()
    return race
