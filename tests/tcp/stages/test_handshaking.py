"""TLS that ends here: the plaintext that is relayed, and what is left in the end."""

from __future__ import annotations

import gc
import ssl

import attrs

from tests.support.mux import backend_at
from tests.support.peers import PeerFactory, make_stalled_port
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.tcp.stages.handshaking_case import SSH, TerminationCase
from txmux.net.tls.transport import TLSTransport
from txmux.rules.embedding import outcome, route


class RelayTests(TerminationCase):
    """Plaintext that is led to a server."""

    async def test_detected(self) -> None:
        """What the client says inside of TLS is told apart, and the log tells what was agreed on."""
        client, server = await self.relayed()
        self.assertEqual(bytes(server.received), SSH)
        client.close_notify()
        await server.has_all()
        server.close()
        await client.until(lambda: client.told_close_notify)
        record = await self.logged()
        self.assert_story(
            record, reason="done", route="ssh", backend="backend", bytes_in=len(SSH), bytes_out=5
        )
        expected = {"sni": "a.example", "tls": "1.3", "tls_version": "1.3"}
        self.assertLessEqual(expected.items(), record.facts.items())
        self.assertIn("tls_cipher", record.facts)
        self.assertNotIn("tls_client", record.facts)

    async def test_fallback_in_process(self) -> None:
        """A protocol of this process that is a fallback hears all that the client says, though that was held up before."""
        stalled = backend_at(make_stalled_port(self), fallback=outcome(self.backend), retries=0)
        inner = attrs.evolve(route("any", stalled), under=("tls",))
        client = await self.client(self.mux([self.tls_route(), inner], peek_limit=4000))
        client.send(bytes(1_000_000))
        await self.seen(4000)
        self.time.advance(5)
        server = await self.backend.heard(1_000_000)
        server.close()
        client.close_notify()
        await self.logged()

    async def test_half_close(self) -> None:
        """The client's close-notify is a half-close: the answer still comes, in full."""
        client, server = await self.relayed()
        client.close_notify()
        await server.has_all()
        answer = b"x" * 500_000
        server.send(answer)
        server.close()
        await client.has(5 + len(answer))
        await client.until(lambda: client.told_close_notify)
        self.assert_story(await self.logged(), reason="done", bytes_out=5 + len(answer))

    async def test_half_close_of_both_layers(self) -> None:
        """So it is if the client shuts down its TCP connection as well."""
        client, server = await self.relayed()
        client.close_notify()
        client.finish()
        await server.has_all()
        server.send(b"x" * 500_000)
        server.close()
        await client.has(500_005)
        await client.until(lambda: client.told_close_notify)
        self.assert_story(await self.logged(), reason="done")

    async def test_server_finishes(self) -> None:
        """A server that has finished is a close-notify for the client, which can go on sending."""
        client, server = await self.relayed()
        server.finish()
        await client.until(lambda: client.told_close_notify)
        self.assertIsNone(client.lost)
        client.send(b"y" * 300_000)
        await server.has(len(SSH) + 300_000)
        client.close_notify()
        await server.is_lost()
        self.assert_story(await self.logged(), reason="done", bytes_in=len(SSH) + 300_000)

    async def test_client_just_closes(self) -> None:
        """After the server's close-notify a client may close without one of its own."""
        client, server = await self.relayed()
        server.close()
        await client.until(lambda: client.told_close_notify)
        client.close()
        self.assert_story(await self.logged(), reason="done")

    async def test_client_leaves(self) -> None:
        """A client that closes without a close-notify, as many do, has finished; the log tells that there was none."""
        client, server = await self.relayed()
        client.close()
        await server.has_all()
        self.assertFalse(server.was_reset())
        await server.is_lost()
        record = await self.logged()
        self.assert_story(record, reason="done")
        self.assertEqual(record.facts["tls_truncated"], "yes")

    async def test_strict(self) -> None:
        """With ``tls_strict`` such a client has broken off, whether it still listens or not; its bytes get there before."""
        for leave in ("close", "finish"):
            client, server = await self.relayed(tls_strict=True)
            client.send(b"x" * 100_000)
            getattr(client, leave)()
            await server.has(len(SSH) + 100_000)
            await self.until_so(lambda server=server: server.lost)  # type: ignore[misc]
            self.assertTrue(server.was_reset())
            record = await self.logged(len(self.records) or 1)
            self.assert_story(record, reason="client-reset", bytes_in=len(SSH) + 100_000)
            self.assertEqual(record.facts["tls_truncated"], "yes")
            self.records.clear()
            self.backend.peers.clear()

    async def test_strict_and_close_notify(self) -> None:
        """One with a close-notify, or whose server was closed first, has not."""
        for first in ("client", "server"):
            client, server = await self.relayed(tls_strict=True)
            if first == "client":
                client.close_notify()
                client.finish()
                await server.has_all()
                server.send(b"answer")
                server.close()
                await client.has(11)
            else:
                server.close()
                await client.until(lambda c=client: c.told_close_notify)  # type: ignore[misc]
            client.close()
            record = await self.logged()
            self.assert_story(record, reason="done")
            self.assertNotIn("tls_truncated", record.facts)
            self.assertFalse(server.was_reset())
            self.records.clear()
            self.backend.peers.clear()

    async def test_strict_before_a_server(self) -> None:
        """It is led nowhere while there is no server yet; without ``tls_strict`` it is led on with what it has said."""
        for strict in (True, False):
            port = self.mux([self.tls_route(), self.inner("ssh")], tls_strict=strict)
            client = await self.client(port)
            client.send(b"SSH")
            await self.seen(3)
            client.finish()
            record = await self.logged()
            self.assert_story(record, reason="client-gone" if strict else "no-route")
            self.assertEqual(record.facts["tls_truncated"], "yes")
            self.records.clear()

    async def test_half_close_below(self) -> None:
        """It may even still want to hear the answer."""
        client, server = await self.relayed()
        client.finish()
        await server.has_all()
        server.send(b"x" * 500_000)
        server.close()
        await client.has(500_005)
        await client.until(lambda: client.told_close_notify)
        self.assert_story(await self.logged(), reason="done", bytes_out=500_005)

    async def test_server_resets(self) -> None:
        """A server that breaks off makes no answer look complete: no close-notify comes before the reset."""
        client, server = await self.relayed()
        server.reset()
        await self.is_gone(client)
        self.assertFalse(client.told_close_notify)
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="server-reset")

    async def test_client_resets(self) -> None:
        """A client that breaks off is a reset for the server."""
        client, server = await self.relayed()
        client.reset()
        await self.is_gone(server)
        self.assertTrue(server.was_reset())
        self.assert_story(await self.logged(), reason="client-reset")

    async def test_garbage(self) -> None:
        """Garbage in the middle breaks the connection, even while the client does not read."""
        client, server = await self.relayed()
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
        self.assert_story(await self.logged(), reason="client-reset")

    async def test_much(self) -> None:
        """Nothing is lost or changed while both sides send much, and neither reads in a hurry."""
        client, server = await self.relayed()
        up, down = bytes(range(256)) * 8_000, bytes(range(255, -1, -1)) * 8_000
        server.send(down)
        client.send(up)
        await server.has(len(SSH) + len(up))
        await client.has(5 + len(down))
        self.assertEqual(bytes(server.received), SSH + up)
        self.assertEqual(bytes(client.received), b"hello" + down)
        client.close_notify()
        await server.is_lost()
        await self.logged()

    async def test_sizes(self) -> None:
        """Writes of all sizes arrive, whole and in order: empty ones, whole records, and what just fills what is sent at once."""
        inside = PeerFactory()
        made = attrs.evolve(route("ssh", inside, name="ssh"), under=("tls",))
        client = await self.client(self.mux([self.tls_route(), made]))
        client.send(SSH)
        server = await inside.peer()
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
        client.close_notify()
        await server.has_all()
        server.close()
        self.assert_story(await self.logged(), reason="done", bytes_out=len(sent))

    async def test_last_words(self) -> None:
        """What comes with the close-notify in one piece is passed on before it."""
        client, server = await self.relayed()
        client._flush, flush = lambda: None, client._flush  # type: ignore[method-assign]
        client.send(bytes(50_000))
        client.close_notify()
        client._flush = flush  # type: ignore[method-assign]
        client._flush()
        await server.has_all()
        self.assertEqual(len(server.received), len(SSH) + 50_000)
        server.close()
        self.assert_story(await self.logged(), reason="done")

    async def test_in_one_go(self) -> None:
        """What comes right behind the handshake, in the same packet, is not lost."""
        port = self.mux([self.tls_route(), self.inner()])
        context = client_context(self.ca)
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        peer = SecurePeer((context, "a.example"))
        # The client's last message of the handshake and its first words leave together.
        peer._flush, flush = lambda: None if peer.tls.version() else flush(), peer._flush  # type: ignore[method-assign]
        await connect_tls(self, port, peer)
        await peer.ready()
        peer._flush = flush  # type: ignore[method-assign]
        peer.send(SSH)
        await self.backend.heard(len(SSH))

    async def test_much_in_one_go(self) -> None:
        """So it is if that is more than is read from a socket at once."""
        port = self.mux([self.tls_route(), self.inner()])
        context = client_context(self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        peer = SecurePeer((context, "a.example"))
        words = SSH + bytes(range(256)) * 800
        peer._flush, flush = lambda: None if peer.tls.version() else flush(), peer._flush  # type: ignore[method-assign]
        await connect_tls(self, port, peer)
        await peer.ready()
        peer._flush = flush  # type: ignore[method-assign]
        peer.send(words)
        server = await self.backend.heard(len(words))
        self.assertEqual(bytes(server.received), words)

    async def test_in_process(self) -> None:
        """A protocol of this process gets the connection inside of TLS, half-close included."""
        inside = PeerFactory()
        made = attrs.evolve(route("ssh", inside, name="ssh"), under=("tls",))
        client = await self.client(self.mux([self.tls_route(), made]))
        client.send(SSH)
        server = await inside.peer()
        await server.has(len(SSH))
        self.assertEqual(server.transport.getPeer().host, "127.0.0.1")
        client.close_notify()
        await server.has_all()
        server.send(b"answer")
        server.close()
        await client.has(6)
        await client.until(lambda: client.told_close_notify)
        self.assert_story(await self.logged(), reason="done", bytes_in=len(SSH), bytes_out=6)

    async def test_in_process_after_its_end(self) -> None:
        """What a client still says to a protocol that has closed is not kept."""
        inside = PeerFactory()
        made = attrs.evolve(route("ssh", inside, name="ssh"), under=("tls",))
        client = await self.client(self.mux([self.tls_route(), made]))
        client.send(SSH)
        server = await inside.peer()
        await server.has(len(SSH))
        server.close()
        await client.until(lambda: client.told_close_notify)
        client.send(bytes(100_000))
        await self.seen(100_000)
        (connection,) = self.factory.connections
        self.assertEqual(connection.received, b"")


class LeakTests(TerminationCase):
    """What is left when connections are over."""

    async def test_nothing_left(self) -> None:
        """No transport outlives its connection, however that ended, even without the garbage collector."""
        port = self.mux([self.tls_route(), self.inner()])
        endings = ("close", "reset", "close_notify", "fail", "leave")
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for count, ending in enumerate(endings * 2, start=1):
            if ending == "leave":
                plain = await self.connect(port, b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
                await self.seen(11)
                plain.close()
            elif ending == "fail":
                plain = await self.connect(port, b"\x16\x03\x01\x40\x00\x01" + b"\xff" * 100)
            else:
                client = await self.client(port)
                client.send(SSH)
                server = await self.backend.peer(len(self.backend.peers))
                await server.has(len(SSH))
                getattr(client, ending)()
                while server.lost is None:
                    self.time.advance(0.05)
                    if server.finished:
                        server.close()
                    await self.turn()
            while len(self.records) < count:
                self.time.advance(0.05)
                await self.turn()
        await self.turn(3)
        left = [thing for thing in gc.get_objects() if type(thing) is TLSTransport]
        self.assertEqual(left, [])
