"""A test case that connects to servers by TLS."""

from __future__ import annotations

import socket
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.certificates import Identity, make_authority
from tests.support.folders import make_folder
from tests.support.peers import reactor
from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.tls import BackendTLS
from txmux.net.header_first import HeaderFirst
from txmux.net.sockets.client import SocketConnector
from txmux.net.sockets.poller import Poller
from txmux.net.tls.errors import HandshakeError
from txmux.rules.model import ServerTLS


@cache
def authority() -> Identity:
    """Make the authority that the tests trust, once for all of them."""
    return make_authority()


class TLSCase(TestCase):
    """Connects to servers of this machine, and trusts one authority, whose file is `ca`."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.ca = authority().write(self.folder / "ca.pem")

    def tls(self, name: str = "a.example", *, ca: bool = True, **settings: Any) -> BackendTLS:
        return BackendTLS(ServerTLS(name, self.ca if ca else None, **settings))

    async def attempt(
        self,
        tls: BackendTLS,
        port: int,
        server_name: str = "127.0.0.1",
        alpn: tuple[bytes, ...] = (),
        header: bytes = b"",
    ) -> ProxyClient:
        done: Deferred[ProxyClient] = Deferred()

        def connected(client: ProxyClient) -> None:
            client.receiver = LastReceiver()
            done.callback(client)

        made = ProxyClientFactory(connected, done.errback)
        factory: Any = tls.wrap(made, server_name, alpn)
        if header:
            factory = HeaderFirst(factory, header)
        poller = Poller.for_reactor(reactor)
        name = ("127.0.0.1", port)
        connector = SocketConnector(poller, reactor, socket.AF_INET, name, factory)
        connector.connect(60)
        client = await done
        receiver: Any = client.receiver
        self.addCleanup(self.end, client, receiver)
        return client

    def end(self, client: Any, receiver: LastReceiver) -> Deferred[None]:
        client.transport.abortConnection()
        return receiver.gone

    async def why_not(self, tls: BackendTLS, port: int, server_name: str = "127.0.0.1") -> str:
        failure = await self.assertFailure(
            Deferred.fromCoroutine(self.attempt(tls, port, server_name)), HandshakeError
        )
        return str(failure)


class LastReceiver:
    """Whom the server's end tells what happens."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.gone: Deferred[None] = Deferred()
        self.has_finished: Deferred[None] = Deferred()
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def has(self, count: int) -> Deferred[None]:
        waiter: Deferred[None] = Deferred()
        self._waiting.append((count, waiter))
        self.data_received(b"")
        return waiter

    def data_received(self, data: bytes) -> None:
        self.received += data
        for count, waiter in self._waiting:
            if len(self.received) >= count and not waiter.called:
                waiter.callback(None)

    def peer_finished(self) -> None:
        self.has_finished.callback(None)

    def connection_lost(self, reason: Failure) -> None:
        self.reason = reason
        self.gone.callback(None)
