"""From a socket to the door that leads its clients to a listener."""

from __future__ import annotations

from socket import SOCK_DGRAM
from typing import TYPE_CHECKING

from txmux.serving.door import Door

if TYPE_CHECKING:
    import socket

    from txmux.tcp.listener import MuxFactory


def door_at(opened: socket.socket, factory: MuxFactory) -> Door:
    """Lead the clients of a socket, of which a duplicate is taken, to a listener.

    Raises:
        MuxError: It is for datagrams, which this system cannot relay.
    """
    if opened.type == SOCK_DGRAM:
        from txmux.serving.datagramdoor import datagram_door  # noqa: PLC0415 - most rules have no use for it

        return datagram_door(opened, factory)
    return Door(factory.listen(opened), factory, factory.generation.settings.keepalive)
