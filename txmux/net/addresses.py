"""Addresses of sockets as txmux shows and compares them."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_INET, AF_INET6, inet_pton

from twisted.internet import address
from twisted.internet.interfaces import IAddress

from txmux.errors import printable
from txmux.net.sockets.plainsocket import host_of
from txmux.transport import IPAddress, unmapped
from txmux.wire.proxyprotocol.header import Address


def ip_address_of(peer: IAddress) -> Address | None:
    """Read a Twisted address; ``None`` without IP address and port. A v4-mapped IPv6 address is the IPv4 one."""
    if not isinstance(peer, (address.IPv4Address, address.IPv6Address)):
        return None
    return Address(_read(peer.host), peer.port)


def host_text(local: IAddress) -> str:
    """Return the IP address that a client has connected to, a link-local one with its interface; empty if it is none."""
    end = ip_address_of(local)
    if end is None:
        return ""
    return host_of((str(end.host), end.port, 0, getattr(local, "scopeID", 0)))


def _read(host: str) -> IPAddress:
    """Read an IP address. Uses the system's function, since Python's own takes too long for each new client."""
    try:
        if ":" not in host:
            return IPv4Address(inet_pton(AF_INET, host))
        return unmapped(IPv6Address(inet_pton(AF_INET6, host)))
    except OSError:  # as one with a zone
        return unmapped(ip_address(host))


def twisted_address(end: Address) -> IAddress:
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
        return f"unix:{printable(name.decode('utf-8', 'backslashreplace'))}" if name else "unix"
    return type(peer).__name__
