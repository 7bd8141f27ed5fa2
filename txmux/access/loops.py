"""Detects connections that this service makes to itself."""

import mmap
from typing import Any
from zlib import crc32

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, ITransport

from txmux.net.addresses import text_of
from txmux.net.sockets.plainsocket import is_on_this_machine

MOST_HOPS = 8
"""How often a connection may return to this service. Rules that forward it to another listener do so once or twice."""

_WITH_PORT = IPv4Address, IPv6Address
_COUNT, _FORGEABLE, _FLAGS = 0xFF, 1 << 8, 9
_PORTS = 1 << 16
_EVERY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104 - only compared
_SIZE = 8  # bytes of a slot


class LoopDetector:
    """Counts how often a connection has passed through this service, by the addresses of its own connections to itself.

    A connection that comes in from the very address and port that a connection to a server goes out from, at the address that it goes
    to, is that connection. There is a slot for each local port, with a checksum of the addresses and the count. Where
    two connections want the same slot, the later one takes it, and the other is not recognised.
    """

    SIZE = _PORTS * _SIZE

    def __init__(self, memory: memoryview | None = None) -> None:
        if memory is None:
            memory = memoryview(mmap.mmap(-1, self.SIZE))  # costs nothing where nothing is written
        self.slots = memory.cast("Q")  # by port; 0 if no connection of this service uses it
        self.ports: set[int] = set()  # the known ports at which clients arrive
        self.listens: dict[int, set[str]] = {}  # addresses by port

    def add_address(self, host: str, port: int) -> None:
        self.listens.setdefault(port, set()).add("" if host in _EVERY_ADDRESS else host)

    def is_own_address(self, host: str, port: int) -> bool:
        """Return whether this service itself listens at an IP address and port."""
        hosts = self.listens.get(port)
        if hosts is None:  # a port may be redirected, so clients may arrive at another one
            return port in self.ports and is_on_this_machine(host)
        return host in hosts or ("" in hosts and is_on_this_machine(host))

    def hops_of(self, client: ITransport) -> int:
        return self._found(client.getPeer(), client.getHost()) & _COUNT

    def may_forge_header(self, peer: IAddress, host: IAddress) -> bool:
        """Return whether a connection from `peer` to `host` is one of this service, on which a client writes the first bytes at a place of its choice."""
        return bool(self._found(peer, host) & _FORGEABLE)

    def _found(self, peer: Any, host: IAddress) -> int:
        slot = self.slots[peer.port] if isinstance(peer, _WITH_PORT) else 0
        return slot if slot and slot >> _FLAGS == _checksum(peer, host) else 0

    def record(
        self, server: ITransport, client: ITransport, *, may_forge_header: bool = False
    ) -> int:
        """Record a connection to a server; returns what to `forget` when it ends, or 0 if it cannot come back."""
        peer: Any = server.getPeer()
        if not isinstance(peer, _WITH_PORT) or peer.port not in self.ports:
            return 0
        host: Any = server.getHost()
        count = min(self.hops_of(client) + 1, _COUNT)
        flags = count | _FORGEABLE * may_forge_header
        self.slots[host.port] = _checksum(host, peer) << _FLAGS | flags
        return int(host.port)

    def forget(self, noted: int) -> None:
        self.slots[noted] = 0  # no connection has port 0


def _checksum(here: IAddress, there: IAddress) -> int:
    return crc32(f"{text_of(here)} {text_of(there)}".encode())
