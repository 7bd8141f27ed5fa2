"""How much of what was written to a transport its peer has yet to take."""

from __future__ import annotations

import array
import contextlib
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport

try:
    import fcntl
    import termios
except ImportError:  # pragma: no cover - no such thing on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from txmux.relay.ends import IRelayTransport

__all__ = ["unsent"]


def unsent(transport: IRelayTransport) -> int:
    """Count the bytes that wait in a transport's own buffer, and in its socket's send queue for an acknowledgement.

    The latter is SIOCOUTQ of Linux (tcp(7), unix(7)). For TLS both are asked of the TCP connection below.

    Returns:
        A number of bytes; 0 where it cannot be known.
    """
    bottom: Any = transport
    while ISSLTransport.providedBy(bottom) and hasattr(bottom, "transport"):
        bottom = bottom.transport
    waiting: int = len(getattr(bottom, "dataBuffer", b"")) - getattr(bottom, "offset", 0)
    waiting += getattr(bottom, "_tempDataLen", 0)
    handle = bottom.getHandle()
    if fcntl is None or not isinstance(handle, socket.socket):
        return waiting
    queued = array.array("i", [0])
    with contextlib.suppress(OSError):  # closed meanwhile, or a kind of socket without the answer
        fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, queued)
    return waiting + queued[0]
