"""A proxy that somebody else has written with the public parts: `HeaderFirst`, `ProxyClientFactory` and relays."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import txmux
from tests.support.kit import PeerFactory, connect, for_each, free_port, listen, reactor
from txmux.client.io_runtime import IORuntime
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.peers import Peer
from txmux.net.sockets.poller import is_available

_HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n"


class Client(Peer):
    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy

    def connectionMade(self) -> None:
        self.transport.pauseProducing()
        self._connecting = txmux.ProxyClientFactory(self._connected, self._failed)
        self._connector = reactor.connectTCP(
            "127.0.0.1", self._proxy.server, txmux.HeaderFirst(self._connecting, _HEADER)
        )
        if self._proxy.gives_up:
            self._connecting.break_off(self._connector.disconnect)
            self.transport.loseConnection()
            self.receiver = self._proxy

    def _connected(self, server: Peer) -> None:
        proxy = self._proxy
        relay = proxy.runtime.relay(self, server, Timeouts(idle=60), proxy.over.callback)
        relay.start(b"", client_finished=False)

    def _failed(self, reason: Failure) -> None:
        self._proxy.over.errback(reason)
        self.receiver = self._proxy
        self.transport.loseConnection()


class Proxy(ServerFactory):
    noisy = False
    gives_up = False

    def __init__(self, server: int, relay: Any) -> None:
        self.server = server
        self.runtime = IORuntime(reactor, relay)
        self.over: Deferred[RelayResult] = Deferred()

    def buildProtocol(self, addr: object) -> Client:
        return Client(self)

    # The receiver of a client that has no server.

    def data_received(self, data: bytes) -> None: ...

    def peer_finished(self) -> None: ...

    def connection_lost(self, reason: Failure) -> None: ...


@for_each("relay", ("portable", *(["kernel"] if is_available() else [])))
class ProxyTests(TestCase):
    relay: str

    async def test_header_bytes_and_end(self) -> None:
        """The header is first, each byte comes once, and a half-close is passed on while the other side goes on."""
        backend = PeerFactory()
        proxy = Proxy(listen(self, backend), self.relay)
        client = await connect(self, listen(self, proxy))
        client.send(b"question")
        client.transport.loseWriteConnection()
        server = await backend.heard(len(_HEADER) + 8)
        await server.has_all()
        self.assertEqual(bytes(server.received), _HEADER + b"question")
        server.send(b"answer")
        server.close()
        await client.is_lost()
        self.assertEqual(bytes(client.received), b"answer")
        result = await proxy.over
        proxy.runtime.clock.drop_idle()
        self.assertEqual((result.reason, result.bytes_in, result.bytes_out), ("done", 8, 6))

    async def test_nothing_listens(self) -> None:
        proxy = Proxy(free_port(), self.relay)
        client = await connect(self, listen(self, proxy))
        await client.is_lost()
        self.failureResultOf(proxy.over)
        # If it is broken off, neither function is called.
        proxy = Proxy(listen(self, PeerFactory()), self.relay)
        proxy.gives_up = True
        client = await connect(self, listen(self, proxy))
        await client.is_lost()
        self.assertNoResult(proxy.over)
