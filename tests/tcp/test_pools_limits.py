import select
from typing import Any

import attrs

from tests.support.mux import MuxTestCase, backend_at, server_at
from tests.support.peers import Peer, PeerFactory, listen, reactor
from tests.support.ports import free_port
from tests.tcp.pools_case import AT_ONCE, end_all, pool_client, serve_pool
from txmux.rules.model import Backend, Check


class QueueTest(MuxTestCase):
    async def full(self, **settings: Any) -> tuple[Peer, Peer]:
        serve_pool(self, backend_at(self.backend_port(), max_connections=1, **settings))
        return await pool_client(self, b"0"), await self.backend.peer()

    async def waiting(self, data: bytes) -> Peer:
        before, expected = self.queued(), len(data)
        client = await pool_client(self, data)
        while self.queued() <= before or not any(
            c.record.bytes_in == expected and c.record.server is None
            for c in self.factory.connections
        ):
            await self.turn()
        return client

    def queued(self) -> int:
        return sum(len(one.queue or ()) for one in self.factory.upstreams.all())

    async def test_queue_serves_in_order_and_refuses_beyond_its_length(self) -> None:
        client, peer = await self.full(queue=2)
        second = await self.waiting(b"22")
        third = await self.waiting(b"333")
        fourth = await pool_client(self, b"4")
        await fourth.is_lost()
        await self.until_logged()
        self.assertEqual((self.records[-1].reason, len(self.backend.peers)), ("limit", 1))
        for number, (waiter, data) in enumerate(((second, b"22"), (third, b"333")), start=1):
            await end_all(client, peer)
            peer, client = await self.backend.peer(number), waiter
            await peer.has(len(data))
            self.assertEqual(bytes(peer.received), data)
        await end_all(client, peer)
        await self.logged(4)
        self.assertEqual([record.reason for record in self.records], ["limit", *3 * ["done"]])

    async def test_client_that_has_waited_for_too_long_is_refused(self) -> None:
        client, peer = await self.full(queue=5)
        late = await self.waiting(b"late")
        self.time.advance(5)
        await late.is_lost()
        await end_all(client, peer)
        await self.logged(2)
        self.assert_story(self.records[0], reason="limit", backend="backend", server=None)

    async def test_wait_for_too_long_leads_to_the_fallback(self) -> None:
        spare = PeerFactory()
        fallback = Backend("spare", (server_at(listen(self, spare)),))
        client, peer = await self.full(queue=5, connect_timeout=1.0, fallback=fallback)
        late = await self.waiting(b"late")
        self.time.advance(1)
        other = await spare.peer()
        await other.has(4)
        await end_all(late, other)
        await end_all(client, peer)
        await self.logged(2)
        self.assert_story(self.records[0], reason="done", backend="spare")

    async def test_refuses_at_once_without_a_queue(self) -> None:
        client, peer = await self.full()
        other = await pool_client(self)
        await other.is_lost()
        await end_all(client, peer)
        await self.logged(2)
        self.assertEqual(self.records[0].reason, "limit")

    async def test_leaving_client_frees_its_place(self) -> None:
        client, peer = await self.full(queue=1)
        gone = await self.waiting(b"gone")
        gone.reset()
        await self.until_logged()
        self.assertEqual(self.records[0].reason, "client-gone")
        waiter = await self.waiting(b"stays")
        await end_all(client, peer)
        peer = await self.backend.heard(5, 1)
        self.assertEqual(bytes(peer.received), b"stays")
        await end_all(waiter, peer)
        await self.logged(3)

    async def test_leaving_client_that_is_not_read_frees_its_place(self) -> None:
        serve_pool(
            self, backend_at(self.backend_port(), max_connections=1, queue=1), peek_limit=1000
        )
        client = await pool_client(self, b"0")
        peer = await self.backend.peer()
        for number, (said, finishes) in enumerate(((1000, False), (4, True), (1000, True)), 1):
            gone = await self.waiting(b"x" * said)
            if finishes:
                gone.finish()
                await self.turn(3)
            gone.reset()
            await self.until_logged(number)
            self.assert_story(self.records[-1], reason="client-gone", bytes_in=said)
        waiter = await self.waiting(b"s" * 1500)
        await end_all(client, peer)
        peer = await self.backend.heard(1500, 1)
        await waiter.tell(peer, b"more", 1504)
        await end_all(waiter, peer)
        await self.logged(5)

    async def test_client_that_waits_for_another_server_blocks_nobody(self) -> None:
        main, other = PeerFactory(), PeerFactory()
        port = free_port()
        servers = (
            attrs.evolve(server_at(port), max_connections=1),
            attrs.evolve(server_at(listen(self, other)), max_connections=1),
        )
        serve_pool(self, Backend("b", servers, balance="first", queue=9, eject=None))
        holder = await pool_client(self, b"h")  # tries the first in vain, and holds the second
        held = await other.peer()
        stuck = await pool_client(
            self, b"stuck"
        )  # tries the first in vain, and waits for the second
        while not self.queued():
            await self.turn()
        self.addCleanup(reactor.listenTCP(port, main, interface="127.0.0.1").stopListening)
        first = await pool_client(self, b"first")
        peer = await main.peer()
        waiter = await self.waiting(b"waits")
        await end_all(first, peer)
        peer = await main.peer(1)
        await peer.has(5)
        self.assertEqual(bytes(peer.received), b"waits")
        newcomer = await self.waiting(b"newcomer")
        await end_all(waiter, peer)
        peer = await main.peer(2)
        await peer.has(8)
        await end_all(holder, held)
        last = await other.peer(1)
        await last.has(5)
        self.assertEqual(bytes(last.received), b"stuck")
        await end_all(newcomer, peer, stuck, last)
        await self.logged(5)

    async def test_end_of_an_ejection_serves_the_queue(self) -> None:
        waiter, main, others = await self.waiting_for_the_end_of_an_ejection()
        self.time.advance(10)
        peer = await main.peer()
        await peer.has(5)
        self.assertEqual(bytes(peer.received), b"waits")
        await end_all(waiter, peer, *others)
        await self.logged(2)

    async def test_newcomer_comes_behind_the_queue(self) -> None:
        waiter, main, others = await self.waiting_for_the_end_of_an_ejection()
        self.time.clock.rightNow += 10  # no timer has been run yet
        newcomer = await pool_client(self, b"newcomer")
        for number, (client, data) in enumerate(((waiter, b"waits"), (newcomer, b"newcomer"))):
            peer = await main.peer(number)
            await peer.has(len(data))
            self.assertEqual(bytes(peer.received), data)
            await end_all(client, peer)
        await end_all(*others)
        await self.logged(3)

    async def waiting_for_the_end_of_an_ejection(self) -> tuple[Peer, PeerFactory, list[Peer]]:
        """Let a client wait while one server is full and another, which is back, is out for ten seconds."""
        main, other = PeerFactory(), PeerFactory()
        port = free_port()
        servers = (
            attrs.evolve(server_at(port), max_connections=1),
            attrs.evolve(server_at(listen(self, other)), max_connections=1),
        )
        serve_pool(
            self,
            Backend("b", servers, balance="first", queue=9, connect_timeout=60.0, eject=AT_ONCE),
        )
        holder = await pool_client(self, b"h")
        held = await other.peer()
        waiter = await self.waiting(b"waits")
        self.addCleanup(reactor.listenTCP(port, main, interface="127.0.0.1").stopListening)
        return waiter, main, [holder, held]

    async def test_queue_is_refused_when_all_servers_go_down(self) -> None:
        check = Check("tcp", interval=3.0, timeout=1.0, rise=1, fall=1)
        client, peer = await self.full(queue=1, connect_timeout=500.0, check=check)
        waiter = await self.waiting(b"waits")
        backend = next(iter(self.factory.upstreams.all())).backend
        member = self.factory.upstreams.upstream_of(backend).pool.members[0]
        self.factory.upstreams.upstream_of(backend).pool.check_result(
            member, ok=False, why="for the test"
        )
        await waiter.is_lost()
        await end_all(client, peer)
        await self.until_logged(2)
        self.assertEqual(self.records[0].reason, "no-server")


class RatesTest(MuxTestCase):
    async def test_rate_is_within_5_percent_each_way(self) -> None:
        up, down = 60_000, 100_000
        serve_pool(self, backend_at(self.backend_port(), upload_rate=up, download_rate=down))
        client = await pool_client(self, bytes(2 * 10 * up))
        peer = await self.backend.peer()
        peer.send(bytes(2 * 10 * down))
        await peer.has(1)
        await client.has(1)
        (connection,) = self.factory.connections
        relay: Any = connection.stage.relay
        for _ in range(500):
            for end in (connection.transport, relay.server.transport):
                # What has not come yet would be more than the rate later.
                while not select.select([end.getHandle()], (), (), 0)[0]:
                    await self.turn()
            self.time.advance(0.02)
            await self.turn(4)
        await peer.has(int(0.95 * 10 * up) + 1)
        await client.has(int(0.95 * 10 * down) + 1)
        await self.turn(50)
        self.assertLess(abs(len(peer.received) - 10 * up), 0.05 * 10 * up)
        self.assertLess(abs(len(client.received) - 10 * down), 0.05 * 10 * down)
        self.factory.abort("drained")
        await client.is_lost()
        await peer.is_lost()
        await self.logged()
