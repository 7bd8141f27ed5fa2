"""PostgreSQL clients whose request for TLS is answered here, so that its server name can decide."""

from typing import Any

from twisted.internet.protocol import Protocol, ServerFactory

from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import Peer, close
from tests.support.servers import counted
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.backends.pool.server_health import MemberState
from txmux.rules.embedding import route
from txmux.rules.model import Ejection, Refusal
from txmux.telemetry.counting.counter_groups import RESET, sources_in
from txmux.transport import source_number

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
    def port(self) -> int:
        backend = backend_at(self.backend_port())
        return self.mux([route("postgres sni=db.example.com", backend, name="db")])

    async def test_client_is_answered_once_and_its_request_repeated_to_the_server(self) -> None:
        client = await self.connect(self.port(), SSL_REQUEST)
        await client.has(1)
        self.assertEqual((client.received, self.backend.peers), (b"S", []))
        client.send(HELLO)
        server = await self.backend.heard(8)
        await self.turn(5)
        self.assertEqual(server.received, SSL_REQUEST)
        server.send(b"S")
        await server.has(8 + len(HELLO))
        self.assertEqual(server.received, SSL_REQUEST + HELLO)
        await server.tell(client, b"hello", 6)
        self.assertEqual(client.received, b"Shello")
        close(client, server)
        record = await self.assert_logged(
            route="db", reason="done", bytes_in=8 + len(HELLO), bytes_out=6
        )
        self.assertEqual(record.facts["sni"], "db.example.com")

    async def test_client_may_send_all_at_once_or_byte_by_byte(self) -> None:
        port = self.port()
        for number, size in enumerate((1000, 1, 9)):
            client = await self.connect(port)
            data = SSL_REQUEST + HELLO
            for start in range(0, len(data), size):
                client.send(data[start : start + size])
                await self.turn()
            server = await self.backend.heard(8, number)
            self.assertEqual(server.received, SSL_REQUEST)
            server.send(b"S")
            await server.has(len(data))
            await server.tell(client, b"x", 2)
            self.assertEqual(client.received, b"Sx")
            close(client, server)
            await self.logged(number + 1)

    async def test_kerberos_encryption_is_refused_here(self) -> None:
        client = await self.connect(self.port(), GSSENC_REQUEST)
        await client.has(1)
        client.send(SSL_REQUEST)
        await client.has(2)
        self.assertEqual(client.received, b"NS")
        client.send(HELLO)
        server = await self.backend.heard(8)
        self.assertEqual(server.received, SSL_REQUEST)
        await server.is_lost(client.reset)

    async def test_proxy_header_precedes_the_request(self) -> None:
        backend = backend_at(self.backend_port(), proxy_protocol="v1")
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        server = await self.backend.peer()
        await server.until(lambda: server.received.endswith(SSL_REQUEST))
        self.assertTrue(server.received.startswith(b"PROXY TCP4 "))
        server.send(b"S")
        await server.until(lambda: server.received.endswith(HELLO))
        await end_both(self, client, server)

    async def test_no_answer_without_sni(self) -> None:
        client = await self.connect(self.mux([route("postgres", backend_at(self.backend_port()))]))
        client.send(SSL_REQUEST)
        server = await self.backend.heard(8)
        await server.tell(client, b"N")
        self.assertEqual(client.received, b"N")
        await end_both(self, client, server)

    async def test_other_routes_go_on_with_the_answered_client(self) -> None:
        port = self.mux(
            [
                route("postgres sni=nobody", "close", name="a"),
                route("postgres", backend_at(self.backend_port()), name="b"),
            ]
        )
        client = await self.connect(port, SSL_REQUEST)
        await client.has(1)
        client.send(HELLO)
        server = await self.backend.heard(8)
        server.send(b"S")
        await server.has(8 + len(HELLO))
        await end_both(self, client, server)
        client = await self.connect(port, GSSENC_REQUEST)
        await client.has(1)
        client.send(STARTUP)
        server = await self.backend.heard(len(STARTUP), 1)
        self.assertEqual(server.received, STARTUP)
        await end_both(self, client, server)

    async def test_unknown_name_is_refused_in_tls(self) -> None:
        for default, reported in (
            (Refusal.CLOSE, b"S"),
            (Refusal.REJECT, b"S\x15\x03\x03\0\2\2\x70"),
        ):
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
        client = await self.connect(self.mux([route("postgres sni=*", factory)]))
        client.send(SSL_REQUEST + HELLO)
        await client.is_lost()
        self.assertEqual(bytes(heard), HELLO)


class RefusingServerTest(MuxTestCase):
    async def asked(self, *ports: int, **settings: Any) -> tuple[Peer, Peer]:
        backend = backend_at(*ports or (self.backend_port(),), **settings)
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        return client, await self.backend.heard(8, len(self.backend.peers))

    async def test_answer_other_than_tls_alone_fails(self) -> None:
        # A refusal, an error, bytes behind the answer that may be anybody's, and none at all.
        for number, answer in enumerate((b"N", b"Esorry", b"S\x00", b""), 1):
            client, server = await self.asked(fallback=Refusal.REJECT)
            server.send(answer)
            if not answer:
                server.finish()
            await client.is_lost()
            self.assertEqual(client.received, b"S\x15\x03\x03\0\2\2\x70")
            await self.assert_logged(number, reason="tls-failed", bytes_in=8 + len(HELLO))

    async def test_server_that_resets_instead_fails(self) -> None:
        client, server = await self.asked(fallback=Refusal.RESET)
        server.reset()
        await self.assert_ended(client, reason="connect-refused")

    async def test_what_one_source_asks_for_ejects_no_server(self) -> None:
        ports = self.backend_port(), self.backend_port()
        backend = backend_at(*ports, eject=Ejection(1), retries=0)
        port = self.mux([route("postgres sni=*", backend)])
        for number in range(8):
            client = await self.connect(port, SSL_REQUEST + HELLO)
            server = await self.backend.heard(8, number)
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
            sources = sources_in([0], member.counts.cells[RESET])
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

    async def test_leaving_client_ends_the_exchange(self) -> None:
        client, server = await self.asked()
        client.reset()
        await self.assert_ended(server, reason="client-gone")
