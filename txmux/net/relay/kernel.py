"""A relay over plain sockets that does not pass bytes through the transports: for Linux.

Both descriptors are taken out of the reactor, and all relayed pairs are served by one `Poller`. Small messages are
received into one buffer and sent on at once; when more comes than fits into it, bytes pass through a pipe inside
the kernel (splice(2)) until there are few again. At the end each descriptor goes back to its transport, which
closes it and tells its protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import tcp

from txmux.net.relay.kernel_side import KernelSide
from txmux.net.relay.pipes import can_splice
from txmux.net.relay.relay import Relay
from txmux.net.sockets.poller import is_available

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from txmux.net.relay.ends import End
    from txmux.net.relay.interface import RelayResult, Timeouts
    from txmux.net.relay.side import RelaySide
    from txmux.net.relay.silence import Keepalive
    from txmux.net.sockets.poller import Poller


def is_supported() -> bool:
    return is_available() and can_splice()


def can_relay(end: End) -> bool:
    """Return whether an end has a plain socket."""
    transport: Any = end.transport
    return isinstance(transport, tcp.Connection) and not transport.TLS


def kernel_relay(
    clock: IReactorTime,
    timeouts: Timeouts,
    on_over: Callable[[RelayResult], None],
    poller: Poller,
    keepalive: Keepalive | None = None,
) -> Relay:
    """Make a relay between plain sockets.

    Args:
        clock: Gives the time and the timers.
        timeouts: When to give up.
        on_over: Called once, when both ends are gone.
        poller: Watches the sockets.
        keepalive: That of both ends' sockets.
    """

    def sides(relay: Relay, client: End, server: End) -> tuple[RelaySide, RelaySide]:
        return KernelSide(relay, client, poller), KernelSide(relay, server, poller)

    return Relay(clock, timeouts, on_over, sides, keepalive)
