"""Who asks."""

from __future__ import annotations

import ipaddress
import pwd
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

_CREDENTIALS = struct.Struct("3i")
"""``struct ucred`` of unix(7): process, user and group."""
_IPV6_NETWORK = 64  # bits that all addresses of one client may have in common


@attrs.frozen
class Caller:
    """The other end of a connection.

    Attributes:
        source: What tells those that make many attempts apart: an address, or a user.
        name: What the log calls it.
        host: The address of this end; empty for a UNIX socket.
        port: That of this end; 0 for a UNIX socket.
    """

    source: str
    name: str
    host: str = ""
    port: int = 0

    @property
    def is_by_unix(self) -> bool:
        """Whether it has come by a UNIX socket, so that the mode of its file has let it in."""
        return not self.port

    @classmethod
    def of(cls, transport: Any) -> Caller:
        """Look at a connection."""
        here: IAddress = transport.getHost()
        if not isinstance(here, (IPv4Address, IPv6Address)):
            return cls._by_unix(transport.getHandle())
        peer = transport.getPeer()
        return cls(str(peer.host), f"{peer.host}, port {peer.port}", str(here.host), here.port)

    @classmethod
    def _by_unix(cls, handle: socket.socket) -> Caller:
        if not hasattr(socket, "SO_PEERCRED"):
            return cls("unix", "a client of the UNIX socket")
        packed = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(packed)
        user = ""
        with suppress(KeyError):  # as in a container without a list of users
            user = f" ({pwd.getpwuid(uid).pw_name})"
        return cls(f"uid {uid}", f"UID {uid}{user}, PID {pid}")


def network_of(source: str) -> str:
    """Return what all addresses of one client have in common; what is not an address as it is."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return source
    if address.version == 4 or address.ipv4_mapped:
        return str(getattr(address, "ipv4_mapped", None) or address)
    return str(ipaddress.ip_network((int(address), _IPV6_NETWORK), strict=False))
