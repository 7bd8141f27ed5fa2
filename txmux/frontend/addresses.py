"""Addresses of sockets as txmux shows and compares them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.internet import address

from txmux.proxyprotocol.header import Address
from txmux.rules.model.networks import unmapped

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


def ip_address_of(peer: IAddress) -> Address | None:
    """Read a Twisted address.

    A v4-mapped IPv6 address, as a listener on every address gets from IPv4 clients, is the IPv4 address it maps.

    Returns:
        The IP address and port; ``None`` for a UNIX socket or anything else without them.
    """
    if not isinstance(peer, (address.IPv4Address, address.IPv6Address)):
        return None
    return Address(unmapped(ip_address(peer.host)), peer.port)


def twisted_address(end: Address) -> IAddress:
    """Give an address as Twisted has it."""
    form = address.IPv4Address if end.host.version == 4 else address.IPv6Address
    return form("TCP", str(end.host), end.port)


def address_in(text: str) -> Address | None:
    """Read what `text_of` has written; ``None`` if it is not an IP address and a port."""
    host, _, port = text.rpartition(":")
    try:
        return Address(ip_address(host.strip("[]")), int(port))
    except ValueError:
        return None


def text_of(peer: IAddress) -> str:
    """Write an address for logs: ``192.0.2.1:443``, ``[2001:db8::1]:443``, ``unix:/run/x.sock``."""
    if type(peer) is address.IPv4Address:
        return f"{peer.host}:{peer.port}"
    ip = ip_address_of(peer)
    if ip is not None:
        return str(ip)
    if isinstance(peer, address.UNIXAddress):
        name = peer.name
        return f"unix:{name.decode('utf-8', 'backslashreplace')}" if name else "unix"
    return type(peer).__name__
