"""Where listeners listen, and what makes two such places the same."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import attrs

from txmux.net.sockets.plainsocket import NO_KEEPALIVE, keepalive_options
from txmux.rules.reading.endpointstrings import SERVER, split_arguments
from txmux.serving.listening import listen_address, open_socket
from txmux.serving.unix import open_unix_socket, unix_path

if TYPE_CHECKING:
    from typing import Any

    from txmux.net.sockets.plainsocket import SocketOption
    from txmux.rules.model import Listener, Rules


@attrs.frozen
class ListenAddress:
    """One line of ``endpoint =``, or an endpoint that the service itself is reached by.

    Attributes:
        listener: The name of its listener; empty if it is of none.
        text: The line.
        backlog: Connections that may wait to be accepted.
        key: The same for all lines that name the same address, path, or socket of systemd.
        freebind: Whether its address need not be one of this machine.
        kind: ``tcp``, ``unix`` and ``systemd`` are sockets that several processes can accept from; anything else is for
            Twisted to open.
        setting: The key of ``[txmux]`` that names it, if it is not of a listener.
        options: What its connections inherit, also those that come before a worker serves.
    """

    listener: str
    text: str
    backlog: int
    key: str
    kind: str
    freebind: bool = False
    setting: str = ""
    options: tuple[SocketOption, ...] = attrs.field(default=(), eq=False)

    @property
    def section(self) -> str:
        """Who listens there, for people: ``[listen public]``, ``[txmux] admin``."""
        return f"[txmux] {self.setting}" if self.setting else f"[listen {self.listener}]"

    @property
    def is_plain(self) -> bool:
        """Whether it is a socket, and nothing more, to accept from."""
        return self.kind in {"tcp", "udp", "unix", "systemd"}


def listen_addresses(listener: Listener) -> list[ListenAddress]:
    """Return the places of a listener, in their order."""
    found = []
    asks = listener.keepalive
    options = keepalive_options(asks.idle, asks.interval, asks.count) if asks else NO_KEEPALIVE
    for number, text in enumerate(listener.endpoints):
        # Each that is to have any free port has one of its own.
        key, kind, backlog = identity(text, listener.backlog, f"{listener.name} {number}")
        place = ListenAddress(listener.name, text, backlog, key, kind, listener.freebind)
        found.append(attrs.evolve(place, options=options))
    return found


def are_plain(rules: Rules) -> bool:
    """Return whether no endpoint of listeners is for Twisted to open."""
    return all(
        place.is_plain for listener in rules.listeners for place in listen_addresses(listener)
    )


def identity(text: str, backlog: int, own: str) -> tuple[str, str, int]:
    """Return the key, the kind and the backlog of a `ListenAddress`.

    Args:
        text: Checked by the rules parser.
        backlog: Connections that may wait to be accepted, unless the text says otherwise.
        own: What makes it different from all others if it is to have any free port.
    """
    address = listen_address(text, backlog)
    if address is not None and address.datagrams:
        return f"udp:{address.name}{'' if address.port else f' {own}'}", "udp", backlog
    if address is not None:
        return (
            f"tcp:{address.name}{'' if address.port else f' {own}'}",
            "tcp",
            address.backlog,
        )
    arguments = split_arguments(text)
    kind = arguments.kind.lower()
    if kind == "unix":
        key = f"unix:{unix_path(arguments)}"
        backlog = int(arguments.named.get("backlog", backlog))
    elif kind == "systemd":
        named = SERVER[kind].check(arguments)
        key = f"systemd:{named.get('index', '')}:{named.get('name', '')}"
    else:
        key = text
    return key, kind, backlog


def open_place(place: ListenAddress, reactor: Any) -> socket.socket:
    """Open the socket of a plain place.

    Raises:
        OSError: It cannot be opened.
        LookupError: systemd has passed no such socket.
    """
    address = listen_address(place.text, place.backlog)
    if address is not None:
        options = () if address.datagrams else place.options
        return open_socket(attrs.evolve(address, freebind=place.freebind, options=options))
    if place.kind == "unix":
        return open_unix_socket(split_arguments(place.text), place.backlog)
    from twisted.internet.endpoints import (  # noqa: PLC0415 - it imports all of TLS
        AdoptedStreamServerEndpoint,
        serverFromString,
    )

    named = serverFromString(reactor, place.text)
    assert isinstance(named, AdoptedStreamServerEndpoint)  # noqa: S101 - as Twisted has it for systemd
    # The descriptor of systemd stays open, and can be asked for again. What family it has is the socket's to say:
    # systemd makes an IPv6 socket of `ListenStream=443`, whatever the endpoint's `domain` says.
    with socket.socket(fileno=named.fileno) as inherited:
        opened = inherited.dup()
        inherited.detach()
    opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
    return opened
