"""A test case with clients of one backend that has several servers."""

from typing import Any

from tests.support.mux import MuxTestCase
from tests.support.peers import Peer, PeerFactory, reactor
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Ejection
from txmux.telemetry.record import ConnectionRecord

AT_ONCE = Ejection(failures=1, within=10.0, seconds=10.0, lone=True)


def name(port: int) -> str:
    return f"127.0.0.1:{port}"


class Leaving(Peer):
    """A server that closes when its client has finished."""

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.close()


class PoolCase(MuxTestCase):
    def serve(self, backend: Backend, **settings: Any) -> None:
        self.port = self.mux([route("any", backend)], **settings)

    async def logged(self, count: int = 1) -> ConnectionRecord:
        """Wait as usual, and see that pools count nobody who is gone."""
        record = await super().logged(count)
        if not self.factory.connections:
            for upstream in self.factory.upstreams._upstreams.values():
                counted = [member.connections for member in upstream.pool.members]
                self.assertEqual((upstream.pool.connections, sum(counted)), (0, 0))
                self.assertEqual(len(upstream.queue or ()), 0)
        return record

    async def tries(self, port: int) -> None:
        text = name(port)
        while not any(
            member.target.text == text and member.connections
            for upstream in self.factory.upstreams._upstreams.values()
            for member in upstream.pool.members
        ):
            await self.turn()

    async def client(self, data: bytes = b"x") -> Peer:
        return await self.connect(self.port, data)

    async def finish(self, *ends: Peer) -> None:
        for end in ends:
            end.close()
        for end in ends:
            await end.is_lost()

    async def turned_away(self, **expected: Any) -> None:
        """Find that a client is turned away without any time that passes, and how this is logged."""
        before = len(self.records)
        await (await self.client()).is_lost()
        await self.assert_logged(before + 1, **expected)

    async def served_by(self, factory: PeerFactory, data: bytes = b"x") -> None:
        count, before = len(factory.peers), len(self.records)
        client = await self.client(data)
        peer = await factory.peer(count)
        await peer.has(len(data))
        await self.finish(client, peer)
        await self.logged(before + 1)

    async def listen_again(self, factory: PeerFactory, port: int) -> Any:
        return reactor.listenTCP(port, factory, interface="127.0.0.1")
