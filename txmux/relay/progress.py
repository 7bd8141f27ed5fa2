"""How much of what was written to a transport its peer has yet to take."""

from __future__ import annotations

import array
import contextlib
import socket
from typing import TYPE_CHECKING

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover - no such thing on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from txmux.relay.ends import IRelayTransport

__all__ = ["unsent"]


def unsent(transport: IRelayTransport) -> int:
    """Ask the kernel how many bytes wait in a socket's send queue (Linux tcp(7), SIOCOUTQ).

    Returns:
        A number of bytes; 0 where it cannot be known.
    """
    handle = transport.getHandle()
    if fcntl is None or not isinstance(handle, socket.socket):
        return 0
    queued = array.array("i", [0])
    with contextlib.suppress(OSError):  # closed meanwhile, or a kind of socket without the answer
        fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, queued)
    return queued[0]
