"""What clients said first over UDP, put together from the datagrams of a capture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.cli.pcap import Stream
from txmux.interfaces import MOST_DATAGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.cli.pcap import Datagram
    from txmux.wire.proxyprotocol.header import Address


@attrs.define
class _Gathering:
    client: Address
    server: Address
    datagrams: list[bytes] = attrs.field(factory=list)
    gap: bool = False


def client_flows(datagrams: Iterable[Datagram]) -> list[Stream]:
    """Put together which datagrams each client sent first, as many as are ever looked at.

    The client is who sent the first one. A capture does not tell when a flow is over: two ends have one.

    Args:
        datagrams: In the order of the capture, of any number of flows.

    Returns:
        The flows in the order of their first datagram.
    """
    flows: dict[frozenset[Address], _Gathering] = {}
    for datagram in datagrams:
        ends = frozenset((datagram.source, datagram.destination))
        flow = flows.get(ends)
        if flow is None:
            flow = flows[ends] = _Gathering(datagram.source, datagram.destination)
        if datagram.source == flow.client and len(flow.datagrams) < MOST_DATAGRAMS:
            flow.datagrams.append(datagram.payload)
            flow.gap = flow.gap or not datagram.whole
    return [
        Stream(
            flow.client,
            flow.server,
            flow.datagrams[0],
            flow.gap,
            server_first=False,
            datagrams=tuple(flow.datagrams),
        )
        for flow in flows.values()
    ]
