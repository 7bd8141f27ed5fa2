import gc
import select
import socket
import ssl

import attrs

from tests.support.kit import SecurePeer, client_context, connect_tls, free_port
from tests.support.mux import CLOSE, SSH, MuxTestCase, backend_at
from tests.support.peers import Peer, PeerFactory, make_stalled_port
from tests.support.servers import counted
from txmux.net.relay.peer_state import queued_in
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.net.sockets.poller import is_available
from txmux.net.tls.end import TlsEnd, TlsTransport
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Route
from txmux.tcp.stages import connecting


def is_empty(connected: socket.socket) -> bool:
    try:
        return not connected.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True


def _refused(ports: tuple[int, ...]) -> dict[str, int]:
    return {"failed connect-refused": 1} if ports else {}


class RelayTests(MuxTestCase):
    async def in_process(self) -> tuple[SecurePeer, Peer]:
        inside = PeerFactory()
        made = attrs.evolve(route("ssh", inside, name="ssh"), under=("tls",))
        client = await self.tls.client(self.mux([self.tls.route(), made]))
        client.send(SSH)
        return client, await inside.peer()

    async def test_detects_plaintext_and_logs_what_tls_agreed_on(self) -> None:
        """A connection that stays frees buffers and keeps part of a record; bytes with the close-notify are passed on before it."""
        client, server = await self.tls.relayed()
        self.assertEqual(bytes(server.received), SSH)
        [connection] = self.factory.connections
        end = connection.socket
        before = end.incoming_bio, end.outgoing_bio
        client.tls.write(b"more")
        record = client.layers[0].outgoing.read()
        client.transport.write(record[:7])
        while queued_in(client.transport.socket) or not is_empty(end.bottom):
            await self.turn()
        connection.check(self.time.seconds())
        self.assertNotIn(end.incoming_bio, before)
        self.assertNotIn(end.outgoing_bio, before)
        client.transport.write(record[7:])
        await server.has(len(SSH) + 4)
        await server.tell(client, b"answer", 5 + 6)
        self.assertEqual(bytes(server.received), SSH + b"more")
        self.assertEqual(bytes(client.received), b"helloanswer")
        client.flush, flush = lambda: None, client.flush  # type: ignore[method-assign]
        client.send(bytes(50_000))
        client.close_notify()
        client.flush = flush  # type: ignore[method-assign]
        client.flush()
        await server.has_all()
        self.assertEqual(len(server.received), len(SSH) + 50_004)
        await client.has_close_notify(server.close)
        story = await self.assert_logged(reason="done", route="ssh", backend="backend")
        self.assert_story(story, bytes_in=len(SSH) + 50_004, bytes_out=11)
        expected = {"sni": "a.example", "tls": "1.3", "tls_version": "1.3"}
        self.assertLessEqual(expected.items(), story.facts.items())
        self.assertIn("tls_cipher", story.facts)
        self.assertNotIn("tls_client", story.facts)

    async def test_bytes_with_the_end_of_the_handshake(self) -> None:
        """They come in one read with it, or more, and no event reports them; whether the routes inside need them or not."""
        port, large = self.backend_port(), SSH + bytes(range(256)) * 800
        inside, outside = (
            [self.tls.route(), self.tls.inner()], [self.tls.route(outcome=backend_at(port))],
        )  # fmt: skip
        for count, (routes, words) in enumerate(((inside, SSH), (outside, SSH), (inside, large))):
            listening, context = self.mux(routes), client_context(self.tls.ca)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            client = SecurePeer((context, "a.example"), eager=words)
            await connect_tls(self, listening, client)
            server = await self.backend.heard(len(words), count)
            self.assertEqual(bytes(server.received), words)
            await server.tell(client, b"hello")
            client.reset()
            await self.until_logged(count + 1)
            await server.is_lost()

    async def test_reset_before_the_end_of_the_handshake_is_read(self) -> None:
        """What is sent then fails, and the kernel reports that once: it is no end of what came with the handshake."""
        port = self.mux([self.tls.route(), self.tls.inner()])
        for words in self.anew((SSH, SSH[:2])):
            with socket.create_connection(("127.0.0.1", port)) as client:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = client_context(None).wrap_bio(incoming, outgoing)
                self.assertRaises(ssl.SSLWantReadError, tls.do_handshake)
                client.send(outgoing.read())
                await self.until_so(lambda its=client: select.select([its], [], [], 0)[0])  # type: ignore[misc]
                incoming.write(client.recv(2**16))
                tls.do_handshake()
                tls.write(words)
                client.send(outgoing.read())
                reset_on_close(client)
            record = await self.logged()
            self.assertIn(record.reason, {"client-gone", "client-reset"})

    async def test_server_is_connected_as_for_clients_without_tls(self) -> None:
        """Unless the first one refuses, without a connector; the client is counted once, whatever it sends until the answer."""
        closed = free_port()
        for before in self.anew(((closed,), ())):
            backend = backend_at(*before, self.backend_port(), balance="first")
            inner = attrs.evolve(route("ssh", backend, name="ssh"), under=("tls",))
            client = await self.tls.client(self.mux([self.tls.route(), inner]))
            if is_available() and not before:
                self.patch(connecting, "BackendConnector", None)
            client.send(SSH)
            server = await self.backend.heard(len(SSH))
            self.time.advance(1)  # as for them, when a sweep looks
            self.assertEqual(counted(self.factory), {"asked": 1, **_refused(before)})
            await client.tell(server, b"more", len(SSH) + 4)
            await server.tell(client, b"hello")
            self.assertEqual(counted(self.factory), {"asked": 1, "answered": 1, **_refused(before)})
            await server.has_all(client.close_notify)
            server.close()
            record = await self.assert_logged(reason="done", bytes_in=len(SSH) + 4, bytes_out=5)
            tried = f"127.0.0.1:{closed} connect-refused" if before else None
            self.assertEqual(record.facts.get("tried"), tried)

    async def test_fallback_in_process_gets_bytes_that_were_held_up(self) -> None:
        stalled = backend_at(make_stalled_port(self), fallback=outcome(self.backend), retries=0)
        inner = attrs.evolve(route("any", stalled), under=("tls",))
        client = await self.tls.client(self.mux([self.tls.route(), inner], peek_limit=4000))
        client.send(bytes(1_000_000))
        await self.seen(4000)
        self.time.advance(5)
        server = await self.backend.heard(1_000_000)
        server.close()
        client.close_notify()
        await self.logged()

    async def test_half_close_of_either_layer_or_both_still_gets_the_answer(self) -> None:
        for steps in self.anew((("close_notify",), ("close_notify", "finish"), ("finish",))):
            client, server = await self.tls.relayed()
            for step in steps:
                getattr(client, step)()
            await server.has_all()
            server.send(b"x" * 500_000)
            server.close()
            await client.has(500_005)
            await client.has_close_notify()
            await self.assert_logged(reason="done", bytes_out=500_005)

    async def test_finished_server_is_a_close_notify_and_the_client_may_send_on(self) -> None:
        """Its close without one is an end, and is logged."""
        client, server = await self.tls.relayed()
        await client.has_close_notify(server.finish)
        self.assertIsNone(client.lost)
        await client.tell(server, b"y" * 300_000, len(SSH) + 300_000)
        client.close_notify()
        await self.assert_ended(server, reason="done", bytes_in=len(SSH) + 300_000)
        self.forget()
        client, server = await self.tls.relayed()
        await server.has_all(client.close)
        self.assertFalse(server.was_reset())
        record = await self.assert_ended(server, reason="done")
        self.assertEqual(record.facts["tls_truncated"], "yes")

    async def test_tls_strict_resets_without_close_notify_after_the_bytes(self) -> None:
        for leave in self.anew(("close", "finish")):
            client, server = await self.tls.relayed(tls_strict=True)
            client.send(b"x" * 100_000)
            getattr(client, leave)()
            await server.has(len(SSH) + 100_000)
            await self.until_so(lambda server=server: server.lost)  # type: ignore[misc]
            self.assertTrue(server.was_reset())
            record = await self.assert_logged(
                len(self.records) or 1, reason="client-reset", bytes_in=len(SSH) + 100_000
            )
            self.assertEqual(record.facts["tls_truncated"], "yes")

    async def test_tls_strict_accepts_close_notify_or_a_server_that_closed_first(self) -> None:
        for first, strict in self.anew((("client", True), ("server", True), ("server", False))):
            client, server = await self.tls.relayed(tls_strict=strict)
            if first == "client":
                client.close_notify()
                await server.has_all(client.finish)
                server.send(b"answer")
                server.close()
                await client.has(11)
            else:
                await client.has_close_notify(server.close)
            client.close()
            record = await self.assert_logged(reason="done")
            self.assertNotIn("tls_truncated", record.facts)
            self.assertFalse(server.was_reset())

    async def test_tls_strict_routes_no_truncated_client(self) -> None:
        for strict in self.anew((True, False)):
            port = self.mux([self.tls.route(), self.tls.inner("ssh")], tls_strict=strict)
            client = await self.tls.client(port)
            client.send(b"SSH")
            await self.seen(3)
            client.finish()
            record = await self.assert_logged(reason="client-gone" if strict else "no-route")
            self.assertEqual(record.facts["tls_truncated"], "yes")

    async def test_garbage_breaks_the_connection_even_while_the_client_is_paused(self) -> None:
        client, server = await self.tls.relayed()
        client.transport.pauseProducing()
        server.send(b"x" * 20_000_000)
        client.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        client.transport.resumeProducing()
        while server.lost is None or client.lost is None:
            self.time.advance(0.05)
            if client.finished:
                client.close()
            await self.turn()
        self.assertTrue(server.was_reset())
        await self.assert_logged(reason="client-reset")

    async def test_protocol_in_process_gets_plaintext_and_half_close(self) -> None:
        """What it writes arrives in order, in all sizes; bytes for one that has closed are not kept."""
        client, server = await self.in_process()
        await server.has(len(SSH))
        self.assertEqual(server.transport.getPeer().host, "127.0.0.1")
        record, four = 2**14, 2**16
        edges = (0, 1, record, 2 * record, four, four + 914, four + 1024, 300_000)
        sizes = [max(0, edge + near) for edge in edges for near in (-1, 0, 1)]
        sent = bytearray()
        for number, size in enumerate(sizes, start=1):
            data = bytes([number]) * size
            server.send(data)
            sent += data
        await client.has(len(sent))
        self.assertEqual(client.received, sent)
        await server.has_all(client.close_notify)
        server.send(b"answer")
        server.close()
        await client.has(len(sent) + 6)
        await client.has_close_notify()
        await self.assert_logged(reason="done", bytes_in=len(SSH), bytes_out=len(sent) + 6)
        client, server = await self.in_process()
        await server.has(len(SSH))
        await client.has_close_notify(server.close)
        client.send(bytes(100_000))
        await self.seen(100_000)
        self.assertEqual(self.only().received, b"")

    async def test_no_transport_outlives_its_connection_without_gc(self) -> None:
        port = self.mux([self.tls.route(), self.tls.inner()])
        endings = ("close", "reset", "close_notify", "fail", "leave")
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for count, ending in enumerate(endings * 2, start=1):
            if ending == "leave":
                plain = await self.connect_read(
                    port, b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03"
                )
                plain.close()
            elif ending == "fail":
                plain = await self.connect(port, b"\x16\x03\x01\x40\x00\x01" + b"\xff" * 100)
            else:
                client = await self.tls.client(port)
                client.send(SSH)
                server = await self.backend.heard(len(SSH), len(self.backend.peers))
                getattr(client, ending)()
                while server.lost is None:
                    self.time.advance(0.05)
                    if server.finished:
                        server.close()
                    await self.turn()
            await self.passes(lambda count=count: len(self.records) >= count)  # type: ignore[misc]
        await self.turn(3)
        self.assertEqual(
            [thing for thing in gc.get_objects() if type(thing) in {TlsEnd, TlsTransport}], []
        )


class LevelTests(MuxTestCase):
    async def deep_client(self, innermost: Route) -> SecurePeer:
        inner = self.tls.route("deep", under="tls", files=(self.tls.pem("b.example"),))
        port = self.mux([self.tls.route(), inner, attrs.evolve(innermost, under=("deep",))])
        context = client_context(self.tls.ca)
        client = SecurePeer((context, "a.example"), (context, "b.example"))
        await connect_tls(self, port, client)
        await client.ready()
        client.send(SSH)
        return client

    async def deep(self) -> tuple[SecurePeer, Peer]:
        client = await self.deep_client(self.tls.inner())
        return client, await self.backend.heard(len(SSH))

    async def test_unmatched_plaintext_goes_to_the_routes_backend_or_the_default(self) -> None:
        backend, get = backend_at(self.backend_port()), b"GET / HTTP/1.1\r\n"
        ends, inner = self.tls.route(outcome=backend), self.tls.inner()
        usual = [self.tls.route(), inner]
        rows = ([ends, inner], CLOSE, get), ([ends], CLOSE, b"x"), (usual, backend, get)
        for routes, default, said in self.anew(rows):
            client = await self.tls.client(self.mux(routes, default=default))
            client.send(said)
            await self.backend.heard(len(said), len(self.backend.peers))
            client.reset()
            await self.assert_logged(route="tls", backend="backend")

    async def test_silent_client_goes_to_the_routes_backend_after_detect_timeout(self) -> None:
        """A refusal closes TLS cleanly."""
        client = await self.tls.client(self.mux([self.tls.route(), self.tls.inner()]))
        client.send(b"GET / HTTP/1.1\r\n")
        await client.has_close_notify()
        client.close()
        await self.assert_logged(reason="no-route", route="tls", backend=None)
        self.forget()
        ends = self.tls.route(outcome=backend_at(self.backend_port()))
        client = await self.tls.client(self.mux([ends, self.tls.inner()]))
        await self.turn(3)
        await self.assert_waits(5)
        server = await self.backend.peer()
        await server.tell(client, b"who is there?")

    async def test_routes_apply_to_their_own_layer_alone(self) -> None:
        outside = route("ssh", CLOSE, name="outside")
        port = self.mux([self.tls.route(), outside, self.tls.inner()])
        await self.connect_until_lost(port, SSH)
        await self.assert_logged(route="outside", reason="denied")
        client = await self.tls.client(port)
        client.send(SSH)
        await self.backend.heard(len(SSH))

    async def test_tls_in_tls_is_terminated_and_detected(self) -> None:
        client, server = await self.deep()
        await server.has_all(client.close_notify)
        server.send(b"x" * 200_000)
        server.close()
        await client.has(200_000)
        await self.until_closed(client)
        record = await self.assert_logged(
            reason="done", route="ssh", bytes_in=len(SSH), bytes_out=200_000
        )
        self.assertEqual(record.facts["sni"], "b.example")

    async def until_closed(self, client: SecurePeer) -> None:
        """Wait until the connection is closed, which takes a look once the client has acknowledged all."""
        await client.has_close_notify()
        await self.passes(lambda: client.finished, 0.5)

    async def test_end_outside_after_that_inside_cuts_nothing(self) -> None:
        """With a close-notify unread, or still to come, a closed socket would be reset, with the bytes on their way (RFC 2525, section 2.17).

        Nor does it cut an answer of a protocol in this process, whether its client has ended before the protocol closes, or afterwards.
        """
        for ends_first, is_inside in self.anew(((True, False), (True, True), (False, True))):
            inside = PeerFactory() if is_inside else self.backend
            innermost = route("ssh", inside, name="ssh") if is_inside else self.tls.inner()
            client = await self.deep_client(innermost)
            server = await inside.heard(len(SSH))
            client.transport.pauseProducing()
            if ends_first:
                await server.has_all(client.close_notify)
            server.send(b"x" * 300_000)
            if is_inside:
                server.close()
                await self.turn(3)
            else:
                await server.is_lost()
            if not ends_first:
                client.close_notify()
                await self.turn(3)
            # It ends outside, too, before it reads what it is sent.
            self.assertRaises(ssl.SSLWantReadError, client.layers[0].tls.unwrap)
            client.flush()
            await self.turn(3)
            client.transport.resumeProducing()
            await client.has(300_000)
            await self.until_closed(client)
            await self.assert_logged(reason="done", bytes_out=300_000)

    async def test_reset_breaks_every_layer_of_tls_in_tls(self) -> None:
        for begin in self.anew((self.tls.relayed, self.deep)):
            client, server = await begin()
            await self.is_reset(client, server.reset)
            await server.is_lost()
            self.assertFalse(client.told_close_notify)
            await self.assert_logged(reason="server-reset")

    async def test_reset_after_both_inner_ends_cuts_nothing(self) -> None:
        client, server = await self.deep()
        await client.has_close_notify(server.finish)
        client.transport.write = client.transport.getHandle().send
        client.close_notify()
        client.reset()
        await self.assert_logged(reason="done", bytes_in=len(SSH))
        await self.is_lost_cleanly(server)

    async def test_earlier_route_passes_acme_tls_through(self) -> None:
        """A drain ends a client in the middle of a handshake."""
        backend = backend_at(self.backend_port())
        port = self.mux([route("tls alpn=acme-tls/1", backend, name="acme"), self.tls.route()])
        client = await connect_tls(self, port, self.tls.peer(alpn=("acme-tls/1",)))
        server = await self.backend.heard(100)
        self.assertEqual(server.received[0], 0x16)
        server.close()
        await self.assert_ended(client, route="acme")
        half = await self.connect_read(port, b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
        self.factory.abort("drained")
        await self.assert_ended(half, 2, reason="drained")
