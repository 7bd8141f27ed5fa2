from tests.support.mux import CLOSE, SSH, MuxTestCase, backend_at
from tests.support.peers import Peer
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.rules.embedding import route


class LevelTests(MuxTestCase):
    async def deep(self) -> tuple[SecurePeer, Peer]:
        inner = self.tls.route("deep", under="tls", files=(self.tls.pem("b.example"),))
        port = self.mux([self.tls.route(), inner, self.tls.inner(under="deep")])
        context = client_context(self.tls.ca)
        client = SecurePeer((context, "a.example"), (context, "b.example"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(SSH)
        return client, await self.backend.heard(len(SSH))

    async def test_unmatched_plaintext_goes_to_the_listeners_default(self) -> None:
        default = backend_at(self.backend_port())
        client = await self.tls.client(
            self.mux([self.tls.route(), self.tls.inner()], default=default)
        )
        client.send(b"GET / HTTP/1.1\r\n")
        await (await self.backend.peer()).has(16)
        client.reset()
        await self.assert_logged(route="tls", backend="backend")

    async def test_unmatched_plaintext_goes_to_the_routes_backend(self) -> None:
        ends = self.tls.route(outcome=backend_at(self.backend_port()))
        for number, (inside, said) in enumerate(
            (([self.tls.inner()], b"GET / HTTP/1.1\r\n"), ([], b"x"))
        ):
            client = await self.tls.client(self.mux([ends, *inside]))
            client.send(said)
            await (await self.backend.peer(number)).has(len(said))

    async def test_silent_client_goes_to_the_routes_backend_after_detect_timeout(self) -> None:
        ends = self.tls.route(outcome=backend_at(self.backend_port()))
        client = await self.tls.client(self.mux([ends, self.tls.inner()]))
        await self.turn(3)
        await self.assert_waits(5)
        server = await self.backend.peer()
        await server.tell(client, b"who is there?")

    async def test_refusal_closes_tls_cleanly(self) -> None:
        client = await self.tls.client(self.mux([self.tls.route(), self.tls.inner()]))
        client.send(b"GET / HTTP/1.1\r\n")
        await client.until(lambda: client.told_close_notify)
        client.close()
        await self.assert_logged(reason="no-route", route="tls", backend=None)

    async def test_routes_apply_to_their_own_layer_alone(self) -> None:
        outside = route("ssh", CLOSE, name="outside")
        port = self.mux([self.tls.route(), outside, self.tls.inner()])
        await self.connect_until_lost(port, SSH)
        await self.assert_logged(route="outside", reason="denied")
        client = await self.tls.client(port)
        client.send(SSH)
        await (await self.backend.peer()).has(len(SSH))

    async def test_tls_in_tls_is_terminated_and_detected(self) -> None:
        client, server = await self.deep()
        await server.has_all(client.close_notify)
        server.send(b"x" * 200_000)
        server.close()
        await client.has(200_000)
        await client.until(lambda: client.told_close_notify)
        client.close()
        record = await self.assert_logged(
            reason="done", route="ssh", bytes_in=len(SSH), bytes_out=200_000
        )
        self.assertEqual(record.facts["sni"], "b.example")

    async def test_reset_breaks_every_layer_of_tls_in_tls(self) -> None:
        client, server = await self.deep()
        await self.is_reset(client, server.reset)
        self.assertFalse(client.told_close_notify)
        await self.assert_logged(reason="server-reset")

    async def test_reset_after_both_inner_ends_cuts_nothing(self) -> None:
        client, server = await self.deep()
        server.finish()
        await client.until(lambda: client.told_close_notify)
        client.transport.write = client.transport.getHandle().send
        client.close_notify()
        client.reset()
        await self.assert_logged(reason="done", bytes_in=len(SSH))
        await self.is_closed(server)

    async def test_earlier_route_passes_acme_tls_through(self) -> None:
        port = self.mux(
            [
                route("tls alpn=acme-tls/1", backend_at(self.backend_port()), name="acme"),
                self.tls.route(),
            ]
        )
        client = await connect_tls(self, port, self.tls.peer(alpn=("acme-tls/1",)))
        server = await self.backend.heard(100)
        self.assertEqual(server.received[0], 0x16)
        server.close()
        await self.assert_ended(client, route="acme")

    async def test_requested_tls_is_answered_and_hidden_from_the_server(self) -> None:
        ssl_request = bytes.fromhex("0000000804d2162f")
        startup = bytes.fromhex("0000001000030000") + b"user\0x\0\0"
        port = self.mux(
            [self.tls.route(match="postgres sni=a.example"), self.tls.inner("postgres", name="pg")]
        )
        client = SecurePeer((client_context(self.tls.ca), "a.example"), request=(ssl_request, b"S"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(startup)
        server = await self.backend.heard(len(startup))
        self.assertEqual(bytes(server.received), startup)
        client.close_notify()
        await self.assert_ended(server, route="pg", reason="done")

    async def test_drain_ends_a_handshaking_client(self) -> None:
        port = self.mux([self.tls.route()])
        client = await self.connect_read(port, b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
        self.factory.abort("drained")
        await self.assert_ended(client, reason="drained")
