"""A listening socket for a factory, and a client that says something and listens to all of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IProtocol
    from twisted.internet.protocol import ServerFactory
    from twisted.python.failure import Failure

    from txmux.relay.ends import IRelayTransport

__all__ = ["Client", "ServingTestCase"]


class Client(Protocol):
    """Collects what the server says."""

    transport: IRelayTransport

    def __init__(self) -> None:
        self.received = bytearray()
        self._closed: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._closed.callback(bytes(self.received))

    def all_received(self) -> Deferred[bytes]:
        """Give everything that the server said, once it has closed the connection."""
        return self._closed


class ServingTestCase(TestCase):
    """A test that serves factories on loopback sockets, and waits at its end until all connections are over."""

    timeout = 30

    def setUp(self) -> None:
        self.served: list[IProtocol] = []
        self._over: list[Deferred[None]] = []
        self.addCleanup(lambda: gatherResults(self._over))

    async def serve(self, factory: ServerFactory[Any]) -> int:
        """Listen on a free port with a factory, until the test is over.

        Returns:
            The port.
        """
        patched: Any = factory
        build = patched.buildProtocol

        def remembered(address: IAddress) -> Any:
            protocol = build(address)
            lost = protocol.connectionLost
            over: Deferred[None] = Deferred()

            def connection_lost(reason: Failure) -> None:
                lost(reason)
                over.callback(None)

            protocol.connectionLost = connection_lost
            self.served.append(protocol)
            self._over.append(over)
            return protocol

        patched.buildProtocol = remembered
        endpoint = TCP4ServerEndpoint(IReactorTCP(reactor), 0, interface="127.0.0.1")
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def connect(self, port: int) -> Client:
        """Connect to a served port."""
        endpoint = TCP4ClientEndpoint(IReactorTCP(reactor), "127.0.0.1", port)
        client: Client = await connectProtocol(endpoint, Client())
        return client

    async def talk(self, port: int, *pieces: bytes, finish: bool = True) -> bytes:
        """Send something, and give all that the server says until it closes.

        Args:
            port: A served port.
            pieces: What to send, each with a turn of the reactor after it.
            finish: Whether to half-close after the last piece.
        """
        client = await self.connect(port)
        for piece in pieces:
            client.transport.write(piece)
            await self.turn()
        if finish:
            client.transport.loseWriteConnection()
        return await client.all_received()

    async def turn(self) -> None:
        """Let the reactor go round once."""
        await deferLater(IReactorTime(reactor), 0, lambda: None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the reactor go round until something is true; the test's timeout bounds it."""
        while not condition():
            await self.turn()
