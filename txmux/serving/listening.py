"""Listening TCP sockets, opened without a reactor, so that several processes can accept from one."""

from __future__ import annotations

import errno
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from txmux.net.sockets.plainsocket import set_options
from txmux.rules.reading.datagrams import is_for_datagrams, listening_place
from txmux.rules.reading.endpoints import short_form
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

if TYPE_CHECKING:
    from txmux.net.sockets.plainsocket import SocketOption

_FREEBIND = {socket.AF_INET: (socket.IPPROTO_IP, 15), socket.AF_INET6: (socket.IPPROTO_IPV6, 78)}
"""IP_FREEBIND and IPV6_FREEBIND: ip(7), ``linux/in.h``, ``linux/in6.h``."""


@attrs.frozen
class ListenAddress:
    """Where a TCP socket listens.

    Attributes:
        family: ``AF_INET`` or ``AF_INET6``.
        host: An IP address, or a name of this machine; empty is every address of the family.
        port: 0 is any that is free.
        backlog: Connections that may wait to be accepted.
        both: Whether an IPv6 socket takes IPv4 clients, too.
        freebind: Whether the address need not be one of this machine.
        datagrams: Whether it is for UDP.
        options: Further options, which connections inherit.
    """

    family: socket.AddressFamily
    host: str
    port: int
    backlog: int
    both: bool = False
    freebind: bool = False
    datagrams: bool = False
    options: tuple[SocketOption, ...] = ()

    @property
    def name(self) -> str:
        """What two addresses have in common that are the same to the system: ``192.0.2.1:443``, ``[::]:443``; ``:443`` for both families."""
        if self.both:
            return f":{self.port}"
        host = self.host or "0.0.0.0"  # noqa: S104 - every address of the family
        with suppress(OSError):
            host = str(socket.getaddrinfo(host, None, self.family, socket.SOCK_STREAM)[0][4][0])
        if self.family == socket.AF_INET:
            return f"{host}:{self.port}"
        with suppress(ValueError):
            host = ipaddress.IPv6Address(host).compressed
        return f"[{host}]:{self.port}"


def listen_address(text: str, backlog: int) -> ListenAddress | None:
    """Read one line of ``endpoint =``.

    Args:
        text: Checked by the rules parser.
        backlog: Connections that may wait to be accepted, unless the text says otherwise.

    Returns:
        The address; ``None`` if the text names anything but a plain TCP socket.
    """
    if is_for_datagrams(text):
        host, port = listening_place(text)
        family = _family(host) if host else socket.AF_INET6
        return ListenAddress(family, host or "::", port, backlog, both=not host, datagrams=True)
    short = short_form(text)
    if short is not None:
        host, port = short
        if not host:
            return ListenAddress(socket.AF_INET6, "::", port, backlog, both=True)
        return ListenAddress(_family(host), host, port, backlog)
    arguments = split_arguments(text)
    kind = arguments.kind.lower()
    if kind not in {"tcp", "tcp6"}:
        return None
    named = SERVER[kind].check(arguments)
    host = named.get("interface") or ("::" if kind == "tcp6" else "")
    family = socket.AF_INET6 if kind == "tcp6" else _family(host)
    return ListenAddress(family, host, int(named["port"]), int(named.get("backlog", backlog)))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def open_socket(address: ListenAddress) -> socket.socket:
    """Open a socket that nobody else can listen beside.

    Raises:
        OSError: It cannot be opened.
    """
    try:
        return _open(address)
    except OSError as problem:
        if not address.both or problem.errno != errno.EAFNOSUPPORT:
            raise
    # Without IPv6 in this system, every IPv4 address is every address.
    return _open(attrs.evolve(address, family=socket.AF_INET, host="", both=False))


def _open(address: ListenAddress) -> socket.socket:
    kind = socket.SOCK_DGRAM if address.datagrams else socket.SOCK_STREAM
    opened = socket.socket(address.family, kind)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        if not address.datagrams:  # others could take datagrams away by it
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not address.both)
        if address.freebind:
            opened.setsockopt(*_FREEBIND[address.family], 1)
        set_options(opened, address.options)
        opened.bind(_address(address))
        if not address.datagrams:
            opened.listen(address.backlog)
    except OSError:
        opened.close()
        raise
    return opened


def _address(address: ListenAddress) -> Any:
    if address.family == socket.AF_INET:
        return (address.host, address.port)
    # The zone of a link-local address becomes a number of its own.
    found = socket.getaddrinfo(address.host, address.port, socket.AF_INET6, socket.SOCK_STREAM)
    return found[0][4]
