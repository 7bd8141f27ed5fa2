"""A demo backend that greets an SSH client, and tells it goodbye in a way that ``ssh`` prints."""

from __future__ import annotations

import struct

from twisted.internet.protocol import ServerFactory

from txmux.demo.protocol import DemoProtocol

__all__ = ["GOODBYE", "IDENTIFICATION", "SSHFactory"]

IDENTIFICATION = b"SSH-2.0-txmux_demo\r\n"
"""RFC 4253, section 4.2."""

GOODBYE = "demo: your client was recognised as SSH"

_IDENTIFICATION_LIMIT = 255
_PACKET_LIMIT = 35_000  # RFC 4253, section 6.1
_MSG_DISCONNECT = 1
_MSG_KEXINIT = 20
_DISCONNECT_BY_APPLICATION = 11


def packet(payload: bytes) -> bytes:
    """Frame a message as an unencrypted binary packet (RFC 4253, section 6)."""
    padding = 8 - (5 + len(payload)) % 8
    if padding < 4:
        padding += 8
    return struct.pack(">IB", 1 + len(payload) + padding, padding) + payload + bytes(padding)


def disconnect(description: str) -> bytes:
    """Make the packet that ends a connection, with the reason for people (RFC 4253, section 11.1)."""
    text = description.encode()
    return packet(
        struct.pack(">BII", _MSG_DISCONNECT, _DISCONNECT_BY_APPLICATION, len(text))
        + text
        + struct.pack(">I", 0)
    )


class _SSH(DemoProtocol):
    def connectionMade(self) -> None:
        super().connectionMade()
        self._identified = False
        self.transport.write(IDENTIFICATION)

    def step(self) -> bool:
        return self._key_exchange() if self._identified else self._identification()

    def _identification(self) -> bool:
        end = self.pending.find(b"\n", 0, _IDENTIFICATION_LIMIT)
        if end < 0 and len(self.pending) < _IDENTIFICATION_LIMIT:
            return False
        if end < 0 or not self.pending.startswith(b"SSH-"):
            self.transport.write(b"Invalid SSH identification string.\r\n")
            self.close()
            return False
        del self.pending[: end + 1]
        self._identified = True
        return True

    def _key_exchange(self) -> bool:
        # A client takes the goodbye for an answer only once it has sent its own first packet.
        if len(self.pending) < 6:
            return False
        length, _padding, message = struct.unpack_from(">IBB", self.pending)
        if message == _MSG_KEXINIT and length <= _PACKET_LIMIT:
            if len(self.pending) < 4 + length:
                return False
            self.transport.write(disconnect(GOODBYE))
        self.close()
        return False


class SSHFactory(ServerFactory):
    """Makes servers that speak SSH up to the first key exchange, and have no keys."""

    protocol = _SSH
    noisy = False
