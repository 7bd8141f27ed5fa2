from typing import Any

import attrs
from twisted.internet.defer import maybeDeferred
from twisted.logger import capturedLogs

from tests.support.mux import RESET, MuxTestCase, backend_at, server_at
from tests.support.peers import PeerFactory, listen, make_stalled_port, reactor
from tests.support.ports import free_port
from tests.tcp.pools_case import (
    AT_ONCE,
    assert_served_by,
    assert_turned_away,
    end_all,
    is_tried,
    name,
    pool_client,
    serve_pool,
)
from txmux.rules.model import Backend, ServerTLS


class AttemptsTest(MuxTestCase):
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
        await self.assert_logged(
            reason="done",
            server=name(good),
            facts={"tried": f"{name(refusing)} connect-refused, {name(stalled)} connect-timeout"},
        )

    async def test_facts_are_of_one_connection(self) -> None:
        refusing = free_port()
        serve_pool(self, backend_at(refusing, self.backend_port(), eject=AT_ONCE))
        await assert_served_by(self, self.backend)
        await assert_served_by(self, self.backend)
        first, second = self.records
        self.assertEqual(first.facts, {"tried": f"{name(refusing)} connect-refused"})
        self.assertEqual(second.facts, {})

    async def test_attempts_of_the_fallback_follow_those_of_the_backend(self) -> None:
        ports = [free_port() for _ in range(3)]
        fallback = Backend("other", (server_at(ports[1]), server_at(ports[2])))
        serve_pool(self, backend_at(ports[0], fallback=fallback))
        await assert_turned_away(
            self,
            reason="connect-refused",
            backend="other",
            server=name(ports[2]),
            facts={"tried": ", ".join(f"{name(port)} connect-refused" for port in ports)},
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

    async def test_bytes_during_the_second_attempt_are_not_lost(self) -> None:
        self.mux(silent=backend_at(make_stalled_port(self), self.backend_port()))
        client = await pool_client(self, b"")
        await self.accepted_for(5)
        client.send(b"late")
        await self.seen(4)
        self.time.advance(5)
        peer = await self.backend.heard(4)
        self.assertEqual(bytes(peer.received), b"late")
        await end_all(client, peer)
        await self.logged()


class FailingTest(MuxTestCase):
    async def test_fallback_at_once_if_all_servers_are_ejected(self) -> None:
        stalled = [make_stalled_port(self), make_stalled_port(self)]
        spare = Backend("spare", (server_at(free_port()),))
        serve_pool(self, backend_at(*stalled, eject=AT_ONCE, fallback=spare))
        client = await pool_client(self)
        await self.seen(1)
        for _ in stalled:
            await self.turn(3)
            self.time.advance(5)
        await self.assert_ended(client, reason="connect-refused", backend="spare")
        await assert_turned_away(self, reason="connect-refused", backend="spare")
        self.assertEqual(self.records[-1].duration_ms, 0.0)
        self.assertNotIn(name(stalled[0]), str(self.records[-1].facts))

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

    async def test_refused_clients_go_to_the_fallback(self) -> None:
        fallback = Backend("spare", (server_at(self.backend_port()),))
        serve_pool(self, backend_at(free_port(), eject=AT_ONCE, fallback=fallback))
        for _ in range(2):
            await assert_served_by(self, self.backend)
        tried, at_once = self.records
        self.assertIn("tried", tried.facts)
        self.assert_story(at_once, backend="spare", reason="done", facts={})

    async def test_fallback_may_reset(self) -> None:
        serve_pool(self, backend_at(free_port(), eject=AT_ONCE, fallback=RESET))
        for count in (1, 2):
            client = await pool_client(self)
            await self.is_reset(client)
            self.assertEqual((await self.logged(count)).reason, "connect-refused")

    async def test_returning_server_is_probed_by_one_client_first(self) -> None:
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

    async def test_others_use_the_fallback_during_a_probe(self) -> None:
        stalled = make_stalled_port(self)
        spare = Backend("spare", (server_at(free_port()),))
        serve_pool(self, backend_at(stalled, eject=AT_ONCE, fallback=spare))
        first = await pool_client(self)
        await self.seen(1)
        self.time.advance(5)
        await first.is_lost()
        self.time.advance(10)
        second = await pool_client(self)
        await self.seen(1)
        await self.turned_away_beside(1, reason="connect-refused", backend="spare")
        self.time.advance(5)
        await second.is_lost()
        await self.logged(3)
        self.time.advance(9.9)
        await assert_turned_away(self, reason="connect-refused", backend="spare")

    async def turned_away_beside(self, before: int, **expected: Any) -> None:
        await (await pool_client(self)).is_lost()
        await self.until_logged(before + 1)
        self.assert_story(self.records[-1], **expected)

    async def test_backup_serves_while_no_other_is_left(self) -> None:
        main, spare = PeerFactory(), PeerFactory()
        port = free_port()

        backup = attrs.evolve(server_at(listen(self, spare)), backup=True)
        serve_pool(self, Backend("b", (backup, server_at(port)), eject=AT_ONCE))
        await assert_served_by(self, spare)
        self.addCleanup(reactor.listenTCP(port, main, interface="127.0.0.1").stopListening)
        await assert_served_by(self, spare)
        self.time.advance(10)
        await assert_served_by(self, main)
        await assert_served_by(self, main)


class BrokenTest(MuxTestCase):
    async def test_mute_server_holds_its_client_until_idle_timeout(self) -> None:
        mute = PeerFactory()
        serve_pool(self, backend_at(listen(self, mute), self.backend_port(), idle_timeout=60.0))
        client = await pool_client(self)
        held = await mute.peer()
        await held.has(1)
        other = await pool_client(self)
        peer = await self.backend.peer()
        await peer.tell(other, b"answer")
        await end_all(other, peer)
        await self.logged()
        await self.taken()
        self.time.advance(60)
        await self.assert_ended(client, 2, reason="idle-timeout")

    async def test_reset_by_a_server_costs_one_client(self) -> None:
        bad = PeerFactory()
        serve_pool(self, backend_at(listen(self, bad), self.backend_port()))
        client = await pool_client(self)
        peer = await bad.peer()
        await peer.tell(client, b"half an ans")
        await self.is_reset(client, peer.reset)
        await self.assert_logged(reason="server-reset", bytes_out=11)
        await assert_served_by(self, self.backend)

    async def test_leaves_while_probing_and_the_next_client_probes(self) -> None:
        port = free_port()
        serve_pool(self, backend_at(port, eject=AT_ONCE, tls=ServerTLS("a.example")))
        await assert_turned_away(self, reason="connect-refused")
        self.time.advance(10)
        mute = PeerFactory()
        self.addCleanup(reactor.listenTCP(port, mute, interface="127.0.0.1").stopListening)
        for number in range(2):
            client = await pool_client(self)
            await mute.peer(number)
            client.reset()
            await self.assert_logged(number + 2, reason="client-gone")
