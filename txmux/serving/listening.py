"""Listening TCP sockets, opened without a reactor, so that they can be handed to other processes, too."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any, Literal

import attrs

from txmux.rules.reading.endpoints import short_form
from txmux.rules.reading.endpointstrings import SERVER, split_arguments

__all__ = ["ListenAddress", "listen_address", "open_socket", "open_sockets"]


@attrs.frozen
class ListenAddress:
    """Where a TCP socket listens.

    Attributes:
        family: ``AF_INET`` or ``AF_INET6``.
        host: An IP address, or a name of this machine; empty is every address of the family.
        port: 0 is any that is free.
        backlog: Connections that may wait to be accepted.
        both: Whether an IPv6 socket takes IPv4 clients, too; otherwise the system's settings decide.
    """

    family: socket.AddressFamily
    host: str
    port: int
    backlog: int
    both: bool = False


def listen_address(text: str, backlog: int) -> ListenAddress | None:
    """Read one line of ``endpoint =``.

    Args:
        text: Checked by the rules parser.
        backlog: Connections that may wait to be accepted, unless the text says otherwise.

    Returns:
        The address; ``None`` if the text names anything but a plain TCP socket.
    """
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
    return _open_anyhow(address, "")


def open_sockets(address: ListenAddress, count: int) -> list[socket.socket]:
    """Open sockets for processes that share a port. The system spreads new connections over them evenly.

    Where it does not (only Linux is known to), all are one socket, and whoever accepts first has the connection.

    Args:
        address: Where; all of them have the port that the first was given.
        count: The number of sockets.

    Raises:
        OSError: One cannot be opened; then none is left open.
    """
    if sys.platform != "linux":
        return [open_socket(address)] * count
    first = _open_anyhow(address, "first")
    opened = [first]
    try:
        same = attrs.evolve(address, family=first.family, port=first.getsockname()[1])
        opened += [_open_anyhow(same, "further") for _ in range(1, count)]
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


_Sharing = Literal["", "first", "further"]


def _open_anyhow(address: ListenAddress, sharing: _Sharing) -> socket.socket:
    """Open a socket; without IPv6 in this system, one on every IPv4 address instead of every address."""
    try:
        return _open(address, sharing)
    except OSError as problem:
        if not address.both or problem.errno != errno.EAFNOSUPPORT:
            raise
    return _open(attrs.evolve(address, family=socket.AF_INET, host="", both=False), sharing)


def _open(address: ListenAddress, sharing: _Sharing) -> socket.socket:
    opened = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address.both:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if sharing == "further":
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(_address(address))
        if sharing == "first":
            # Before `bind`, it would also share the port with another program that allows it.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
