"""A test case with servers that speak first."""

from typing import Any

import attrs
from twisted.internet.defer import Deferred

from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import Peer, PeerFactory, close, listen
from txmux.rules.model import Backend
from txmux.telemetry.record import ConnectionRecord

GREETING = b"220 mail.example ESMTP\r\n"


class Greeter(Peer):
    def connectionMade(self) -> None:
        super().connectionMade()
        self.send(GREETING)


class ServerFirstCase(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.greeter = PeerFactory(Greeter)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.all_gone()))

    async def all_gone(self) -> None:
        for peer in (*self.greeter.peers, *self.backend.peers):
            if peer.lost is None:
                peer.reset()
                await peer.is_lost()
        while self.factory.connections:
            await self.turn()

    def greeting(self, **settings: Any) -> Backend:
        return attrs.evolve(backend_at(listen(self, self.greeter), **settings), name="greeter")

    async def greeted(self, client: Peer, more: bytes = b"", *, after: float = 0.0) -> None:
        if after:
            self.time.advance(after)
        await client.has(len(GREETING + more))
        self.assertEqual(bytes(client.received), GREETING + more)

    async def ended(self, client: Peer, server: Peer) -> ConnectionRecord:
        close(client, server)
        return await self.logged()

    def assert_nobody_counted(self) -> None:
        for upstream in self.factory.upstreams._upstreams.values():
            for member in upstream.pool.members:
                self.assertEqual((member.connections, list(member.health.failed_at)), (0, []))
            self.assertEqual(upstream.pool.connections, 0)
