"""Backends with several servers, of which some fail: real sockets, and a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import maybeDeferred
from twisted.logger import capturedLogs

from tests.frontend.test_connecting import free_port
from tests.support.mux import RESET, MuxTestCase, backend_at, server_at
from tests.support.peers import Peer, PeerFactory, listen, make_stalled_port, reactor
from txmux.embedding import route
from txmux.rules.backend_model import Check, Ejection, ServerTLS
from txmux.rules.model import Backend

if TYPE_CHECKING:
    from txmux.observe.record import ConnectionRecord

_AT_ONCE = Ejection(failures=1, within=10.0, seconds=10.0, lone=True)


def name(port: int) -> str:
    """Name a server as the access log does."""
    return f"127.0.0.1:{port}"


class Leaving(Peer):
    """A server that closes when its client has finished."""

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.close()


class PoolCase(MuxTestCase):
    """Clients of one backend."""

    def serve(self, backend: Backend) -> None:
        """Lead every client that speaks to a backend."""
        self.port = self.mux([route("any", backend)])

    async def logged(self, count: int = 1) -> ConnectionRecord:
        """Wait as usual, and see that pools count nobody who is gone."""
        record = await super().logged(count)
        if not self.factory.connections:
            for upstream in self.factory.upstreams._upstreams.values():
                counted = [member.connections for member in upstream.pool.members]
                self.assertEqual((upstream.pool.connections, sum(counted)), (0, 0))
                self.assertEqual(len(upstream.queue or ()), 0)
        return record

    async def client(self, data: bytes = b"x") -> Peer:
        """Connect a client, which says something."""
        peer = await self.connect(self.port)
        peer.send(data)
        return peer

    async def finish(self, *ends: Peer) -> None:
        """Close connections, and wait until they are gone."""
        for end in ends:
            end.close()
        for end in ends:
            await end.is_lost()

    async def turned_away(self, **wanted: Any) -> None:
        """Find that a client is turned away without any time that passes, and how this is logged."""
        before = len(self.records)
        await (await self.client()).is_lost()
        self.assert_story(await self.logged(before + 1), **wanted)

    async def served_by(self, factory: PeerFactory, data: bytes = b"x") -> None:
        """Find that a client is led to a server, and let both go."""
        count, before = len(factory.peers), len(self.records)
        client = await self.client(data)
        peer = await factory.peer(count)
        await peer.has(len(data))
        await self.finish(client, peer)
        await self.logged(before + 1)

    async def listen_again(self, factory: PeerFactory, port: int) -> Any:
        """Listen at a port that has been found to be free."""
        return reactor.listenTCP(port, factory, interface="127.0.0.1")


class AttemptsTest(PoolCase):
    """One client, and several servers that are tried for it."""

    async def test_each_attempt(self) -> None:
        """One refuses, one hangs, the third gets all bytes; the log tells all three."""
        refusing, stalled, good = free_port(), make_stalled_port(self), self.backend_port()
        self.serve(backend_at(refusing, stalled, good))
        client = await self.client(b"first ")
        await self.seen(6)
        await self.turn(3)
        client.send(b"second ")
        await self.seen(13)
        self.time.advance(5)
        peer = await self.backend.peer()
        client.send(b"third")
        await peer.has(18)
        self.assertEqual(bytes(peer.received), b"first second third")
        await self.finish(client, peer)
        self.assert_story(
            await self.logged(),
            reason="done",
            server=name(good),
            facts={"tried": f"{name(refusing)} connect-refused, {name(stalled)} connect-timeout"},
        )

    async def test_facts_are_of_one_connection(self) -> None:
        """What was tried for one client is not told of the next one."""
        refusing = free_port()
        self.serve(backend_at(refusing, self.backend_port(), eject=_AT_ONCE))
        await self.served_by(self.backend)
        await self.served_by(self.backend)
        first, second = self.records
        self.assertEqual(first.facts, {"tried": f"{name(refusing)} connect-refused"})
        self.assertEqual(second.facts, {})

    async def test_attempts_of_a_fallback(self) -> None:
        """Those of the backend come first, then those of its fallback."""
        ports = [free_port() for _ in range(3)]
        fallback = Backend("other", (server_at(ports[1]), server_at(ports[2])))
        self.serve(backend_at(ports[0], fallback=fallback))
        await self.turned_away(
            reason="connect-refused",
            backend="other",
            server=name(ports[2]),
            facts={"tried": ", ".join(f"{name(port)} connect-refused" for port in ports)},
        )

    async def test_header_for_each(self) -> None:
        """Each server that is tried gets the PROXY header, once, and the next ones as well."""
        servers = [PeerFactory(), PeerFactory()]
        ports = [listen(self, factory) for factory in servers]
        self.serve(backend_at(*ports, proxy_protocol="v1", tls=ServerTLS("a.example")))
        client = await self.client()
        header = f"PROXY TCP4 127.0.0.1 127.0.0.1 {client.transport.getHost().port} {self.port}\r\n"
        for factory in servers:
            peer = await factory.peer()
            await peer.has(len(header) + 5)
            await self.finish(peer)
            said = bytes(peer.received)
            self.assertTrue(said.startswith(header.encode() + b"\x16\x03"))
            self.assertEqual(said.count(b"PROXY"), 1)
        await client.is_lost()
        tried = ", ".join(f"{name(port)} tls-failed" for port in ports)
        self.assert_story(await self.logged(), reason="tls-failed", facts={"tried": tried})

    async def test_first_byte_later(self) -> None:
        """A client whose bytes come only when the second server is tried loses none either."""
        self.port = self.mux(silent=backend_at(make_stalled_port(self), self.backend_port()))
        client = await self.connect(self.port)
        await self.until_connected()
        self.time.advance(5)
        client.send(b"late")
        await self.seen(4)
        self.time.advance(5)
        peer = await self.backend.peer()
        await peer.has(4)
        self.assertEqual(bytes(peer.received), b"late")
        await self.finish(client, peer)
        await self.logged()

    async def until_connected(self) -> None:
        """Wait until the client has been accepted."""
        while not self.factory.connections:
            await self.turn()


class FailingTest(PoolCase):
    """Servers that stay away, and what becomes of the clients that come meanwhile."""

    async def test_all_out(self) -> None:
        """When all are known to be out, a client is closed at once, and no server is asked."""
        stalled = [make_stalled_port(self), make_stalled_port(self)]
        self.serve(backend_at(*stalled, eject=_AT_ONCE))
        client = await self.client()
        await self.seen(1)
        for _ in stalled:
            await self.turn(3)
            self.time.advance(5)
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-timeout", server=name(stalled[1]))
        await self.turned_away(reason="no-server", server=None, backend="backend", facts={})
        self.assertEqual(self.records[-1].duration_ms, 0.0)

    async def test_fallback(self) -> None:
        """With a fallback it is led there, at once as well."""
        fallback = Backend("spare", (server_at(self.backend_port()),))
        self.serve(backend_at(free_port(), eject=_AT_ONCE, fallback=fallback))
        for _ in range(2):
            await self.served_by(self.backend)
        tried, at_once = self.records
        self.assertIn("tried", tried.facts)
        self.assert_story(at_once, backend="spare", reason="done", facts={})

    async def test_fallback_reset(self) -> None:
        """A fallback may be to break the connection off."""
        self.serve(backend_at(free_port(), eject=_AT_ONCE, fallback=RESET))
        await self.turned_away(reason="connect-refused")
        client = await self.client()
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assertEqual((await self.logged(2)).reason, "no-server")

    async def test_flapping(self) -> None:
        """A server that comes and goes is out for a while, is tried by one client, and is back."""
        port = free_port()
        self.serve(backend_at(port, eject=_AT_ONCE))
        server = PeerFactory()
        with capturedLogs() as events:
            for _ in range(3):
                await self.turned_away(reason="connect-refused")
                listening = await self.listen_again(server, port)
                self.time.advance(9.9)
                await self.turned_away(reason="no-server")
                self.time.advance(0.1)
                await self.served_by(server)
                await self.served_by(server)
                await maybeDeferred(listening.stopListening)
        states = [event["state"] for event in events if "state" in event]
        self.assertEqual(states, 3 * ["ejected", "probing", "up"])

    async def test_one_client_tries(self) -> None:
        """While one client tries whether a server is back, others are led elsewhere or away."""
        stalled = make_stalled_port(self)
        self.serve(backend_at(stalled, eject=_AT_ONCE))
        first = await self.client()
        await self.seen(1)
        self.time.advance(5)
        await first.is_lost()
        self.time.advance(10)
        second = await self.client()
        await self.seen(1)
        await self.turned_away_beside(1, reason="no-server")
        self.time.advance(5)
        await second.is_lost()
        self.assertEqual((await self.logged(3)).reason, "connect-timeout")
        self.time.advance(9.9)
        await self.turned_away(reason="no-server")

    async def turned_away_beside(self, before: int, **wanted: Any) -> None:
        """Find the same while another client still waits."""
        await (await self.client()).is_lost()
        while len(self.records) == before:
            await self.turn()
        self.assert_story(self.records[-1], **wanted)

    async def test_one_of_two(self) -> None:
        """A server that is out costs its clients nothing; the others have them."""
        stalled = make_stalled_port(self)
        self.serve(backend_at(stalled, self.backend_port(), eject=_AT_ONCE))
        client = await self.client()
        await self.seen(1)
        await self.turn(3)
        self.time.advance(5)
        peer = await self.backend.peer()
        await self.finish(client, peer)
        await self.logged()
        for _ in range(4):
            await self.served_by(self.backend)
        self.assertEqual([record.facts for record in self.records[1:]], 4 * [{}])

    async def test_lone_server(self) -> None:
        """The only server is asked for every client, unless the rules say otherwise."""
        self.serve(backend_at(free_port()))
        for _ in range(6):
            await self.turned_away(reason="connect-refused")

    async def test_backup(self) -> None:
        """A backup server serves when no other is left."""
        main, spare = PeerFactory(), PeerFactory()
        port = free_port()

        backup = attrs.evolve(server_at(listen(self, spare)), backup=True)
        self.serve(Backend("b", (backup, server_at(port)), eject=_AT_ONCE))
        await self.served_by(spare)
        listening = await self.listen_again(main, port)
        self.addCleanup(listening.stopListening)
        await self.served_by(spare)
        self.time.advance(10)
        await self.served_by(main)
        await self.served_by(main)


class BrokenTest(PoolCase):
    """Servers that can be connected, and are of no use."""

    async def test_never_answers(self) -> None:
        """It holds its client until the idle time-out; the others are served meanwhile."""
        mute = PeerFactory()
        self.serve(backend_at(listen(self, mute), self.backend_port(), idle_timeout=60.0))
        client = await self.client()
        held = await mute.peer()
        await held.has(1)
        other = await self.client()
        peer = await self.backend.peer()
        peer.send(b"answer")
        await other.has(6)
        await self.finish(other, peer)
        await self.logged()
        self.time.advance(60)
        await client.is_lost()
        self.assert_story(await self.logged(2), reason="idle-timeout")

    async def test_breaks_off(self) -> None:
        """One that breaks off in the middle costs that client, and nobody else."""
        bad = PeerFactory()
        self.serve(backend_at(listen(self, bad), self.backend_port()))
        client = await self.client()
        peer = await bad.peer()
        peer.send(b"half an ans")
        await client.has(11)
        peer.reset()
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="server-reset", bytes_out=11)
        await self.served_by(self.backend)


class QueueTest(PoolCase):
    """A backend that takes only so many at a time."""

    async def full(self, **settings: Any) -> tuple[Peer, Peer]:
        """Serve with room for one, and let it be taken."""
        self.serve(backend_at(self.backend_port(), max_connections=1, **settings))
        client = await self.client(b"0")
        return client, await self.backend.peer()

    async def waiting(self, data: bytes) -> Peer:
        """Connect a client, which is heard, but not served."""
        client = await self.client(data)
        wanted = len(data)
        while not any(
            c.record.bytes_in == wanted and c.record.server is None
            for c in self.factory.connections
        ):
            await self.turn()
        await self.turn(3)
        return client

    async def test_order(self) -> None:
        """Who waits is served in the order of arrival, with all bytes, and whoever finds the queue full is not."""
        client, peer = await self.full(queue=2)
        second = await self.waiting(b"22")
        third = await self.waiting(b"333")
        fourth = await self.client(b"4")
        await fourth.is_lost()
        while not self.records:
            await self.turn()
        self.assertEqual(self.records[-1].reason, "limit")
        self.assertEqual(len(self.backend.peers), 1)
        for number, (waiter, data) in enumerate(((second, b"22"), (third, b"333")), start=1):
            await self.finish(client, peer)
            peer, client = await self.backend.peer(number), waiter
            await peer.has(len(data))
            self.assertEqual(bytes(peer.received), data)
        await self.finish(client, peer)
        await self.logged(4)
        self.assertEqual([record.reason for record in self.records], ["limit", *3 * ["done"]])

    async def test_too_late(self) -> None:
        """Who has waited for too long is turned away."""
        client, peer = await self.full(queue=5)
        late = await self.waiting(b"late")
        self.time.advance(5)
        await late.is_lost()
        await self.finish(client, peer)
        await self.logged(2)
        self.assert_story(self.records[0], reason="limit", backend="backend", server=None)

    async def test_fallback(self) -> None:
        """Or is led to the fallback."""
        spare = PeerFactory()
        fallback = Backend("spare", (server_at(listen(self, spare)),))
        client, peer = await self.full(queue=5, queue_timeout=1.0, fallback=fallback)
        late = await self.waiting(b"late")
        self.time.advance(1)
        other = await spare.peer()
        await other.has(4)
        await self.finish(late, other)
        await self.finish(client, peer)
        await self.logged(2)
        self.assert_story(self.records[0], reason="done", backend="spare")

    async def test_no_queue(self) -> None:
        """Without a queue nobody waits."""
        client, peer = await self.full()
        other = await self.client()
        await other.is_lost()
        await self.finish(client, peer)
        await self.logged(2)
        self.assertEqual(self.records[0].reason, "limit")

    async def test_leaves(self) -> None:
        """Who leaves the queue makes room in it, and is not served."""
        client, peer = await self.full(queue=1)
        gone = await self.waiting(b"gone")
        gone.reset()
        while not self.records:
            await self.turn()
        self.assertEqual(self.records[0].reason, "client-gone")
        waiter = await self.waiting(b"stays")
        await self.finish(client, peer)
        peer = await self.backend.peer(1)
        await peer.has(5)
        self.assertEqual(bytes(peer.received), b"stays")
        await self.finish(waiter, peer)
        await self.logged(3)

    async def test_of_a_server(self) -> None:
        """So it is with the limits of servers: one that is free again takes who waits."""
        factories = [PeerFactory(), PeerFactory()]
        servers = tuple(
            attrs.evolve(server_at(listen(self, factory)), max_connections=1)
            for factory in factories
        )
        self.serve(Backend("b", servers, queue=3))
        clients = [await self.client(b"a"), await self.client(b"b")]
        peers = [await factory.peer() for factory in factories]
        waiter = await self.waiting(b"ccc")
        await self.finish(clients[1], peers[1])
        peer = await factories[1].peer(1)
        await peer.has(3)
        await self.finish(waiter, peer, clients[0], peers[0])
        await self.logged(3)

    async def test_all_go_down(self) -> None:
        """Who waits hears at once that there is nothing to wait for any more."""
        check = Check("tcp", interval=3.0, timeout=1.0, rise=1, fall=1)
        client, peer = await self.full(queue=1, queue_timeout=500.0, check=check)
        waiter = await self.waiting(b"waits")
        backend = next(iter(self.factory.upstreams._upstreams.values())).backend
        member = self.factory.upstreams.of(backend).pool.members[0]
        self.factory.upstreams.of(backend).pool.check_result(member, ok=False, why="for the test")
        await waiter.is_lost()
        await self.finish(client, peer)
        while len(self.records) < 2:
            await self.turn()
        self.assertEqual(self.records[0].reason, "no-server")


class GoneTest(PoolCase):
    """Clients that leave while a server is being connected."""

    async def leave(self, backend: Backend, ready: Any) -> None:
        """Come, wait for something, and break off."""
        self.serve(backend)
        client = await self.client()
        await self.seen(1)
        await ready()
        client.reset()
        self.assert_story(await self.logged(), reason="client-gone")

    async def test_dialling(self) -> None:
        """While it is being dialled."""
        await self.leave(backend_at(make_stalled_port(self)), self.turn)

    async def test_handshaking(self) -> None:
        """While it shakes hands."""
        mute = PeerFactory()
        port = listen(self, mute)
        await self.leave(backend_at(port, tls=ServerTLS("a.example")), mute.peer)
        await mute.peers[0].is_lost()

    async def test_probing(self) -> None:
        """While it tries whether a server is back, which another client then does."""
        port = free_port()
        backend = backend_at(port, eject=_AT_ONCE, tls=ServerTLS("a.example"))
        self.serve(backend)
        await self.turned_away(reason="connect-refused")
        self.time.advance(10)
        mute = PeerFactory()
        listening = await self.listen_again(mute, port)
        self.addCleanup(listening.stopListening)
        for number in range(2):
            client = await self.client()
            await mute.peer(number)
            client.reset()
            self.assert_story(await self.logged(number + 2), reason="client-gone")


class ShareTest(PoolCase):
    """Who gets how many."""

    async def test_weights(self) -> None:
        """Weights of 3 and 1 are three connections and one, and all is evenly mixed."""
        ports = [listen(self, PeerFactory(Leaving)) for _ in range(2)]
        servers = (attrs.evolve(server_at(ports[0]), weight=3), server_at(ports[1]))
        self.serve(Backend("b", servers))
        for number in range(24):
            client = await self.client()
            await self.finish(client)
            await self.logged(number + 1)
        heavy = [record.server == name(ports[0]) for record in self.records]
        for begin in range(0, 24, 4):
            self.assertEqual(sum(heavy[begin : begin + 4]), 3)

    async def test_source_hash(self) -> None:
        """One client's address leads to one server."""
        ports = [listen(self, PeerFactory(Leaving)) for _ in range(5)]
        self.serve(backend_at(*ports, balance="source-hash"))
        for number in range(6):
            await self.finish(await self.client())
            await self.logged(number + 1)
        self.assertEqual(len({record.server for record in self.records}), 1)


class CheckedTest(PoolCase):
    """Servers that are checked."""

    async def until(self, condition: Any, step: float = 0.1) -> None:
        """Let time pass until something is so."""
        while not condition():
            self.time.advance(step)
            await self.turn(3)

    async def test_down_and_up(self) -> None:
        """One that is gone gets nobody, comes back, and each change is told once."""
        ports = free_port(), listen(self, PeerFactory(Leaving))
        check = Check("tcp", interval=3.0, timeout=1.0, rise=2, fall=3)
        self.serve(backend_at(*ports, check=check))
        (upstream,) = self.factory.upstreams._upstreams.values()
        with capturedLogs() as events:
            await self.until(lambda: len(upstream.pool._tiers[0]) == 1)
            for _ in range(4):
                count = len(self.records)
                await self.finish(await self.client())
                while len(self.records) == count:
                    await self.turn()
            self.assertEqual([record.facts for record in self.records], 4 * [{}])
            back = PeerFactory()
            listening = await self.listen_again(back, ports[0])
            self.addCleanup(listening.stopListening)
            await self.until(lambda: len(upstream.pool._tiers[0]) == 2)
        told = [(event["state"], event["server"]) for event in events if "state" in event]
        self.assertEqual(told, [("down", name(ports[0])), ("up", name(ports[0]))])

    async def test_all_down(self) -> None:
        """When checks find nobody well, clients are turned away at once."""
        check = Check("tcp", interval=1.0, timeout=1.0, rise=2, fall=1)
        self.serve(backend_at(free_port(), check=check))
        (upstream,) = self.factory.upstreams._upstreams.values()
        await self.until(lambda: not upstream.pool._tiers)
        await (await self.client()).is_lost()
        while not self.records:
            await self.turn()
        self.assert_story(self.records[0], reason="no-server", server=None)


class RatesTest(PoolCase):
    """Connections that are held to a rate."""

    async def test_exact(self) -> None:
        """In ten seconds it is what the rules say, to 5 %, each way."""
        up, down = 60_000, 100_000
        self.serve(backend_at(self.backend_port(), upload_rate=up, download_rate=down))
        client = await self.client(bytes(2 * 10 * up))
        peer = await self.backend.peer()
        peer.send(bytes(2 * 10 * down))
        for _ in range(500):
            self.time.advance(0.02)
            await self.turn(4)
        for _ in range(50):
            await self.turn()
        self.assertLess(abs(len(peer.received) - 10 * up), 0.05 * 10 * up)
        self.assertLess(abs(len(client.received) - 10 * down), 0.05 * 10 * down)
        self.factory.abort("drained")
        await client.is_lost()
        await peer.is_lost()
        await self.logged()
