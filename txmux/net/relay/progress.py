"""How much of what was written to a transport its peer has yet to take."""

from __future__ import annotations

import array
import contextlib
import socket
from typing import TYPE_CHECKING

from txmux.net.sockets.waiting import below_tls, waiting

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover - no such thing on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from txmux.net.relay.ends import IRelayTransport

_TCP_CLOSE = 7  # the state, as Linux counts them


def unsent(transport: IRelayTransport) -> int:
    """Count the bytes that wait in a transport's own buffer, and in its socket's send queue for an acknowledgement.

    The latter is SIOCOUTQ of Linux (tcp(7), unix(7)). For TLS both are asked of the TCP connection below.

    Returns:
        A number of bytes; 0 where it cannot be known.
    """
    bottom = below_tls(transport)
    handle = bottom.getHandle()
    queued = queued_in(handle) if isinstance(handle, socket.socket) else 0
    return waiting(bottom) + queued


def queued_in(connected: socket.socket) -> int:
    """Count the bytes that wait in a socket's send queue; 0 where it cannot be known, or nobody is there any more."""
    queued = array.array("i", [0])
    if fcntl is not None:
        with contextlib.suppress(
            OSError
        ):  # closed meanwhile, or a kind of socket without the answer
            if _is_dead(connected):
                return 0
            fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, queued)
    return queued[0]


def _is_dead(connected: socket.socket) -> bool:
    """Return whether a TCP connection was reset: its queue is then never emptied (tcp(7), TCP_INFO)."""
    if connected.family == socket.AF_UNIX or not hasattr(socket, "TCP_INFO"):
        return False
    return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
