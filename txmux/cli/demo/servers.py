"""The demo's small servers, as far as a first look needs them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer

if TYPE_CHECKING:
    from txmux.net.relay.ends import IRelayTransport

IDENTIFICATION = b"SSH-2.0-txmux_demo\r\n"
"""RFC 4253, section 4.2."""

GOODBYE = "demo: your client was recognised as SSH"

_LONGEST = 35_000  # bytes of a packet: RFC 4253, section 6.1


@implementer(IHalfCloseableProtocol)
class _Server(Protocol):
    """Reads only as fast as its client does, and answers a client that has finished sending before it closes."""

    transport: IRelayTransport

    def connectionMade(self) -> None:
        self.transport.registerProducer(self.transport, streaming=True)

    def close(self) -> None:
        # A transport does not close while it has a producer that it has paused.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        self.close()

    def writeConnectionLost(self) -> None:
        pass


class _Echo(_Server):
    """Sends every byte back (RFC 862)."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class _Redis(_Server, LineOnlyReceiver):
    """Answers ``PING``, inline or as an array (Redis serialization protocol), and all other commands with an error."""

    delimiter = b"\n"
    _is_inline = _is_name_next = True

    def lineReceived(self, line: bytes) -> None:
        if line.startswith(b"*"):
            self._is_inline, self._is_name_next = False, True
        elif self._is_name_next and not line.startswith(b"$"):
            self._is_name_next = self._is_inline
            is_ping = line.strip().upper() == b"PING"
            self.transport.write(b"+PONG\r\n" if is_ping else b"-ERR the demo knows only PING\r\n")


class _SSH(_Server):
    """Greets, and ends a key exchange with a disconnect in a way that ``ssh`` prints."""

    _received = b""

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(IDENTIFICATION)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        _, newline, packet = self._received.partition(b"\n")
        # To close before the client's first packet is read would reset the connection.
        if newline and len(packet) >= 4 + int.from_bytes(packet[:4].ljust(4, b"\xff"), "big"):
            self.transport.write(_disconnect())
            self.close()
        elif len(self._received) > _LONGEST:
            self.close()


def _disconnect() -> bytes:
    """Make the packet that ends a connection (RFC 4253, sections 6 and 11.1)."""
    text = GOODBYE.encode()
    payload = struct.pack(">BII", 1, 11, len(text)) + text + bytes(4)
    padding = 4 + -(5 + len(payload) + 4) % 8
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


class _Factory(ServerFactory):
    noisy = False

    def __init__(self, protocol: type[_Server]) -> None:
        self.protocol = protocol


ECHO, REDIS, SSH = map(_Factory, (_Echo, _Redis, _SSH))
"""They keep nothing, so that one of each serves all demos."""
