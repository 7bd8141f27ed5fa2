"""What waits in a transport because its peer does not read."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ISSLTransport

__all__ = ["below_tls", "waiting"]


def below_tls(transport: Any) -> Any:
    """Return the transport of the connection that TLS is spoken on, at any depth; any other transport as it is."""
    bottom = transport
    while ISSLTransport.providedBy(bottom) and hasattr(bottom, "transport"):
        bottom = bottom.transport
    return bottom


def waiting(transport: Any) -> int:
    """Count the bytes that wait in the own buffer of a transport without TLS; 0 where it cannot be known."""
    count: int = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return count + getattr(transport, "_tempDataLen", 0)
