"""The race: the server that silence leads to is connected while the client has said nothing yet."""

import tempfile
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.mux import CLOSE, backend_at
from tests.support.peers import Peer, PeerFactory, close, listen, make_stalled_port, reactor
from tests.support.ports import free_port
from tests.tcp.silent_case import GREETING, ServerFirstCase
from tests.tcp.stages.test_reading_proxy_header import LINE, SENDERS
from tests.tcp.test_dialling import HELLO
from txmux.backends.connect.client import ProxyClient
from txmux.net.relay.ends import NO_RECEIVER
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Clients, NetworkSet, Silence
from txmux.rules.reading.endpoints import server
from txmux.tcp.preconnection import HeldBytes
from txmux.wire.proxyprotocol.decode import Decoded, decode


class HeldTest(SynchronousTestCase):
    def heard(self, *, ends: bool) -> list[object]:
        """Pass bytes and the end on to somebody for whom all may be over with the bytes, and give what that one has heard."""
        server = ProxyClient()
        heard: list[object] = []

        def data(said: bytes) -> None:
            heard.append(said)
            if ends:
                server.receiver = NO_RECEIVER

        receiver: Any = SimpleNamespace(
            data_received=data, peer_finished=lambda: heard.append("finished")
        )
        held = HeldBytes(server, 100, lambda: None)
        held.data_received(b"hello")
        held.peer_finished()
        server.receiver = receiver
        held.pass_to(receiver)
        return heard

    def test_held_bytes_and_end_are_passed_on_once(self) -> None:
        self.assertEqual(self.heard(ends=False), [b"hello", "finished"])
        self.assertEqual(self.heard(ends=True), [b"hello"])


class RaceTest(ServerFirstCase):
    def race(self, silent: Any = None, **settings: Any) -> int:
        ssh = route("ssh", backend_at(self.backend_port()), name="ssh")
        self.port = self.mux([ssh], race=True, silent=silent or self.greeting(), **settings)
        return self.port

    async def raced(self, silent: Any = None, **settings: Any) -> Peer:
        client = await self.connect(self.race(silent, **settings))
        await self.held()
        return client

    async def test_server_connects_at_accept_and_is_heard_after_the_time(self) -> None:
        client = await self.raced()
        self.assertEqual(bytes(client.received), b"")
        await self.greeted(client, after=5.1)
        client.send(b"HELO x\r\n")
        server = self.greeter.peers[0]
        await server.has(8)
        server.send(b"250 x\r\n")
        await self.greeted(client, b"250 x\r\n")
        server.close()
        await self.assert_ended(
            client, reason="done", bytes_in=8, bytes_out=len(GREETING) + 7, backend="greeter"
        )
        self.assertEqual(len(self.greeter.peers), 1)
        self.assert_nobody_counted()

    async def test_line_has_its_own_time(self) -> None:
        client = await self.raced((Silence(self.greeting(), after=0.3),))
        await self.greeted(client, after=0.4)

    async def test_bytes_for_another_route_hide_the_race(self) -> None:
        client = await self.raced()
        client.send(b"SSH-2.0-x\r\n")
        peer = await self.backend.heard(11)
        await self.greeter.peers[0].is_lost()
        self.assert_nobody_counted_but_one()
        peer.close()
        await client.is_lost()
        self.assertEqual(bytes(client.received), b"")
        await self.assert_logged(route="ssh", bytes_out=0, facts={"software": "x"}, reason="done")
        self.assert_nobody_counted()

    def assert_nobody_counted_but_one(self) -> None:
        pools = [upstream.pool for upstream in self.factory.upstreams._upstreams.values()]
        self.assertEqual(sum(pool.connections for pool in pools), 1)

    async def test_bytes_for_another_route_cancel_the_connecting(self) -> None:
        stalled = Backend("stalled", (server(f"127.0.0.1:{make_stalled_port(self)}"),))
        client = await self.connect(self.race(stalled))
        await self.accepted()
        client.send(b"SSH-2.0-x\r\n")
        peer = await self.backend.heard(11)
        self.assert_nobody_counted_but_one()
        peer.close()
        await self.assert_ended(client, route="ssh", reason="done")
        self.assert_nobody_counted()

    async def test_bytes_for_the_same_backend_use_the_connection(self) -> None:
        greeting = self.greeting()
        port = self.race(greeting, default=greeting)
        client = await self.connect(port)
        await self.held()
        client.send(b"HELO x\r\n")
        await self.greeted(client)
        await self.greeter.peers[0].has(8)
        record = await self.ended(client, self.greeter.peers[0])
        self.assert_story(record, reason="done", bytes_out=len(GREETING))
        self.assertEqual(len(self.greeter.peers), 1)
        self.assert_nobody_counted()

    async def test_leaving_client_closes_the_connection(self) -> None:
        port = self.race()
        for number, leave in enumerate((Peer.reset, Peer.close, Peer.finish)):
            client = await self.connect(port)
            await self.held()
            leave(client)
            await client.is_lost()
            await self.greeter.peers[number].is_lost()
            await self.assert_logged(number + 1, reason="client-gone", bytes_out=0)
            self.assert_nobody_counted()

    async def test_abort_ends_the_race(self) -> None:
        client = await self.raced()
        self.factory.abort("drained")
        await client.is_lost()
        await self.assert_ended(self.greeter.peers[0], reason="drained")
        self.assert_nobody_counted()

    async def test_half_closed_server_is_heard_out(self) -> None:
        client = await self.raced()
        self.greeter.peers[0].finish()
        await self.turn(5)
        self.time.advance(5.1)
        await client.has_all()
        self.assertEqual(bytes(client.received), GREETING)
        client.send(b"bye")
        client.finish()
        await self.greeter.peers[0].has(3)
        self.greeter.peers[0].close()
        await self.assert_ended(client, reason="done", bytes_in=3, bytes_out=len(GREETING))

    async def test_lost_server_is_connected_again(self) -> None:
        client = await self.raced()
        self.greeter.peers[0].reset()
        await self.greeter.peers[0].is_lost()
        (connection,) = self.factory.connections
        while connection.preconnection._held is not None:
            await self.turn()
        self.assert_nobody_counted()
        await self.greeted(client, after=5.1)
        self.assertEqual(len(self.greeter.peers), 2)

    async def refused(self) -> None:
        await self.accepted()
        (connection,) = self.factory.connections
        while connection.preconnection.connector is not None:
            await self.turn()

    async def test_refused_race_leads_silence_to_the_fallback(self) -> None:
        fallback = self.greeting()
        refusing = Backend("refusing", (server(f"127.0.0.1:{free_port()}"),), fallback=fallback)
        client = await self.connect(self.race(refusing))
        await self.refused()
        self.assertEqual(self.greeter.peers, [])
        await self.greeted(client, after=5.1)
        record = await self.ended(client, self.greeter.peers[0])
        self.assert_story(record, reason="done", backend="greeter")

    async def test_refused_race_is_hidden_from_a_speaking_client(self) -> None:
        refusing = Backend("refusing", (server(f"127.0.0.1:{free_port()}"),))
        client = await self.connect(self.race(refusing))
        await self.refused()
        client.send(b"SSH-")
        peer = await self.backend.heard(4)
        self.assert_story(await self.ended(client, peer), reason="done", route="ssh", facts={})

    async def test_silent_client_waits_for_a_server_that_is_still_connecting(self) -> None:
        full = self.greeting(max_connections=1, queue=5, connect_timeout=60.0)
        port = self.race(full)
        first = await self.connect(port)
        await self.held()
        await self.greeted(first, after=5.1)
        second = await self.connect(port)
        await self.accepted(2)
        self.time.advance(5.1)
        await self.turn(5)
        self.assertEqual(len(self.greeter.peers), 1)
        close(first, self.greeter.peers[0])
        await self.greeted(second)
        close(second, self.greeter.peers[1])
        await self.logged(2)
        self.assert_nobody_counted()

    async def test_full_backend_may_have_room_after_the_time(self) -> None:
        port = self.race(self.greeting(max_connections=1))
        first = await self.connect(port)
        await self.held()
        await self.greeted(first, after=5.1)
        second = await self.connect(port)
        await self.accepted(2)
        close(first, self.greeter.peers[0])
        await self.logged(1)
        await self.greeted(second, after=5.1)

    async def test_early_bytes_of_the_server_are_bounded_and_arrive(self) -> None:
        much = bytes(range(256)) * 16384

        class Talker(Peer):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.send(much)

        talker = PeerFactory(Talker)
        port = self.race(backend_at(listen(self, talker)), peek_limit=1000)
        client = await self.connect(port)
        await self.held(1000)
        await self.turn(20)
        (connection,) = self.factory.connections
        assert connection.preconnection is not None
        assert connection.preconnection._held is not None
        self.assertLess(len(connection.preconnection._held._received), 1000 + 65536 + 1)
        self.time.advance(5.1)
        await client.has(len(much))
        self.assertEqual(bytes(client.received), much)
        talker.peers[0].close()
        await self.assert_ended(client, reason="done", bytes_out=len(much))

    async def test_race_follows_the_incoming_header_and_sends_its_own_once(self) -> None:
        real = NetworkSet([ip_network("192.168.0.1")])
        silent = (Silence(self.greeting(proxy_protocol="v2"), Clients(real)),)
        port = self.race(silent, accept_proxy_from=SENDERS)
        client = await self.connect(port)
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        client.send(LINE)
        await self.held()
        await self.greeted(client, after=5.1)
        client.send(b"HELO")
        peer = self.greeter.peers[0]
        await peer.until(lambda: peer.received.endswith(b"HELO"))
        answer = decode(bytes(peer.received))
        assert isinstance(answer, Decoded)
        self.assertEqual(str(answer.header.source), "192.168.0.1:56324")
        self.assertEqual(bytes(peer.received[answer.length :]), b"HELO")

    async def test_another_header_needs_another_connection(self) -> None:
        greeting = self.greeting(proxy_protocol="v2", proxy_tlvs=("authority",))
        port = self.race(greeting, default=greeting)
        client = await self.connect(port)
        await self.held()
        client.send(HELLO)
        await (await self.greeter.peer(1)).has(len(HELLO))
        await self.greeter.peers[0].is_lost()
        self.assertIn(b"www.Example.com", bytes(self.greeter.peers[1].received[:200]))
        close(client, self.greeter.peers[1])
        await self.logged()
        self.assert_nobody_counted()

    async def test_server_may_listen_on_a_unix_socket(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "socket")
            port = reactor.listenUNIX(path, self.greeter)
            try:
                client = await self.raced(Backend("unix", (server(f"unix:{path}"),)))
                await self.greeted(client, after=5.1)
                close(client, self.greeter.peers[0])
                await self.logged()
            finally:
                await port.stopListening()

    async def test_server_may_be_an_endpoint_string(self) -> None:
        text = f"tcp:127.0.0.1:{listen(self, self.greeter)}:timeout=3"
        client = await self.raced(Backend("string", (server(text),)))
        await self.greeted(client, after=5.1)
        other = await self.connect(self.port)
        await self.accepted(2)
        other.send(b"SSH-")
        await (await self.backend.peer()).has(4)
        await (await self.greeter.peer(1)).is_lost()

    async def test_refusal_is_not_raced(self) -> None:
        client = await self.connect(self.race(CLOSE))
        await self.accepted_for(5.1)
        await self.assert_ended(client, reason="silent")


class PortableRaceTest(RaceTest):
    relay = "portable"
