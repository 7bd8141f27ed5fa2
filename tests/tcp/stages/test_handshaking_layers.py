"""Where clients are led from inside of TLS that ends here."""

from __future__ import annotations

from tests.support.mux import CLOSE, backend_at
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.tcp.stages.handshaking_case import SSH, TerminationCase
from txmux.rules.embedding import route


class LevelTests(TerminationCase):
    """Where clients are led from inside of TLS."""

    async def test_default_of_the_listener(self) -> None:
        """What no route inside takes goes where the listener leads such clients."""
        default = backend_at(self.backend_port())
        client = await self.client(self.mux([self.tls_route(), self.inner()], default=default))
        client.send(b"GET / HTTP/1.1\r\n")
        await (await self.backend.peer()).has(16)
        client.reset()
        self.assert_story(await self.logged(), route="tls", backend="backend")

    async def test_backend_of_the_route(self) -> None:
        """If the route has a backend, it gets them."""
        ends = self.tls_route(outcome=backend_at(self.backend_port()))
        client = await self.client(self.mux([ends, self.inner()]))
        client.send(b"GET / HTTP/1.1\r\n")
        await (await self.backend.peer()).has(16)

    async def test_backend_alone(self) -> None:
        """Without routes inside the first byte decides already."""
        ends = self.tls_route(outcome=backend_at(self.backend_port()))
        client = await self.client(self.mux([ends]))
        client.send(b"x")
        await (await self.backend.peer()).has(1)

    async def test_silent(self) -> None:
        """Who says nothing inside of TLS has as long as anybody, and goes to the route's backend, too."""
        ends = self.tls_route(outcome=backend_at(self.backend_port()))
        client = await self.client(self.mux([ends, self.inner()]))
        await self.turn(3)
        self.time.advance(4.9)
        self.assertEqual(self.backend.peers, [])
        self.time.advance(0.2)
        server = await self.backend.peer()
        server.send(b"who is there?")
        await client.has(13)

    async def test_refused(self) -> None:
        """Where nothing leads anywhere, TLS is closed cleanly."""
        client = await self.client(self.mux([self.tls_route(), self.inner()]))
        client.send(b"GET / HTTP/1.1\r\n")
        await client.until(lambda: client.told_close_notify)
        client.close()
        self.assert_story(await self.logged(), reason="no-route", route="tls", backend=None)

    async def test_not_under_it(self) -> None:
        """Routes of the listener mean nothing inside, and those inside nothing outside."""
        outside = route("ssh", CLOSE, name="outside")
        port = self.mux([self.tls_route(), outside, self.inner()])
        plain = await self.connect(port, SSH)
        await plain.is_lost()
        self.assert_story(await self.logged(), route="outside", reason="denied")
        client = await self.client(port)
        client.send(SSH)
        await (await self.backend.peer()).has(len(SSH))

    async def test_tls_in_tls(self) -> None:
        """TLS can be ended inside of TLS, with what is inside told apart in turn."""
        port = self.mux(
            [
                self.tls_route(),
                self.tls_route("deep", under="tls", files=(self.pem("b.example"),)),
                self.inner(under="deep"),
            ]
        )
        context = client_context(self.ca)
        client = SecurePeer((context, "a.example"), (context, "b.example"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(SSH)
        server = await self.backend.heard(len(SSH))
        client.close_notify()
        await server.has_all()
        server.send(b"x" * 200_000)
        server.close()
        await client.has(200_000)
        await client.until(lambda: client.told_close_notify)
        client.close()
        record = await self.logged()
        self.assert_story(record, reason="done", route="ssh", bytes_in=len(SSH), bytes_out=200_000)
        self.assertEqual(record.facts["sni"], "b.example")

    async def test_reset_in_tls_in_tls(self) -> None:
        """A broken connection is broken at every level."""
        port = self.mux(
            [self.tls_route(), self.tls_route("deep", under="tls"), self.inner(under="deep")]
        )
        context = client_context(self.ca)
        client = SecurePeer((context, "a.example"), (context, "a.example"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(SSH)
        server = await self.backend.heard(len(SSH))
        server.reset()
        await self.is_gone(client)
        self.assertTrue(client.was_reset())
        self.assertFalse(client.told_close_notify)
        self.assert_story(await self.logged(), reason="server-reset")

    async def test_reset_after_the_end_of_tls_in_tls(self) -> None:
        """Once both have said the end inside, what becomes of the TLS outside cuts nothing."""
        port = self.mux(
            [self.tls_route(), self.tls_route("deep", under="tls"), self.inner(under="deep")]
        )
        context = client_context(self.ca)
        client = SecurePeer((context, "a.example"), (context, "a.example"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(SSH)
        server = await self.backend.heard(len(SSH))
        server.finish()
        await client.until(lambda: client.told_close_notify)
        client.transport.write = client.transport.getHandle().send
        client.close_notify()
        client.reset()
        self.assert_story(await self.logged(), reason="done", bytes_in=len(SSH))
        await server.is_lost()
        self.assertFalse(server.was_reset())

    async def test_passed_through(self) -> None:
        """A route before it can take some TLS as it is: validation by ACME is a matter of ALPN (RFC 8737)."""
        port = self.mux(
            [
                route("tls alpn=acme-tls/1", backend_at(self.backend_port()), name="acme"),
                self.tls_route(),
            ]
        )
        client = await connect_tls(self, port, self.peer(alpn=("acme-tls/1",)))
        server = await self.backend.heard(100)
        self.assertEqual(server.received[0], 0x16)
        server.close()
        await client.is_lost()
        self.assert_story(await self.logged(), route="acme")

    async def test_asked_for_first(self) -> None:
        """A client that asks for TLS first, as PostgreSQL's do, is answered; its server never hears of that."""
        ssl_request = bytes.fromhex("0000000804d2162f")
        startup = bytes.fromhex("0000001000030000") + b"user\0x\0\0"
        port = self.mux(
            [self.tls_route(match="postgres sni=a.example"), self.inner("postgres", name="pg")]
        )

        class Asking(SecurePeer):
            def connectionMade(self) -> None:
                self.transport.write(ssl_request)

            def dataReceived(self, data: bytes) -> None:
                if not self.layers[0].outgoing.pending and self.tls.version() is None:
                    data = data.removeprefix(b"S")
                super().dataReceived(data)

        client = Asking((client_context(self.ca), "a.example"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(startup)
        server = await self.backend.heard(len(startup))
        self.assertEqual(bytes(server.received), startup)
        client.close_notify()
        await server.is_lost()
        self.assert_story(await self.logged(), route="pg", reason="done")

    async def test_drained(self) -> None:
        """At the stop a client that shakes hands is ended as any other."""
        port = self.mux([self.tls_route()])
        client = await self.connect(port, b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
        await self.seen(11)
        self.factory.abort("drained")
        await client.is_lost()
        self.assert_story(await self.logged(), reason="drained")
