"""The options of the sockets of a listener's clients, and of those to their servers."""

import socket
from functools import lru_cache

import attrs

from txmux.net.sockets.plainsocket import SocketOption
from txmux.rules.model import Listener

NO_KEEPALIVE: tuple[SocketOption, ...] = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0),)
_IDLE = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)  # macOS


@lru_cache(16)
def keepalive_options(idle: int, interval: int, count: int) -> tuple[SocketOption, ...]:
    """Return the TCP keepalive options (RFC 9293, section 3.8.4) for values as in `Keepalive`."""
    times = (
        (_IDLE, idle),
        (getattr(socket, "TCP_KEEPINTVL", None), interval),
        (getattr(socket, "TCP_KEEPCNT", None), count),
    )
    return (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *((socket.IPPROTO_TCP, name, value) for name, value in times if name is not None),
    )


def socket_options(listener: Listener) -> tuple[SocketOption, ...]:
    """Return all options of a listener's sockets, which accepted connections inherit, and of those to servers.

    Reloads compare them. What is not configured is set to the system's default, since a socket outlives a reload.
    """
    return (
        *listener_keepalive(listener),
    )  # fmt: skip


def listener_keepalive(listener: Listener) -> tuple[SocketOption, ...]:
    keepalive = listener.keepalive
    return NO_KEEPALIVE if keepalive is None else keepalive_options(*attrs.astuple(keepalive))
