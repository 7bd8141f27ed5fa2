from typing import Any

from tests.support.mux import MuxTestCase
from tests.support.peers import Peer, PeerFactory
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Ejection

AT_ONCE = Ejection(failures=1, within=10.0, seconds=10.0, lone=True)


def name(port: int) -> str:
    return f"127.0.0.1:{port}"


class Leaving(Peer):
    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.close()


def serve_pool(test: MuxTestCase, backend: Backend, **settings: Any) -> None:
    test.mux([route("any", backend)], **settings)


async def is_tried(test: MuxTestCase, port: int) -> None:
    text = name(port)
    while not any(
        member.target.text == text and member.connections
        for upstream in test.factory.upstreams.all()
        for member in upstream.pool.members
    ):
        await test.turn()


async def pool_client(test: MuxTestCase, data: bytes = b"x") -> Peer:
    return await test.connect(test.listening.getHost().port, data)


async def end_all(*ends: Peer) -> None:
    for end in ends:
        end.close()
    for end in ends:
        await end.is_lost()


async def assert_turned_away(test: MuxTestCase, **expected: Any) -> None:
    """Find that a client is turned away without any time that passes, and how this is logged."""
    before = len(test.records)
    await (await pool_client(test)).is_lost()
    await test.assert_logged(before + 1, **expected)


async def assert_served_by(test: MuxTestCase, factory: PeerFactory, data: bytes = b"x") -> None:
    count, before = len(factory.peers), len(test.records)
    client = await pool_client(test, data)
    peer = await factory.peer(count)
    await peer.has(len(data))
    await end_all(client, peer)
    await test.logged(before + 1)
