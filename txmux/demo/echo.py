"""A demo backend that sends every byte back: for clients that nothing else recognises."""

from __future__ import annotations

from twisted.internet.protocol import ServerFactory

from txmux.demo.protocol import DemoProtocol

__all__ = ["EchoFactory"]


class _Echo(DemoProtocol):
    def step(self) -> bool:
        data = bytes(self.pending)
        self.pending.clear()
        self.transport.write(data)
        return False


class EchoFactory(ServerFactory):
    """Makes servers that echo (RFC 862)."""

    protocol = _Echo
    noisy = False
