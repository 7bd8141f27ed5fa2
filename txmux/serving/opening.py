"""Ports that only Twisted can open, such as ``ssl:443:…`` and those of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.logger import Logger

from txmux.net.addresses import text_of
from txmux.serving.endpoints import listen_error, server_endpoint, stop_listening
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.listening_port import Forwarding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IListeningPort

    from txmux.rules.model import Listener

__all__ = ["OpenedPorts", "close_ports", "open_ports"]

OpenedPorts: TypeAlias = "dict[str, tuple[IListeningPort, Forwarding]]"
"""Ports by the keys of their places, each with what routes its clients to a listener."""

_log = Logger()


async def open_ports(
    reactor: Any, listeners: Iterable[Listener], is_open: Callable[[str], bool] = lambda _: False
) -> OpenedPorts:
    """Open the ports of listeners that are not plain sockets; clients are closed until a listener is given.

    Args:
        reactor: Opens them.
        listeners: Name them.
        is_open: Tells by the key of its place whether a port is open already.

    Raises:
        ListenError: One cannot be opened; then none is left open.
    """
    opened: OpenedPorts = {}
    for listener in listeners:
        for place in listen_addresses(listener):
            if place.is_plain or is_open(place.key):
                continue
            forwarding = Forwarding()
            try:
                endpoint = server_endpoint(reactor, place.text, listener.backlog)
                port = await endpoint.listen(forwarding)
            except Exception as problem:
                await close_ports(opened)
                raise listen_error(place, problem) from problem
            opened[place.key] = port, forwarding
            _log.info(
                "listening on {address} for [listen {name}]",
                address=text_of(port.getHost()),
                name=listener.name,
            )
    return opened


async def close_ports(opened: OpenedPorts) -> None:
    """Close ports that no listener was given."""
    for port, _ in opened.values():
        await stop_listening(port)
