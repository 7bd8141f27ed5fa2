"""Datagrams of a proxy in front, which may begin with a header of the PROXY protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.udp import ancillary
from txmux.wire.proxyprotocol.decode import decode_datagram
from txmux.wire.proxyprotocol.header import LARGEST_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.wire.proxyprotocol.header import Header


def behind_headers(first: Header, data: memoryview, size: int) -> Iterator[memoryview | None]:
    """Yield each datagram without its header; ``None`` for one that tells of another client.

    Args:
        first: The header that the flow began with; any other datagram may tell the same again.
        data: The bytes of the datagrams.
        size: The bytes of each but the last; 0 if there is one.
    """
    for part in ancillary.split(data, size):
        found = decode_datagram(bytes(part[:LARGEST_HEADER]))
        if found is None:
            yield part
        else:
            yield part[found.length :] if found.header.source == first.source else None
