"""Source addresses of connections to servers: those of this machine in turn, or the client's own."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from random import randrange

from twisted.internet.error import ConnectBindError

from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.net.sockets.client import IN_USE
from txmux.net.sockets.plainsocket import SocketOption, set_options
from txmux.net.sockets.transport import sockaddr
from txmux.rules.model import Backend, Server
from txmux.rules.model.backend import split_source
from txmux.transport import is_address
from txmux.wire.proxyprotocol.header import Address

_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # ip(7), ipv6(7)
_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python knows it only since 3.12
_ANY_PORT = itertools.repeat(0)
_MOST_TRIES = 500  # to find a port of a range that is free; each costs some microseconds
_TABLE = 100  # of the routes in the hints; other proxies' documentation has the same number


@frozen
class SourceAddress:
    """The local address of a connection."""

    address: str
    transparent: bool = False  # it is not this machine's
    client_port: int = 0  # of the client that has this address; UDP tries it first
    ports: Iterator[int] = _ANY_PORT  # shared by all connections; 0 is any
    tries: int = 1

    @classmethod
    def of(cls, address: str, ports: range | None) -> SourceAddress:
        """Make one with a range of ports, used in turn; the first is random, since other processes may use the same."""
        if not ports:
            return cls(address)
        start = randrange(len(ports))  # nosec B311  # noqa: S311 - not for secrets
        turns = itertools.cycle((*ports[start:], *ports[:start]))
        return cls(address, ports=turns, tries=min(len(ports), _MOST_TRIES))

    def bind(self, unbound: socket.socket, port: int | None = None) -> None:
        """Bind a socket of the address's family, to one of its own ports unless another is given, or raise `OSError`.

        Without ports of its own, the system chooses the port only when it connects: then ports in use for other servers
        do not count. For TCP they do not count for a given port either, as long as all its users allow that. For
        UDP they do: the system lets two sockets have the same port towards the same server, and one of them gets all.
        """
        port = next(self.ports) if port is None else port
        if port:
            if unbound.type == socket.SOCK_STREAM:
                unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif sys.platform == "linux":
            unbound.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        if self.transparent:
            _make_transparent(unbound)
        try:
            unbound.bind(sockaddr(self.address, port))
        except OSError as problem:
            if problem.errno != errno.EADDRNOTAVAIL:
                raise
            raise OSError(
                problem.errno, f"{self.address} is not an address of this machine"
            ) from None


def _make_transparent(unbound: socket.socket) -> None:
    if unbound.family == socket.AF_INET6:
        unbound.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        unbound.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)


class Sources:
    """Chooses the source addresses of one backend's connections."""

    def __init__(self, source: Sequence[str]) -> None:
        self.of_client = "client" in source
        self._turns: dict[int, Iterator[tuple[SourceAddress, ...]]] = {}
        if self.of_client:
            return
        for version in (4, 6):
            known = [split_source(text) for text in source]
            own = [SourceAddress.of(*its) for its in known if _version(its[0]) == version]
            if own:
                turns = [(*own[at:], *own[:at]) for at in range(len(own))]
                self._turns[version] = itertools.cycle(turns)

    def sources_towards(self, host: str, client: Address | None) -> tuple[SourceAddress, ...]:
        """Return the addresses to try for one connection; empty if the system chooses.

        Raises:
            ConnectBindError: There is no address of the server's family.
        """
        version = _version(host)
        if self.of_client:
            return self._from_client(host, version, client)
        turns = self._turns.get(version)
        if turns is not None:
            return next(turns)
        if self._turns:
            why = f"no address in source is IPv{version}, as this server's is"
            raise ConnectBindError(errno.EADDRNOTAVAIL, why)
        return ()

    def _from_client(
        self, host: str, version: int, client: Address | None
    ) -> tuple[SourceAddress, ...]:
        if client is None:
            return ()
        if client.host.version != version:
            why = (
                f"the client's address is IPv{client.host.version}, and this server's IPv{version}"
            )
            raise ConnectBindError(errno.EADDRNOTAVAIL, why)
        if client.host.is_loopback and not ip_address(host).is_loopback:
            return ()  # a client on this machine, whose address means another one elsewhere
        return (SourceAddress(str(client.host), transparent=True, client_port=client.port),)


def prepare_datagrams(
    unconnected: socket.socket, options: Iterable[SocketOption], sources: Sequence[SourceAddress]
) -> None:
    """Set the options of a socket of UDP that is about to be connected, and bind it to one of these addresses; raises `OSError`.

    It gets a port that no other flow has, or it would get that flow's answers. The port of a client whose own address it is comes
    first, since QUIC servers distinguish connections by it; a client on this machine may share it, if it allows that.
    """
    set_options(unconnected, options)
    problem = None
    for source in sources:
        own = [source.client_port] if source.client_port else []
        for port in (*own, *[None] * source.tries):
            unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, source.transparent)
            try:
                source.bind(unconnected, port)
            except OSError as failed:
                problem = problem or failed
                if failed.errno != errno.EADDRINUSE:
                    break
            else:
                return
            finally:
                unconnected.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    if problem is not None:
        raise OSError(problem.errno, IN_USE) if problem.errno == errno.EADDRINUSE else problem


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def check_transparent() -> None:
    """Raise a `MuxError`, for the key ``source``, unless this process may connect from the addresses of others."""
    if sys.platform != "linux":
        raise MuxError("'client' needs Linux; remove it, or use proxy_protocol")
    with socket.socket() as probe:
        try:
            _make_transparent(probe)
        except OSError as problem:
            raise MuxError(
                f"'client': user {os.geteuid()} may not connect from the addresses of others ({problem.strerror}); "
                "run with the capability CAP_NET_ADMIN, or use proxy_protocol"
            ) from None


def transparent_hints(backend: Backend) -> list[str]:
    """Return the routing rules for ``source = client``, as lines for a shell with comments.

    A server's answers go to the client's address. These rules deliver them to this machine's own sockets.
    """
    if backend.source != ("client",):
        return []
    servers = [
        server for server in backend.servers if server.query or server.kind in {"tcp", "srv"}
    ]
    lines = [
        f"# backend {backend.name}: what its servers send to clients must come to this machine, and is for txmux;",
        "# run this as root, and again at each boot:",
    ]
    for server in servers:
        lines += _rules_for(server)
    versions = sorted({version for server in servers for version in _versions(server)})
    lines += [
        f"{_ip(version)} route add local default dev lo table {_TABLE}" for version in versions
    ]
    remote = [server.text for server in servers if not _is_local(server)]
    if remote:
        lines.append(
            f"# on {', '.join(dict.fromkeys(remote))}: make this machine the gateway to the clients"
        )
    return lines


def _rules_for(server: Server) -> Iterator[str]:
    named = server.query or server.kind == "srv" or not is_address(server.host)
    if named:
        yield f"# for each address of {server.host}:"
    for version in _versions(server):
        address = f"IPV{version}-ADDRESS" if named else server.host
        port = server.port or "PORT"
        yield (f"{_ip(version)} rule add from {address} ipproto tcp sport {port} lookup {_TABLE}")


def _versions(server: Server) -> tuple[int, ...]:
    return (_version(server.host),) if is_address(server.host) else (4, 6)


def _is_local(server: Server) -> bool:
    return server.depends_on_client or (
        is_address(server.host) and ip_address(server.host).is_loopback
    )


def _ip(version: int) -> str:
    return "ip" if version == 4 else "ip -6"
