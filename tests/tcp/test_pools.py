from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import capturedLogs

from tests.backends.pool.test_balance import order
from tests.support.mux import SSH, MuxTestCase, backend_at, server_at
from tests.support.peers import Peer, PeerFactory, listen, make_stalled_port, reactor
from tests.support.ports import free_port
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.backends.health.checking import CheckRun
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Check, Ejection, Server, ServerTLS

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


async def assert_served_by(test: MuxTestCase, factory: PeerFactory) -> None:
    count, before = len(factory.peers), len(test.records)
    client = await pool_client(test)
    await end_all(client, await factory.heard(1, count))
    await test.logged(before + 1)


class FailingTest(MuxTestCase):
    async def test_ejected_servers_are_tried_without_a_fallback(self) -> None:
        ports = [free_port(), free_port()]
        server = PeerFactory()
        serve_pool(self, backend_at(*ports, eject=AT_ONCE))
        with capturedLogs() as events:
            for _ in range(3):
                await assert_turned_away(self, reason="connect-refused")
                self.assertEqual(len(self.records[-1].facts["tried"].split(", ")), 2)
            listening = reactor.listenTCP(ports[1], server, interface="127.0.0.1")
            self.addCleanup(listening.stopListening)
            await assert_served_by(self, server)
            await assert_served_by(self, server)
        self.assertNotIn("tried", self.records[-1].facts)
        said = [event["log_format"] for event in events if "no server is up" in event["log_format"]]
        self.assertEqual(len(said), 1)

    async def test_names_that_are_still_looked_up(self) -> None:
        """No client waits for them as long as there is a server."""
        serve_pool(self, backend_at(self.backend_port(), tls=ServerTLS("a.example")))
        (upstream,) = self.factory.upstreams.all()
        upstream.first_look_ups = Deferred
        client = await pool_client(self)
        peer = await self.backend.heard(5)
        await peer.is_lost(client.reset)
        await self.logged()

    async def test_returning_server_is_probed_by_one_client_first(self) -> None:
        """Until then, clients go to the fallback."""
        port = free_port()
        spare = Backend("spare", (server_at(self.backend_port()),))
        serve_pool(self, backend_at(port, eject=AT_ONCE, fallback=spare))
        server = PeerFactory()
        with capturedLogs() as events:
            for _ in range(3):
                await assert_served_by(self, self.backend)
                listening = reactor.listenTCP(port, server, interface="127.0.0.1")
                self.time.advance(9.9)
                await assert_served_by(self, self.backend)
                self.time.advance(0.1)
                await assert_served_by(self, server)
                await assert_served_by(self, server)
                await maybeDeferred(listening.stopListening)
        states = [event["state"] for event in events if "state" in event]
        self.assertEqual(states, 3 * ["ejected", "probing", "up"])
        tried, at_once = self.records[:2]
        self.assertIn("tried", tried.facts)
        self.assert_story(at_once, backend="spare", reason="done", facts={})

    async def test_log_has_each_failed_attempt_and_no_byte_is_lost(self) -> None:
        refusing, stalled, good = free_port(), make_stalled_port(self), self.backend_port()
        serve_pool(self, backend_at(refusing, stalled, good))
        client = await pool_client(self, b"first ")
        await self.seen(6)
        await is_tried(self, stalled)
        client.send(b"second ")
        await self.seen(13)
        self.time.advance(5)
        peer = await self.backend.peer()
        await client.tell(peer, b"third", 18)
        self.assertEqual(bytes(peer.received), b"first second third")
        await end_all(client, peer)
        tried = f"{name(refusing)} connect-refused, {name(stalled)} connect-timeout"
        await self.assert_logged(reason="done", server=name(good), facts={"tried": tried})

    async def test_attempts_of_the_fallback_follow_those_of_the_backend(self) -> None:
        ports = [free_port() for _ in range(3)]
        fallback = Backend("other", (server_at(ports[1]), server_at(ports[2])))
        serve_pool(self, backend_at(ports[0], fallback=fallback))
        tried = {"tried": ", ".join(f"{name(port)} connect-refused" for port in ports)}
        await assert_turned_away(
            self, reason="connect-refused", backend="other", server=name(ports[2]), facts=tried
        )

    async def test_every_tried_server_gets_the_proxy_header_once(self) -> None:
        servers = [PeerFactory(), PeerFactory()]
        ports = [listen(self, factory) for factory in servers]
        serve_pool(self, backend_at(*ports, proxy_protocol="v1", tls=ServerTLS("a.example")))
        client = await pool_client(self)
        header = f"PROXY TCP4 127.0.0.1 127.0.0.1 {client.transport.getHost().port} {self.listening.getHost().port}\r\n"
        for factory in servers:
            peer = await factory.peer()
            await peer.has(len(header) + 5)
            await end_all(peer)
            said = bytes(peer.received)
            self.assertTrue(said.startswith(header.encode() + b"\x16\x03"))
            self.assertEqual(said.count(b"PROXY"), 1)
        await client.is_lost()
        tried = ", ".join(f"{name(port)} tls-failed" for port in ports)
        await self.assert_logged(reason="tls-failed", facts={"tried": tried})

    async def until(self, condition: Any, step: float = 0.1) -> None:
        while not condition():
            while self.is_checking():
                await self.turn()
            self.time.advance(step)
            await self.turn(3)

    def is_checking(self) -> bool:
        timers: Any = self.factory.runtime.clock.getDelayedCalls()
        late = CheckRun._too_late.__name__
        return any(getattr(timer.func, "__name__", "") == late for timer in timers)

    async def test_checked_server_goes_down_and_up_and_each_is_logged_once(self) -> None:
        ports = free_port(), listen(self, PeerFactory(Leaving))
        check = Check("tcp", interval=3.0, timeout=1.0, rise=2, fall=3)
        serve_pool(self, backend_at(*ports, check=check))
        (upstream,) = self.factory.upstreams.all()
        with capturedLogs() as events:
            await self.until(lambda: len(upstream.pool.tiers.usable[0]) == 1)
            for _ in range(4):
                count = len(self.records)
                await end_all(await pool_client(self))
                await self.until_logged(count + 1)
            self.assertEqual([record.facts for record in self.records], 4 * [{}])
            back = PeerFactory(Leaving)
            listening = reactor.listenTCP(ports[0], back, interface="127.0.0.1")
            self.addCleanup(listening.stopListening)
            await self.until(lambda: len(upstream.pool.tiers.usable[0]) == 2)
        reported = [(event["state"], event["server"]) for event in events if "state" in event]
        self.assertEqual(reported, [("down", name(ports[0])), ("up", name(ports[0]))])


class OptionsTest(MuxTestCase):
    async def test_hash_of_the_name_follows_the_documented_order(self) -> None:
        ports = [listen(self, PeerFactory(Leaving)) for _ in range(5)]
        servers = {name(port): 1 for port in ports}
        hosts = [f"{letter}.example.com" for letter in "abcdefgh"]
        web, tls, rest = (
            backend_at(*ports, balance=way) for way in ("host-hash", "sni-hash", "sni-hash")
        )
        self.mux([route("http", web), route("tls", tls), route("any", rest)])
        expected: list[str] = []
        for host in hosts:
            hello = records(client_hello(server_name(host)))
            for data in (f"GET / HTTP/1.1\r\nHost: {host.upper()}\r\n\r\n".encode(), hello):
                await end_all(await pool_client(self, data))
                await self.logged(len(expected) + 1)
                expected.append(order("sni-hash", host, servers)[0])
        await end_all(await pool_client(self, b"\0"))
        await self.logged(len(expected) + 1)
        expected.append(order("source-hash", "127.0.0.1", servers)[0])
        self.assertEqual([record.server for record in self.records], expected)
        self.assertGreater(len(set(expected)), 1)
        # Inside of TLS that ends here, nothing says another name.
        inner = attrs.evolve(route("ssh", rest, name="ssh"), under=("tls",))
        port = self.mux([self.tls.route(files=(self.tls.pem(*hosts),)), inner])
        for count, host in enumerate(hosts, len(expected) + 1):
            client = await self.tls.client(port, host)
            client.send(SSH)
            while not any(one.record.server for one in self.factory.connections):
                await self.turn()
            client.close()
            await self.logged(count)
            expected.append(order("sni-hash", host, servers)[0])
        self.assertEqual([record.server for record in self.records], expected)

    async def test_rate_each_way(self) -> None:
        """A tenth of a second's bytes come at once; how exact the rest is, the tests of the relay show."""
        rates = {"upload_rate": 60_000, "download_rate": 100_000}
        serve_pool(self, backend_at(self.backend_port(), **rates))
        client = await pool_client(self, bytes(100_000))
        peer = await self.backend.peer()
        peer.send(bytes(100_000))
        for seconds, up, down in ((0, 6_000, 10_000), (0.5, 36_000, 60_000)):
            for _ in range(round(seconds / 0.02)):
                self.time.advance(0.02)
                await self.turn(4)
            await peer.has(up)
            await client.has(down)
            await self.turn(20)
            self.assertEqual((len(peer.received), len(client.received)), (up, down))
        self.factory.abort("drained")
        await client.is_lost()
        await self.assert_ended(peer, reason="drained")

    async def test_address_with_the_port_of_the_client(self) -> None:
        serve_pool(self, Backend("b", (Server("127.0.0.2:{port}", "tcp", host="127.0.0.2"),)))
        port = self.listening.getHost().port
        listening = reactor.listenTCP(port, self.backend, interface="127.0.0.2")
        self.addCleanup(listening.stopListening)
        await self.connect(port, b"x")
        await self.backend.heard(1)


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
        """Without a queue, a client is refused at once."""
        client, peer = await self.full()
        await (await pool_client(self)).is_lost()
        await end_all(client, peer)
        await self.logged(2)
        self.assertEqual(self.records[0].reason, "limit")
        self.forget()
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

    async def test_client_that_has_waited_for_too_long_is_refused_or_goes_to_the_fallback(
        self,
    ) -> None:
        spare = PeerFactory()
        fallback = Backend("spare", (server_at(listen(self, spare)),))
        refused = {"reason": "limit", "backend": "backend", "server": None}
        served = {"reason": "done", "backend": "spare"}
        for settings, first in self.anew((({}, refused), ({"fallback": fallback}, served))):
            client, peer = await self.full(queue=5, connect_timeout=5.0, **settings)
            late = await self.waiting(b"late")
            self.time.advance(5)
            if settings:
                await end_all(late, await spare.heard(4))
            else:
                await late.is_lost()
            await end_all(client, peer)
            await self.logged(2)
            self.assert_story(self.records[0], **first)

    async def test_leaving_client_frees_its_place_whether_it_is_read_or_not(self) -> None:
        serve_pool(
            self, backend_at(self.backend_port(), max_connections=1, queue=1), peek_limit=1000
        )
        client = await pool_client(self, b"0")
        peer = await self.backend.peer()
        for number, (said, finishes) in enumerate(
            ((4, False), (1000, False), (4, True), (1000, True)), 1
        ):
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
        await self.logged(6)

    async def test_client_that_waits_for_another_server_blocks_nobody(self) -> None:
        main, other = PeerFactory(), PeerFactory()
        port = self.serve_two(other, eject=None)
        holder = await pool_client(self, b"h")  # tries the first in vain, and holds the second
        held = await other.peer()
        stuck = await pool_client(self, b"stuck")  # waits for the second
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
        """One server is full, and another, which is back, is out for ten seconds; a newcomer comes behind the queue."""
        for has_newcomer in self.anew((False, True)):
            main, other = PeerFactory(), PeerFactory()
            port = self.serve_two(other, connect_timeout=60.0, eject=AT_ONCE)
            holder = await pool_client(self, b"h")
            held = await other.peer()
            clients = [(await self.waiting(b"waits"), b"waits")]
            self.addCleanup(reactor.listenTCP(port, main, interface="127.0.0.1").stopListening)
            if has_newcomer:
                self.time.clock.rightNow += 10  # no timer has been run yet
                clients.append((await pool_client(self, b"newcomer"), b"newcomer"))
            else:
                self.time.advance(10)
            for number, (client, data) in enumerate(clients):
                peer = await main.peer(number)
                await peer.has(len(data))
                self.assertEqual(bytes(peer.received), data)
                await end_all(client, peer)
            await end_all(holder, held)
            await self.logged(1 + len(clients))

    def serve_two(self, other: PeerFactory, **settings: Any) -> int:
        """Lead clients to a server that is not there, at a port that is returned, and to another; each takes one."""
        port = free_port()
        both = (server_at(its) for its in (port, listen(self, other)))
        servers = tuple(attrs.evolve(one, max_connections=1) for one in both)
        serve_pool(self, Backend("b", servers, balance="first", queue=9, **settings))
        return port

    async def test_queue_is_refused_when_all_servers_go_down(self) -> None:
        check = Check("tcp", interval=3.0, timeout=1.0, rise=1, fall=1)
        client, peer = await self.full(queue=1, connect_timeout=500.0, check=check)
        waiter = await self.waiting(b"waits")
        [upstream] = self.factory.upstreams.all()
        upstream.pool.check_result(upstream.pool.members[0], ok=False, why="for the test")
        await waiter.is_lost()
        await end_all(client, peer)
        await self.until_logged(2)
        self.assert_story(self.records[0], reason="no-server", server=None)
