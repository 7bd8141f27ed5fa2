"""PostgreSQL clients whose request for TLS is answered here, so that its server name can decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.protocol import Protocol, ServerFactory

from tests.support.mux import MuxTestCase, backend_at
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.rules.embedding import route
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from tests.support.peers import Peer

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
GSSENC_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x30"
HELLO = records(client_hello(server_name("db.example.com")))
OTHER = records(client_hello(server_name("other.example.com")))
STARTUP = b"\x00\x00\x00\x11\x00\x03\x00\x00user\x00me\x00\x00"


class ConversingTestCase(MuxTestCase):
    """Shared by the tests of this file."""

    async def end(self, client: Peer, server: Peer) -> None:
        """Close a connection on both sides."""
        before = len(self.records)
        client.close()
        server.close()
        await self.logged(before + 1)


class AnsweringTest(ConversingTestCase):
    """What the client gets, and what the server."""

    def port(self) -> int:
        """Listen for one server name."""
        backend = backend_at(self.backend_port())
        return self.mux([route("postgres sni=db.example.com", backend, name="db")])

    async def test_dialogue(self) -> None:
        """The client is answered once; the server is asked again, and only then hears the hello."""
        client = await self.connect(self.port(), SSL_REQUEST)
        await client.has(1)
        self.assertEqual(client.received, b"S")
        self.assertEqual(self.backend.peers, [])
        client.send(HELLO)
        server = await self.backend.heard(8)
        await self.turn(5)
        self.assertEqual(server.received, SSL_REQUEST)
        server.send(b"S")
        await server.has(8 + len(HELLO))
        self.assertEqual(server.received, SSL_REQUEST + HELLO)
        server.send(b"hello")
        await client.has(6)
        self.assertEqual(client.received, b"Shello")
        client.close()
        server.close()
        record = await self.logged()
        self.assert_story(record, route="db", reason="done", bytes_in=8 + len(HELLO), bytes_out=6)
        self.assertEqual(record.facts["sni"], "db.example.com")

    async def test_does_not_wait(self) -> None:
        """A client that sends all at once, or byte by byte, makes no difference."""
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
            server.send(b"x")
            await client.has(2)
            self.assertEqual(client.received, b"Sx")
            client.close()
            server.close()
            await self.logged(number + 1)

    async def test_kerberos(self) -> None:
        """Encryption by Kerberos is refused, and no server hears of it."""
        client = await self.connect(self.port(), GSSENC_REQUEST)
        await client.has(1)
        client.send(SSL_REQUEST)
        await client.has(2)
        self.assertEqual(client.received, b"NS")
        client.send(HELLO)
        server = await self.backend.heard(8)
        self.assertEqual(server.received, SSL_REQUEST)
        client.reset()
        await server.is_lost()

    async def test_header_first(self) -> None:
        """The PROXY protocol header goes before the request, too."""
        backend = backend_at(self.backend_port(), proxy_protocol="v1")
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        server = await self.backend.peer()
        await server.until(lambda: server.received.endswith(SSL_REQUEST))
        self.assertTrue(server.received.startswith(b"PROXY TCP4 "))
        server.send(b"S")
        await server.until(lambda: server.received.endswith(HELLO))
        await self.end(client, server)

    async def test_without_sni(self) -> None:
        """Without ``sni=`` nobody is answered here."""
        client = await self.connect(self.mux([route("postgres", backend_at(self.backend_port()))]))
        client.send(SSL_REQUEST)
        server = await self.backend.heard(8)
        server.send(b"N")
        await client.has(1)
        self.assertEqual(client.received, b"N")
        await self.end(client, server)

    async def test_other_route(self) -> None:
        """Any route that takes the client in the end goes on where it is, with TLS or after a refusal."""
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
        await self.end(client, server)
        client = await self.connect(port, GSSENC_REQUEST)
        await client.has(1)
        client.send(STARTUP)
        server = await self.backend.heard(len(STARTUP), 1)
        self.assertEqual(server.received, STARTUP)
        await self.end(client, server)

    async def test_no_route(self) -> None:
        """A name that no route knows is refused, as a TLS client may be told."""
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

    async def test_in_process(self) -> None:
        """A protocol of this process gets the TLS alone."""
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


class RefusingServerTest(ConversingTestCase):
    """Servers that do not go along."""

    async def reported(self, answer: bytes, *, finish: bool = False) -> None:
        """Let the only server answer this, and see what becomes of the client."""
        backend = backend_at(self.backend_port(), fallback=Refusal.REJECT)
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        server = await self.backend.heard(8)
        server.send(answer)
        if finish:
            server.finish()
        await client.is_lost()
        self.assertEqual(client.received, b"S\x15\x03\x03\0\2\2\x70")
        record = await self.logged()
        self.assert_story(record, reason="tls-failed", bytes_in=8 + len(HELLO))

    async def test_no(self) -> None:
        """A server without TLS is a cause of its own."""
        await self.reported(b"N")

    async def test_error(self) -> None:
        """So is an error, and whatever comes before TLS that TLS does not protect."""
        await self.reported(b"Esorry")

    async def test_too_much(self) -> None:
        """Bytes behind the answer might be anybody's."""
        await self.reported(b"S\x00")

    async def test_finishes(self) -> None:
        """A server that just closes has not answered either."""
        await self.reported(b"", finish=True)

    async def test_resets(self) -> None:
        """Nor has one that breaks off."""
        backend = backend_at(self.backend_port(), fallback=Refusal.RESET)
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        server = await self.backend.heard(8)
        server.reset()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-refused")

    async def test_silent(self) -> None:
        """One that says nothing is left when the time to connect is over, and another is tried."""
        ports = self.backend_port(), self.backend_port()
        backend = backend_at(*ports, connect_timeout=2.0)
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        server = await self.backend.heard(8)
        self.time.advance(2)
        await server.is_lost()
        server = await self.backend.heard(8, 1)
        server.send(b"S")
        await server.has(8 + len(HELLO))
        await self.end(client, server)

    async def test_client_leaves(self) -> None:
        """A client that leaves meanwhile is not asked for any more."""
        backend = backend_at(self.backend_port())
        client = await self.connect(self.mux([route("postgres sni=*", backend)]))
        client.send(SSL_REQUEST + HELLO)
        server = await self.backend.heard(8)
        client.reset()
        await server.is_lost()
        self.assert_story(await self.logged(), reason="client-gone")
