"""The addresses of listeners, their keys, and how their sockets are opened without a reactor."""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import attrs

from txmux.classes import frozen
from txmux.client.socket_options import socket_options
from txmux.net.sockets.plainsocket import (
    IPPROTO_MPTCP,
    SocketOption,
    host_of,
    open_multipath,
    set_options,
)
from txmux.net.sockets.unixpath import open_bound
from txmux.rules.model import Listener, Rules
from txmux.rules.reading import endpointstrings
from txmux.rules.reading.endpoints import parse_endpoint

BACKLOG = 65535
"""Clients that may wait to be accepted; the system takes less: on Linux ``net.core.somaxconn``."""

_MPTCP = " mptcp"


@frozen
class ListenAddress:
    """One line of ``endpoint =``, one port of such a line, or an endpoint of ``admin`` or ``metrics``.

    Attributes:
        listener: The name of its listener; empty if it has none.
        key: The same for all lines with the same address, path, or socket of systemd.
        freebind: Whether its address may be missing on this machine.
        mptcp: Whether its clients may use Multipath TCP.
        kind: Several processes can accept from the plain kinds, ``tcp``, ``udp``, ``unix`` and ``systemd``; Twisted opens others.
        setting: The key of ``[txmux]`` with this address, if it has no listener.
        ports: All ports of its line, as ``10000-10100``, if these are several.
        options: The options that its connections inherit, including those in the queue before a worker serves.
    """

    listener: str
    text: str
    backlog: int
    key: str
    kind: str
    freebind: bool = False
    mptcp: bool = False
    setting: str = ""
    ports: str = ""
    options: tuple[SocketOption, ...] = attrs.field(default=(), eq=False)

    @property
    def section(self) -> str:
        return f"[txmux] {self.setting}" if self.setting else f"[listen {self.listener}]"

    @property
    def port(self) -> int:
        return int(self.text.rpartition(":")[2])

    @property
    def line(self) -> str:
        # Which mode a socket of `admin` has is not in the rules.
        is_added = self.setting and self.kind == "unix"
        return self.key if is_added else self.with_ports(self.text)

    def with_ports(self, text: str) -> str:
        """Return a text for this address, which ends in its port, with all ports of its line."""
        return f"{text.rpartition(':')[0]}:{self.ports}" if self.ports else text

    @property
    def is_socket(self) -> bool:
        """Whether processes can share it, as they cannot what another endpoint string of Twisted's opens."""
        return self.kind in {"tcp", "udp", "unix", "systemd"}

    @property
    def other_key(self) -> str:
        return self.key.removesuffix(_MPTCP) if self.mptcp else f"{self.key}{_MPTCP}"


_OF_PORT = "text", "key"


def listen_addresses(listener: Listener) -> list[ListenAddress]:
    return [address for line in listen_lines(listener) for address in _each_port(line)]


def _each_port(first: ListenAddress) -> Iterator[ListenAddress]:
    several = endpointstrings.split_ports(first.line)
    if several is None:
        yield first
        return
    before, ports = several
    stem, _, after = first.key.rpartition(str(ports.start))
    # `attrs.evolve` would take a second for all ports.
    fields = attrs.asdict(first, recurse=False, filter=lambda field, _: field.name not in _OF_PORT)
    make = partial(ListenAddress, **fields)
    for port in ports:
        yield make(text=f"{before}{port}", key=f"{stem}{port}{after}")


def listen_lines(listener: Listener) -> list[ListenAddress]:
    """Return an address for each line of ``endpoint =``: with the first port, if it has several."""
    addresses = []
    options = socket_options(listener)
    for number, line in enumerate(listener.endpoints):
        text, ports, several = line, "", endpointstrings.split_ports(line)
        if several is not None:
            text, ports = f"{several[0]}{several[1].start}", line.removeprefix(several[0])
        # Each endpoint with port 0 gets a port of its own.
        key, kind, backlog = identity(text, BACKLOG, f"{listener.name} {number}")
        address = ListenAddress(
            listener.name, text, backlog, key, kind, listener.freebind, ports=ports
        )
        if listener.mptcp and kind == "tcp":
            address = attrs.evolve(address, mptcp=True, key=f"{key}{_MPTCP}")
        addresses.append(attrs.evolve(address, options=options))
    return addresses


def are_all_sockets(rules: Rules) -> bool:
    return all(line.is_socket for listener in rules.listeners for line in listen_lines(listener))


def identity(text: str, backlog: int, own: str) -> tuple[str, str, int]:
    """Return the key, the kind and the backlog of a `ListenAddress`; the `backlog` is used if its text has none.

    `own` distinguishes it from other endpoints with port 0.
    """
    where = socket_address(text, backlog)
    if where is not None:
        kind = "udp" if where.datagrams else "tcp"
        return f"{kind}:{where.name}{'' if where.port else f' {own}'}", kind, where.backlog
    parsed = parse_endpoint(text)
    key, named = text, parsed.named
    if parsed.kind == "unix":
        key, backlog = f"unix:{Path(named['address'])}", int(named.get("backlog", backlog))
    elif parsed.kind == "systemd":
        key = f"systemd:{named.get('index', '')}:{named.get('name', '')}"
    return key, parsed.kind, backlog


def place_of(key: str) -> str:
    """Return the same for all keys of which the sockets may be in each other's way: of TCP, those of one port."""
    return f"tcp:{key.rpartition(':')[2].removesuffix(_MPTCP)}" if key.startswith("tcp:") else key


def key_of(opened: socket.socket) -> str:
    """Return the key of the address at which a TCP or UDP socket gets clients; an empty one for other sockets."""
    is_udp = opened.type == socket.SOCK_DGRAM
    listens = is_udp or opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if opened.family not in {socket.AF_INET, socket.AF_INET6} or not listens:
        return ""
    its = opened.getsockname()
    host, port = host_of(its), its[1]
    both = host == "::" and not opened.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    name = SocketAddress(opened.family, host, port, 0, both=both).name
    return (
        f"udp:{name}" if is_udp else f"tcp:{name}{_MPTCP if opened.proto == IPPROTO_MPTCP else ''}"
    )


def has_lost_interface(address: ListenAddress, opened: socket.socket) -> bool:
    """Return whether a socket is bound to an interface that is gone, also if there is another one of its name: clients no longer reach it."""
    # Of thousands of ports, none is parsed each second.
    where = socket_address(address.text, 0) if "%" in address.text else None
    zone = "" if where is None else where.host.partition("%")[2]
    if not zone:
        return False
    index = opened.getsockname()[3]  # 0 if the address is not link-local
    try:
        socket.if_indextoname(index)
        # Not by its name, since it may have several.
        return not zone.isdigit() and socket.if_nametoindex(zone) != index
    except OSError as problem:
        return index > 0 and problem.errno in {None, errno.ENXIO, errno.ENODEV}


def open_address(address: ListenAddress, reactor: Any) -> socket.socket:
    """Open the socket of a plain address, which does not listen yet; it is a `LookupError` if systemd has passed no such socket."""
    where = socket_address(address.text, address.backlog)
    if where is not None:
        options = () if where.datagrams else address.options
        return bind_socket(
            attrs.evolve(where, freebind=address.freebind, options=options, mptcp=address.mptcp)
        )
    if address.kind == "unix":
        return bind_unix_socket(parse_endpoint(address.text).named)
    # The descriptor of systemd stays open, and can be asked for again. Its family is the socket's to say: systemd makes
    # an IPv6 socket of `ListenStream=443`, even if the endpoint's `domain` differs.
    opened = socket.socket(fileno=os.dup(systemd_descriptor(reactor, address.text)))
    opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
    return opened


def systemd_descriptor(reactor: Any, text: str) -> int:
    """Return the descriptor of a ``systemd:`` endpoint; it is a `LookupError` if systemd has passed none."""
    from twisted.internet.endpoints import AdoptedStreamServerEndpoint, serverFromString  # noqa: PLC0415 - it imports all of TLS

    passed = serverFromString(reactor, text)
    assert isinstance(passed, AdoptedStreamServerEndpoint)  # noqa: S101 - what Twisted makes of ``systemd:``
    return int(passed.fileno)


_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND and IPV6_FREEBIND: ip(7), ``linux/in.h``, ``linux/in6.h``."""


@frozen
class SocketAddress:
    """The address of a TCP or UDP socket.

    Attributes:
        host: An IP address, or a name of this machine; empty for all addresses of the family.
        port: 0 for a free port.
        both: Whether an IPv6 socket accepts IPv4 clients, too.
        freebind: Whether the address may be missing on this machine.
        options: Further options, which connections inherit.
        mptcp: Whether connections may use Multipath TCP.
    """

    family: socket.AddressFamily
    host: str
    port: int
    backlog: int
    both: bool = False
    freebind: bool = False
    datagrams: bool = False
    options: tuple[SocketOption, ...] = ()
    mptcp: bool = False

    @property
    def name(self) -> str:
        """The same for addresses that are the same to the system: ``192.0.2.1:443``, ``[::]:443``; ``:443`` for both families."""
        if self.both:
            return f":{self.port}"
        host = self.host or "0.0.0.0"  # noqa: S104 - every address of the family
        with suppress(OSError):
            host = str(socket.getaddrinfo(host, None, self.family, socket.SOCK_STREAM)[0][4][0])
        if self.family == socket.AF_INET:
            return f"{host}:{self.port}"
        with suppress(ValueError):
            host = ipaddress.IPv6Address(host).compressed
        # The system's answer has none, and each interface may have the same link-local address.
        zone = self.host.partition("%")[1:]
        return f"[{host.partition('%')[0]}{''.join(zone)}]:{self.port}"


@lru_cache(256)
def socket_address(text: str, backlog: int) -> SocketAddress | None:
    """Parse one line of ``endpoint =``; ``None`` if it is not for a TCP or UDP socket."""
    parsed = parse_endpoint(text)
    if not parsed.is_by_port:
        return None
    host, datagrams = parsed.host, parsed.kind == "udp"
    is_ipv6 = not host or ":" in host or parsed.kind == "tcp6"
    family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
    backlog = int(parsed.named.get("backlog", backlog))
    return SocketAddress(
        family, host or "::", parsed.port, backlog, both=not host, datagrams=datagrams
    )


def open_socket(address: SocketAddress) -> socket.socket:
    """Open a socket that listens."""
    opened = bind_socket(address)
    if not address.datagrams:
        opened.listen(address.backlog)
    return opened


def bind_socket(address: SocketAddress) -> socket.socket:
    """Open a socket that does not listen yet; no other program listens at the same address."""
    try:
        return _open(address)
    except OSError as problem:
        if not address.both or problem.errno != errno.EAFNOSUPPORT:
            raise
    # This system has no IPv6, so IPv4 alone is for all clients.
    return _open(attrs.evolve(address, family=socket.AF_INET, host="", both=False))


def _open(address: SocketAddress) -> socket.socket:
    kind = socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM
    make = partial(open_multipath, make=socket.socket) if address.mptcp else socket.socket
    opened = make(address.family, kind)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        if not address.datagrams:  # with it, other programs could take datagrams away
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not address.both)
        if address.freebind:
            opened.setsockopt(*_FREEBIND[address.family], 1)
        set_options(opened, address.options)
        opened.bind(_address(address))
    except OSError:
        opened.close()
        raise
    return opened


def _address(address: SocketAddress) -> Any:
    if address.family == socket.AF_INET:
        return (address.host, address.port)
    # The zone of a link-local address becomes a number of its own.
    resolved = socket.getaddrinfo(address.host, address.port, socket.AF_INET6, socket.SOCK_STREAM)
    return resolved[0][4]


_UNIX_MODE = "666"


def bind_unix_socket(named: Mapping[str, str]) -> socket.socket:
    """Open the socket of a ``unix:`` endpoint; the file of a closed socket is replaced.

    ``lockfile`` is ignored: the socket itself shows whether it is in use.
    """
    return open_bound(Path(named["address"]), int(named.get("mode", _UNIX_MODE), 8))


def is_in_use(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the socket module's signature
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True
