"""Connections go on in another process; here, both are in one, with a channel between them."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import connect, reactor
from txmux.embedding import route
from txmux.frontend.engine import Engine
from txmux.frontend.listener import MuxFactory
from txmux.processes import handover
from txmux.processes.channel import Channel, attach
from txmux.processes.handover import Adopting, hand_over
from txmux.relay.kernel import is_supported

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.peers import Peer
    from txmux.frontend.connection import MuxProtocol


def descriptors() -> int:
    """Count the sockets that this process has open."""
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that the list is read with
            count += str(path.readlink()).startswith("socket:")
    return count


class HandoverTest(MuxTestCase):
    """From one listener to another."""

    skip = None if is_supported() else "these need Linux"

    async def relayed(self, count: int = 1) -> list[tuple[Peer, Peer]]:
        """Have connections relayed, and give the peers of each."""
        self.backend_settings = backend_at(self.backend_port())
        routes = [route("ssh", self.backend_settings, name="ssh")]
        port = self.mux(routes)
        peers = []
        for number in range(count):
            client = await connect(self, port)
            client.send(b"SSH-2.0-a\r\n")
            server = await self.backend.peer(number)
            await server.has(11)
            peers.append((client, server))
        self.old = self.factory
        self.new = MuxFactory(
            routes, self.old.generation.settings, access_log=self.log, reactor=self.time
        )
        self.sockets = descriptors()
        return peers

    def channel_to(
        self, handlers: dict[str, Callable[..., object]], lost: Callable[[], object]
    ) -> Channel:
        """Give the old process's end of a channel to one that does this."""
        one, other = socket.socketpair()
        time: Any = self.time
        here = Channel({}, lambda: None, time)
        self.there = Channel(handlers, lost, reactor)
        attach(reactor, self.there, other)
        attach(reactor, here, one)
        ended: Deferred[None] = Deferred()
        here._lost = lambda: ended.callback(None)

        def end() -> Deferred[None]:
            here.close()
            return ended

        self.addCleanup(end)
        return here

    def adopting(self, **changed: Callable[..., object]) -> Channel:
        """Give a channel to a process that adopts, but for some of what it does."""
        adopting = Adopting(lambda _: self.new)
        self.does = adopting.handlers
        return self.channel_to({**adopting.handlers, **changed}, adopting.lost)

    async def hand(self, *channels: Channel) -> int:
        """Hand all over."""
        return await hand_over(list(self.old.connections), channels)

    async def assert_go_on(self, peers: list[tuple[Peer, Peer]], where: MuxFactory) -> None:
        """Let all say something each way, and end; each is logged once, with all its bytes."""
        self.assertEqual(len(where.connections), len(peers))
        for client, server in peers:
            client.send(b"more")
            server.send(b"answer")
        for client, server in peers:
            await server.has(15)
            await client.has(6)
            client.close()
            await server.is_lost()
            self.assertEqual((server.received, client.received), (b"SSH-2.0-a\r\nmore", b"answer"))
        await self.logged(len(peers))
        stories = {(one.bytes_in, one.bytes_out, one.reason) for one in self.records}
        self.assertEqual(stories, {(15, 6, "done")})
        self.assertEqual(len({one.id for one in self.records}), len(peers))

    async def test_all_move(self) -> None:
        """They move in batches, over several channels; the old process has nothing of them any more."""
        self.patch(handover, "_BATCH", 3)
        peers = await self.relayed(10)
        channels = [self.adopting(), self.adopting()]
        self.assertEqual(await self.hand(*channels), 10)
        self.assertEqual(self.old.connections, set())
        self.assertEqual(descriptors(), self.sockets + 4)
        await self.assert_go_on(peers, self.new)

    async def test_batches_of_bytes(self) -> None:
        """A connection that holds many bytes is the last of its batch."""
        self.patch(handover, "_HELD", 1)
        peers = await self.relayed(2)
        client, server = peers[0]
        server.transport.pauseProducing()
        client.send(b"x" * 2**23)
        port = f":{client.transport.getHost().port}"
        (first,) = (one for one in self.old.connections if one.record.client.endswith(port))
        while not self.held(first):
            await self.turn()
        sizes: list[int] = []
        channel = self.adopting()
        adopt: Any = self.does["adopt"]

        def counted(connections: Any, descriptors: Any) -> object:
            sizes.append(len(connections))
            return adopt(connections, descriptors)

        self.there.handlers["adopt"] = counted
        self.assertEqual(await hand_over([first, *(self.old.connections - {first})], [channel]), 2)
        self.assertEqual(sizes, [1, 1])
        server.transport.resumeProducing()
        await server.has(11 + 2**23)
        for client, server in peers:
            client.close()
            await server.is_lost()
        await self.logged(2)

    def held(self, connection: MuxProtocol) -> bytes:
        """Give what the server of a connection has not taken."""
        suspended = connection.suspend()
        assert suspended is not None
        connection.resume(suspended[0])
        return suspended[0].relay.server.held

    async def test_refused(self) -> None:
        """Those that the new process cannot take go on in the old one."""
        peers = await self.relayed(2)
        self.new = MuxFactory([], engine=Engine(self.time, "portable"))
        self.assertEqual(await self.hand(self.adopting()), 0)
        await self.assert_go_on(peers, self.old)

    async def test_no_answer(self) -> None:
        """If no answer comes, the old process goes on, and the new one does not, whenever it answers."""
        peers = await self.relayed(2)
        asked: Deferred[None] = Deferred()
        answer: Deferred[object] = Deferred()
        adopt: Any = None

        def late(connections: Any, descriptors: Any) -> Deferred[object]:
            answer.addCallback(lambda _: adopt(connections, descriptors))
            asked.callback(None)
            return answer

        channel = self.adopting(adopt=late)
        adopt = self.does["adopt"]
        handing = Deferred.fromCoroutine(self.hand(channel))
        await asked
        self.time.advance(10)
        self.assertEqual(await handing, 0)
        await self.turn(5)
        answer.callback(None)
        await self.turn(5)
        channel.close()
        while self.there.is_open:
            await self.turn()
        self.assertEqual(self.new.connections, set())
        self.assertEqual(descriptors(), self.sockets)
        await self.assert_go_on(peers, self.old)

    async def test_new_is_lost(self) -> None:
        """If the new process ends instead of answering, the old one goes on."""
        peers = await self.relayed(2)
        channel = self.adopting()
        self.there.handlers["adopt"] = self.there.transport.abortConnection
        self.assertEqual(await self.hand(channel), 0)
        await self.assert_go_on(peers, self.old)

    async def test_old_is_lost(self) -> None:
        """If the old process ends before it has said who goes on, the new one lets go: nobody knows what the old one has done."""
        peers = await self.relayed(1)
        channel = self.adopting()
        adopt: Any = self.does["adopt"]

        def adopted(connections: Any, descriptors: Any) -> object:
            answer = adopt(connections, descriptors)
            self.there.transport.abortConnection()
            return answer

        self.there.handlers["adopt"] = adopted
        self.assertEqual(await self.hand(channel), 0)
        self.assertEqual(self.new.connections, set())
        await self.turn(5)
        self.assertEqual(descriptors(), self.sockets)
        await self.assert_go_on(peers, self.old)

    async def test_ended_meanwhile(self) -> None:
        """One that is ended while it is suspended is not moved, and is logged here."""
        peers = await self.relayed(2)
        one, other = self.old.connections
        channel = self.adopting()
        adopt: Any = self.does["adopt"]

        def adopted(connections: Any, descriptors: Any) -> object:
            one.stage.abort("killed")
            return adopt(connections, descriptors)

        self.there.handlers["adopt"] = adopted
        self.assertEqual(await self.hand(channel), 1)
        self.assertEqual([record.reason for record in self.records], ["killed"])
        (moved,) = self.new.connections
        self.assertEqual(moved.record.id, other.record.id)
        for client, server in peers:
            if client.lost is None:
                client.close()
            await server.is_lost()
        await self.logged(2)
        self.assertEqual({record.reason for record in self.records}, {"killed", "done"})

    async def test_garbage(self) -> None:
        """What is told of a connection by a version that has too little is not taken; the rest is."""
        peers = await self.relayed(2)
        channel = self.adopting()
        adopt: Any = self.does["adopt"]

        def spoilt(connections: Any, descriptors: Any) -> object:
            del connections[0]["relay"]["quiet"]
            return adopt(connections, descriptors)

        self.there.handlers["adopt"] = spoilt
        self.assertEqual(await self.hand(channel), 1)
        self.assertEqual((len(self.old.connections), len(self.new.connections)), (1, 1))
        for client, server in peers:
            client.send(b"more")
            await server.has(15)
            client.close()
            await server.is_lost()
        await self.logged(2)

    async def test_nobody(self) -> None:
        """Without connections, or with nobody there, nothing happens."""
        peers = await self.relayed(1)
        channel = self.adopting()
        channel.close()
        while channel.is_open:
            await self.turn()
        self.assertEqual(await self.hand(channel), 0)
        await self.assert_go_on(peers, self.old)
        self.assertEqual(await hand_over([], [channel]), 0)
