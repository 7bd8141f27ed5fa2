import socket
from collections.abc import Callable
from datetime import datetime
from typing import Any

import attrs
from twisted.internet.protocol import Protocol, ServerFactory

from tests.support.changes import set_wall_clock
from tests.support.each import for_each
from tests.support.mux import CLOSE, RESET, SSH, MuxTestCase, backend_at
from tests.support.peers import Peer, close, reset
from tests.support.queues import until_queued, until_taken
from tests.support.servers import counted
from tests.support.taker import Taker
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.backends.pool.server_health import MemberState
from txmux.rules.embedding import route
from txmux.rules.model import Ejection, Refusal, Route, Silence
from txmux.rules.reading.route import period
from txmux.telemetry.counting import counter_groups
from txmux.transport import source_number


class DecidingTest(MuxTestCase):
    async def test_peeked_bytes_reach_the_backend_once_and_first(self) -> None:
        client = await self.connect(self.ssh_mux())
        await self.send_in_pieces(client, b"SSH-")
        client.send(b"2.0-test\r\n")
        server = await self.backend.heard(14)
        self.assertEqual(bytes(server.received), SSH)
        self.time.advance(3000)  # there is no deadline after the decision
        await server.tell(client, b"still here")
        close(client, server)
        record = await self.assert_logged(route="ssh", reason="done", bytes_in=14, bytes_out=10)
        self.assert_story(record, listener="public", backend="backend")
        for address in (record.client, record.local, record.server):
            self.assertTrue((address or "").startswith("127.0.0.1:"))

    async def test_route_may_close_or_reset(self) -> None:
        """One for other networks is skipped."""
        for number, how in enumerate(("close", "reset"), 1):
            skipped = route("any", "close" if how == "reset" else "reset", from_=["10.0.0.0/8"])
            taken = route("http", how, name="no-web", not_from=["10.0.0.0/8"])
            client = await self.connect_until_lost(
                self.mux([skipped, taken]), b"GET / HTTP/1.1\r\n"
            )
            self.assertEqual(client.was_reset(), how == "reset")
            await self.assert_logged(number, route="no-web", backend=None, reason="denied")

    async def test_clients_that_leave_no_line(self) -> None:
        """Those of a route or a listener with `log = no`; with `errors`, all but refused ones."""
        said = b"GET / HTTP/1.1\r\n"
        port = self.mux([route("http", "close", log=False), route("ssh", "close")])
        await self.connect_until_lost(port, said)
        await self.connect(port, b"SSH-")
        await self.assert_logged(route="ssh")
        port = self.mux([route("http", "close", log="errors")], log="errors")
        client = await self.connect(port)
        await client.is_lost(client.close)
        await self.connect(port, b"SSH-")
        await self.assert_logged(2, route=None, reason="no-route")
        await self.connect_until_lost(self.mux([route("http", "close")], log=False), said)
        self.assertEqual(len(self.log.records), 2)

    async def test_logs_facts_whether_a_route_matches_or_not(self) -> None:
        port = self.mux([route("http host=here", "close")])
        for number, host in enumerate(["here", "there"], 1):
            await self.connect_until_lost(
                port, b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode()
            )
            record = await self.logged(number)
            self.assertEqual(record.facts["host"], host)
        self.assert_story(record, route=None, reason="no-route")

    async def test_default_applies_once_all_routes_say_no_and_at_the_deadline(self) -> None:
        """That counts from accept; a silent client is closed then."""
        port = self.ssh_mux(detect_timeout=5)
        client = await self.connect_read(port, b"SS")
        await self.assert_waits(5)
        await self.assert_ended(client, reason="no-route", bytes_in=2)
        client = await self.connect(port)
        for count, byte in enumerate(b"SSH", 1):
            client.send(bytes([byte]))
            await self.seen(count)
            self.time.advance(1.6)
        self.time.advance(0.3)
        await self.assert_ended(client, 2, reason="no-route", bytes_in=3)
        client = await self.connect(self.ssh_mux())
        await self.accepted_for(5)
        await self.assert_ended(client, 3, route=None, reason="silent", bytes_in=0)
        client = await self.connect_until_lost(self.ssh_mux(default=RESET), b"SSX")
        self.assertTrue(client.was_reset())
        await self.assert_logged(4, route=None, reason="no-route", bytes_in=3)

    async def test_peek_limit_ends_detection_and_keeps_all_bytes(self) -> None:
        routes = [route("payload offset=8 text=x", CLOSE)]
        port = self.mux(routes, peek_limit=8, default=backend_at(self.backend_port()))
        client = await self.connect_read(port, b"1234567")
        self.assertEqual(self.backend.peers, [])
        client.send(b"8x rest")
        server = await self.backend.heard(14)
        self.assertEqual(bytes(server.received), b"12345678x rest")

    async def test_route_has_its_clients_who_stay_when_the_period_is_over(self) -> None:
        office = route("ssh", backend_at(self.backend_port()), name="office")
        hours = (period("mon-fri 08:00-18:00 Europe/Paris"),)
        within, end = (
            datetime.fromisoformat(f"2026-11-20T{at}+01:00").timestamp()
            for at in ("17:59", "18:00")
        )
        set_wall_clock(self, within)
        port = self.mux([attrs.evolve(office, during=hours), route("ssh", "close", name="closed")])
        client, server = await self.both(port, SSH)
        set_wall_clock(self, end)
        await self.connect_until_lost(port, SSH)
        await self.assert_logged(route="closed", reason="denied")
        await client.tell(server, b"more", len(SSH) + 4)
        await self.assert_closed(client, server, 2, route="office", reason="done")


@for_each("previews", (False, True))
class LeavingTest(MuxTestCase):
    """Also where bytes stay in the socket, since some clients are handed over."""

    previews: bool

    def serve(self, *routes: Route, **settings: Any) -> int:
        handed = route("payload text=hand", Taker(self, self.turn).outcome)
        return self.mux([handed, *routes] if self.previews else routes, **settings)

    async def test_client_that_half_closes_undecided_gets_the_defaults_answer(self) -> None:
        port = self.serve(route("ssh", CLOSE), default=backend_at(self.backend_port()))
        client = await self.connect(port, b"SS")
        client.finish()
        server = await self.backend.peer()
        await server.has_all()
        self.assertEqual(bytes(server.received), b"SS")
        server.send(b"answer")
        await client.has_all(server.close)
        self.assertEqual(bytes(client.received), b"answer")
        client.close()
        await self.assert_logged(
            route=None, backend="backend", reason="done", bytes_in=2, bytes_out=6
        )

    async def test_end_of_an_undecided_client(self) -> None:
        """A port scan opens no backend connection."""
        backend = backend_at(self.backend_port())
        for said, reason in self.anew((
            (b"SS", "client-gone"), (b"SS", "drained"), (b"", "client-gone"),
        )):  # fmt: skip
            routes = route("ssh" if said else "any", backend)
            port = self.serve(routes, silent=backend, default=backend)
            client = await (self.connect_read if said else self.connect)(port, said)
            if reason == "drained":
                self.factory.abort("drained")
                await self.is_reset(client)
            else:
                client.reset() if said else client.close()
            await self.assert_logged(reason=reason, backend=None, bytes_in=len(said))
            self.assertEqual(self.backend.peers, [])

    async def test_endless_bytes_without_a_match_are_closed_and_little_is_read(self) -> None:
        port = self.serve(route("payload offset=30000 text=x", CLOSE), peek_limit=32768)
        await self.connect_until_lost(port, bytes(8 * 1024 * 1024))
        record = await self.assert_logged(reason="no-route")
        self.assertLess(record.bytes_in, 256 * 1024)


def finish(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    until_taken(client)


class FirstBytesTest(MuxTestCase):
    def early(
        self, said: bytes, does: Callable[[socket.socket], object] = bool, **settings: int
    ) -> socket.socket:
        """Have a client say and do something before it is accepted."""
        address = "127.0.0.1", self.ssh_mux(**settings)
        client = socket.create_connection(address)
        self.addCleanup(client.close)
        client.sendall(said)
        until_taken(client)
        until_queued(self.listening, 1)
        does(client)
        self.listening.doRead()
        return client

    async def test_deciding_bytes_route_at_once_without_a_timer(self) -> None:
        """Also those of a client that has finished, whose server gets its end."""
        for does in self.anew((bool, finish)):
            client = self.early(SSH, does, detect_timeout=7)
            (connection,) = self.factory.connections
            self.assertEqual(connection.record.route, "ssh")
            timers = self.factory.runtime.clock.getDelayedCalls()
            self.assertNotIn(7.0, [timer.getTime() for timer in timers])
            server = await self.backend.heard(14)
            self.assertEqual(bytes(server.received), SSH)
            if does is finish:
                await server.has_all()
            else:
                client.close()
            server.close()
            await self.assert_logged(route="ssh", reason="done", bytes_in=14)

    async def test_undecided_bytes_leave_the_usual_time(self) -> None:
        client = self.early(b"SS", detect_timeout=7)
        (connection,) = self.factory.connections
        self.assertEqual((connection.record.route, connection.record.bytes_in), (None, 2))
        self.time.advance(6.9)
        await self.turn(3)
        self.assertEqual(self.records, [])
        self.time.advance(0.2)
        await self.assert_logged(reason="no-route", bytes_in=2)
        self.assertEqual(client.recv(1), b"")

    async def test_first_byte_comes_as_the_time_ends(self) -> None:
        """It ends while it is looked at: the client is decided by what it has sent."""
        routes = [route("ssh", CLOSE, from_=["127.0.0.0/8"])]
        silent = (Silence(CLOSE, after=9.0),)
        client = await self.connect(self.mux(routes, silent=silent, detect_timeout=3.0))
        await self.accepted()
        self.time.advance(3.0)
        (connection,) = self.factory.connections
        connection.path.seconds = lambda: self.time.seconds() - 5e-6
        client.send(b"S")
        await self.assert_ended(client, route=None, reason="no-route", bytes_in=1)

    async def test_silent_client_is_read_when_it_speaks(self) -> None:
        client = self.early(b"")
        client.sendall(b"SSH-2.0-test\r\n")
        close(client, await self.backend.heard(14))
        await self.assert_logged(route="ssh", reason="done", bytes_in=14)

    async def test_client_that_left_is_logged_as_gone(self) -> None:
        self.early(b"", socket.socket.close)
        await self.assert_logged(reason="client-gone", bytes_in=0)
        self.early(b"SS", reset)
        await self.assert_logged(2, reason="client-gone")
        self.assertEqual(self.backend.peers, [])


SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
GSSENC_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"
HELLO = records(client_hello(server_name("db.example.com")))
OTHER = records(client_hello(server_name("other.example.com")))
STARTUP = b"\x00\x00\x00\x11\x00\x03\x00\x00user\x00me\x00\x00"


async def end_both(test: MuxTestCase, client: Peer, server: Peer) -> None:
    before = len(test.records)
    close(client, server)
    await test.logged(before + 1)


class AnsweringTest(MuxTestCase):
    async def test_client_is_answered_once_and_its_request_repeated_to_the_server(self) -> None:
        """A request for encryption by Kerberos before it is refused here."""
        backend = backend_at(self.backend_port())
        port = self.mux([route("postgres sni=db.example.com", backend, name="db")])
        for before, refused in self.anew(((b"", b""), (GSSENC_REQUEST, b"N"))):
            client = await self.connect(port, before)
            await client.has(len(refused))
            client.send(SSL_REQUEST)
            await client.has(len(refused) + 1)
            self.assertEqual((client.received, self.backend.peers), (refused + b"S", []))
            client.send(HELLO)
            server = await self.backend.heard(8)
            await self.turn(5)
            self.assertEqual(server.received, SSL_REQUEST)
            server.send(b"S")
            await server.has(8 + len(HELLO))
            self.assertEqual(server.received, SSL_REQUEST + HELLO)
            await server.tell(client, b"hello", len(refused) + 6)
            self.assertEqual(client.received, refused + b"Shello")
            record = await self.assert_closed(client, server, route="db", reason="done")
            sizes = {"bytes_in": 8 + len(before + HELLO), "bytes_out": len(refused) + 6}
            self.assert_story(record, **sizes)
            self.assertEqual(record.facts["sni"], "db.example.com")

    async def test_other_routes_go_on_with_the_answered_client(self) -> None:
        """There is no answer where no route asks for a name."""
        to_server = route("postgres", backend_at(self.backend_port()), name="b")
        client, server = await self.both(self.mux([to_server]), SSL_REQUEST)
        await server.tell(client, b"N")
        self.assertEqual(client.received, b"N")
        await end_both(self, client, server)
        port = self.mux([route("postgres sni=nobody", "close", name="a"), to_server])
        client = await self.connect(port, SSL_REQUEST)
        await client.has(1)
        client.send(HELLO)
        server = await self.backend.heard(8, 1)
        server.send(b"S")
        await server.has(8 + len(HELLO))
        await end_both(self, client, server)
        client = await self.connect(port, GSSENC_REQUEST)
        await client.has(1)
        client.send(STARTUP)
        server = await self.backend.heard(len(STARTUP), 2)
        self.assertEqual(server.received, STARTUP)
        await end_both(self, client, server)

    async def test_unknown_name_is_refused_in_tls(self) -> None:
        for default, reported in (
            (Refusal.CLOSE, b"S"), (Refusal.REJECT, b"S\x15\x03\x03\0\2\2\x70"),
        ):  # fmt: skip
            client = await self.connect(
                self.mux([route("postgres sni=db.example.com", "close")], default=default)
            )
            client.send(SSL_REQUEST)
            await client.has(1)
            client.send(OTHER)
            await client.is_lost()
            self.assertEqual(client.received, reported)

    async def test_protocol_in_process_gets_tls_alone(self) -> None:
        heard = bytearray()

        class Hears(Protocol):
            def dataReceived(self, data: bytes) -> None:
                heard.extend(data)
                if len(heard) == len(HELLO):
                    assert self.transport is not None
                    self.transport.loseConnection()

        factory = ServerFactory.forProtocol(Hears)
        port = self.mux([route("postgres sni=*", factory)])
        await self.connect_until_lost(port, SSL_REQUEST + HELLO)
        self.assertEqual(bytes(heard), HELLO)


class RefusingServerTest(MuxTestCase):
    async def asked(self, *ports: int, **settings: Any) -> tuple[Peer, Peer]:
        backend = backend_at(*ports or (self.backend_port(),), **settings)
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        return client, await self.backend.heard(8, len(self.backend.peers))

    async def test_answer_other_than_tls_alone_fails(self) -> None:
        """So does a reset of the server; a client that leaves ends the exchange."""
        # A refusal, an error, bytes behind the answer that may be anybody's, and none at all.
        for answer in self.anew((b"N", b"Esorry", b"S\x00", b"")):
            client, server = await self.asked(fallback=Refusal.REJECT)
            server.send(answer)
            if not answer:
                server.finish()
            await client.is_lost()
            self.assertEqual(client.received, b"S\x15\x03\x03\0\2\2\x70")
            await self.assert_logged(reason="tls-failed", bytes_in=8 + len(HELLO))
        client, server = await self.asked(fallback=Refusal.RESET)
        server.reset()
        await self.assert_ended(client, reason="connect-refused")
        client, server = await self.asked()
        client.reset()
        await self.assert_ended(server, 2, reason="client-gone")

    async def test_what_one_source_asks_for_ejects_no_server(self) -> None:
        ports = self.backend_port(), self.backend_port()
        backend = backend_at(*ports, eject=Ejection(1), retries=0)
        port = self.mux([route("postgres sni=*", backend)])
        for number in range(8):
            client, server = await self.both(port, SSL_REQUEST + HELLO, 8)
            if number < 2:
                server.send(b"N")
            elif number < 4:
                server.finish()
            elif number < 6:
                server.reset()
            else:
                self.time.advance(5)
            await client.is_lost()
        (upstream,) = self.factory.upstreams.all()
        self.assertEqual({member.state for member in upstream.pool.members}, {MemberState.UP})
        names = "failed tls-failed", "failed connect-timeout", "failed connect-refused"
        self.assertEqual(counted(self.factory, names=names), {"failed tls-failed": 8})
        for member in upstream.pool.members:
            sources = counter_groups.sources_in([0], member.counts.cells[counter_groups.RESET])
            self.assertEqual(sources, {source_number("127.0.0.1:1")})

    async def test_silent_server_costs_the_connect_timeout_and_the_next_is_tried(self) -> None:
        ports = self.backend_port(), self.backend_port()
        client, server = await self.asked(*ports, connect_timeout=2.0)
        self.time.advance(2)
        await server.is_lost()
        server = await self.backend.heard(8, 1)
        server.send(b"S")
        await server.has(8 + len(HELLO))
        await end_both(self, client, server)
