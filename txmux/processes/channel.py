"""What the parent and a worker tell each other: JSON objects over a pair of sockets, one a line."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, ITransport
    from twisted.python.failure import Failure

__all__ = ["Channel", "attach"]


class Channel(LineOnlyReceiver):
    """One end of it.

    A message is ``{"kind": KIND, NAME: VALUE, …}``. Who does not know a kind overlooks it.

    Args:
        handlers: What is called, by kinds; the other values are its keyword arguments.
        lost: Is called when the other process has closed its end, most likely because it has ended.

    Attributes:
        handlers: What is called; more may be added.
        is_open: Whether anybody is at the other end.
    """

    delimiter = b"\n"
    transport: ITransport
    MAX_LENGTH = 2**30  # all of the rules are one message

    def __init__(
        self, handlers: dict[str, Callable[..., object]], lost: Callable[[], object]
    ) -> None:
        self.handlers = handlers
        self._lost = lost
        self.is_open = True

    def send(self, kind: str, **values: Any) -> None:
        """Tell the other process something; nothing happens if it is gone."""
        if self.is_open:
            self.sendLine(json.dumps({"kind": kind, **values}).encode())

    def close(self) -> None:
        """Send what there is to send, and close."""
        if self.is_open and self.transport is not None:
            self.transport.loseConnection()

    @override
    def lineReceived(self, line: bytes) -> None:
        values = json.loads(line)
        handler = self.handlers.get(values.pop("kind"))
        if handler is not None:
            handler(**values)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.is_open = False
        self._lost()


class _Only(Factory):
    noisy = False

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Protocol:  # noqa: ARG002 - there is one
        return self._protocol


def attach(reactor: Any, channel: Channel, end: socket.socket) -> None:
    """Let a channel speak over one of a pair of sockets, which then belongs to it."""
    end.setblocking(False)  # noqa: FBT003 - the socket module's signature
    with end:  # the reactor works on a duplicate
        reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, _Only(channel))
