"""Tunnels of WireGuard whose flow has been forgotten: what they say opens a flow that no route takes, until they begin again.

A client that hears nothing begins again by itself after 15 seconds ("WireGuard: Next Generation Kernel Network Tunnel",
section 6.5). Only that first message tells which server is meant, so it must not go where the rest of the tunnel went.
"""

from __future__ import annotations

from typing import Any

_INITIATION, _COOKIE, _DATA = 1, 3, 4
_INITIATION_SIZE, _COOKIE_SIZE, _LEAST_DATA, _BLOCK = 148, 64, 32, 16


def goes_on(datagram: bytes) -> bool:
    """Return whether a datagram may be of a tunnel that has begun before: data, or a cookie."""
    kind, size = datagram[:1], len(datagram)
    is_data = size >= _LEAST_DATA and size % _BLOCK == 0
    return (kind == bytes([_DATA]) and is_data) or (
        kind == bytes([_COOKIE]) and size == _COOKIE_SIZE
    )


def begins(data: Any, size: int) -> bool:
    """Return whether a tunnel begins with this.

    Args:
        data: Bytes of one datagram, or of several.
        size: The bytes of each but the last; 0 if there is one.
    """
    length = size if 0 < size < len(data) else len(data)
    return length == _INITIATION_SIZE and data[0] == _INITIATION
