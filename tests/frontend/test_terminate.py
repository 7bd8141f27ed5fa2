"""TLS that ends here, and what is found inside of it."""

from __future__ import annotations

import gc
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from tests.backends.certificates import Identity, make_authority
from tests.backends.tls_case import authority
from tests.support.mux import CLOSE, MuxTestCase, backend_at
from tests.support.peers import Peer, PeerFactory
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.embedding import route
from txmux.rules.client_model import TlsEnd
from txmux.tls.transport import TLSTransport

if TYPE_CHECKING:
    from txmux.rules.model import Route

SSH = b"SSH-2.0-test\r\n"


class TerminationCase(MuxTestCase):
    """Ends TLS with certificates of one authority.

    Attributes:
        folder: For files; removed with the test.
        ca: The file of the authority.
    """

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="txmux-tls-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.ca = authority().write(self.folder / "ca.pem")

    def pem(self, *names: str, file: str = "") -> Path:
        """Write a certificate with its key."""
        identity = authority().issue(*names)
        return identity.write(self.folder / (file or f"{names[0]}.pem"), key=True)

    def tls_route(
        self, name: str = "tls", match: str = "tls", under: str = "", **end: Any
    ) -> Route:
        """Make a route that ends TLS."""
        files = end.pop("files", None) or (self.pem("a.example"),)
        outcome = end.pop("outcome", None)
        made = route(match, outcome or CLOSE, name=name)
        return attrs.evolve(
            made,
            outcome=outcome,
            terminate_tls=TlsEnd(files, **end),
            under=(under,) if under else (),
        )

    def inner(self, match: str = "ssh", under: str = "tls", name: str = "") -> Route:
        """Make a route to the test's backend, inside of TLS."""
        made = route(match, backend_at(self.backend_port()), name=name or match)
        return attrs.evolve(made, under=(under,))

    def peer(self, name: str | None = "a.example", **settings: Any) -> SecurePeer:
        """Make a client."""
        context = settings.pop("context", None) or client_context(self.ca, **settings)
        return SecurePeer((context, name))

    async def client(self, port: int, name: str = "a.example", **settings: Any) -> SecurePeer:
        """Connect a client, and wait for TLS."""
        peer = await connect_tls(self, port, self.peer(name, **settings))
        await peer.ready()
        # A client is ready before its last message has come.
        while not all(connection.ended_tls for connection in self.factory.connections):
            await self.turn()
        return peer

    async def is_broken(self, client: Peer) -> None:
        """Wait until a client is told that its connection broke.

        What was sent to it before has to be acknowledged, for which txmux looks again and again.
        """
        while client.lost is None:
            self.time.advance(0.05)
            await self.turn()

    async def relayed(self, **settings: Any) -> tuple[SecurePeer, Peer]:
        """Have a client connected to the backend."""
        port = self.mux([self.tls_route(), self.inner()], **settings)
        client = await self.client(port)
        client.send(SSH)
        server = await self.backend.peer()
        await server.has(len(SSH))
        server.send(b"hello")
        await client.has(5)
        return client, server


class RelayTests(TerminationCase):
    """Plaintext that is led to a server."""

    async def test_detected(self) -> None:
        """What the client says inside of TLS is told apart, and the log tells what was agreed on."""
        client, server = await self.relayed()
        self.assertEqual(bytes(server.received), SSH)
        client.goodbye()
        await server.has_all()
        server.close()
        await client.until(lambda: client.told_goodbye)
        record = await self.logged()
        self.assert_story(
            record,
            reason="done",
            route="ssh",
            backend="backend",
            bytes_in=len(SSH),
            bytes_out=5,
        )
        wanted = {"sni": "a.example", "tls": "1.3", "tls_version": "1.3"}
        self.assertLessEqual(wanted.items(), record.facts.items())
        self.assertIn("tls_cipher", record.facts)
        self.assertNotIn("tls_client", record.facts)

    async def test_half_close(self) -> None:
        """The client's close-notify is a half-close: the answer still comes, in full."""
        client, server = await self.relayed()
        client.goodbye()
        await server.has_all()
        answer = b"x" * 500_000
        server.send(answer)
        server.close()
        await client.has(5 + len(answer))
        await client.until(lambda: client.told_goodbye)
        self.assert_story(await self.logged(), reason="done", bytes_out=5 + len(answer))

    async def test_half_close_of_both_layers(self) -> None:
        """So it is if the client shuts down its TCP connection as well."""
        client, server = await self.relayed()
        client.goodbye()
        client.finish()
        await server.has_all()
        server.send(b"x" * 500_000)
        server.close()
        await client.has(500_005)
        await client.until(lambda: client.told_goodbye)
        self.assert_story(await self.logged(), reason="done")

    async def test_server_finishes(self) -> None:
        """A server that has finished is a close-notify for the client, which can go on sending."""
        client, server = await self.relayed()
        server.finish()
        await client.until(lambda: client.told_goodbye)
        self.assertIsNone(client.lost)
        client.send(b"y" * 300_000)
        await server.has(len(SSH) + 300_000)
        client.goodbye()
        await server.is_lost()
        self.assert_story(await self.logged(), reason="done", bytes_in=len(SSH) + 300_000)

    async def test_client_just_closes(self) -> None:
        """After the server's goodbye a client may close without one of its own."""
        client, server = await self.relayed()
        server.close()
        await client.until(lambda: client.told_goodbye)
        client.close()
        self.assert_story(await self.logged(), reason="done")

    async def test_client_leaves(self) -> None:
        """A client that closes without any goodbye, as many do, has finished."""
        client, server = await self.relayed()
        client.close()
        await server.has_all()
        self.assertFalse(server.was_reset())
        await server.is_lost()
        self.assert_story(await self.logged(), reason="done")

    async def test_half_close_below(self) -> None:
        """It may even still want to hear the answer."""
        client, server = await self.relayed()
        client.finish()
        await server.has_all()
        server.send(b"x" * 500_000)
        server.close()
        await client.has(500_005)
        await client.until(lambda: client.told_goodbye)
        self.assert_story(await self.logged(), reason="done", bytes_out=500_005)

    async def test_server_resets(self) -> None:
        """A server that breaks off makes no answer look complete: no close-notify comes before the reset."""
        client, server = await self.relayed()
        server.reset()
        await self.is_broken(client)
        self.assertFalse(client.told_goodbye)
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="server-reset")

    async def test_client_resets(self) -> None:
        """A client that breaks off is a reset for the server."""
        client, server = await self.relayed()
        client.reset()
        await server.is_lost()
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
        client.goodbye()
        await server.is_lost()
        await self.logged()

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
        server = await self.backend.peer()
        await server.has(len(SSH))

    async def test_in_process(self) -> None:
        """A protocol of this process gets the connection inside of TLS, half-close included."""
        inside = PeerFactory()
        made = attrs.evolve(route("ssh", inside, name="ssh"), under=("tls",))
        client = await self.client(self.mux([self.tls_route(), made]))
        client.send(SSH)
        server = await inside.peer()
        await server.has(len(SSH))
        self.assertEqual(server.transport.getPeer().host, "127.0.0.1")
        client.goodbye()
        await server.has_all()
        server.send(b"answer")
        server.close()
        await client.has(6)
        await client.until(lambda: client.told_goodbye)
        self.assert_story(await self.logged(), reason="done", bytes_in=len(SSH), bytes_out=6)


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
        """Where nothing leads anywhere, TLS is closed in good order."""
        client = await self.client(self.mux([self.tls_route(), self.inner()]))
        client.send(b"GET / HTTP/1.1\r\n")
        await client.until(lambda: client.told_goodbye)
        client.close()
        self.assert_story(await self.logged(), reason="no-route", route="tls", backend=None)

    async def test_not_under_it(self) -> None:
        """Routes of the listener mean nothing inside, and those inside nothing outside."""
        outside = route("ssh", CLOSE, name="outside")
        port = self.mux([self.tls_route(), outside, self.inner()])
        plain = await self.connect(port)
        plain.send(SSH)
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
        server = await self.backend.peer()
        await server.has(len(SSH))
        client.goodbye()
        await server.has_all()
        server.send(b"x" * 200_000)
        server.close()
        await client.has(200_000)
        await client.until(lambda: client.told_goodbye)
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
        server = await self.backend.peer()
        await server.has(len(SSH))
        server.reset()
        await self.is_broken(client)
        self.assertTrue(client.was_reset())
        self.assertFalse(client.told_goodbye)
        self.assert_story(await self.logged(), reason="server-reset")

    async def test_passed_through(self) -> None:
        """A route before it can take some TLS as it is: validation by ACME is a matter of ALPN (RFC 8737)."""
        port = self.mux(
            [
                route("tls alpn=acme-tls/1", backend_at(self.backend_port()), name="acme"),
                self.tls_route(),
            ]
        )
        client = await connect_tls(self, port, self.peer(alpn=("acme-tls/1",)))
        server = await self.backend.peer()
        await server.has(100)
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
        server = await self.backend.peer()
        await server.has(len(startup))
        self.assertEqual(bytes(server.received), startup)
        client.goodbye()
        await server.is_lost()
        self.assert_story(await self.logged(), route="pg", reason="done")

    async def test_drained(self) -> None:
        """At the stop a client that shakes hands is ended as any other."""
        port = self.mux([self.tls_route()])
        client = await self.connect(port)
        client.send(b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
        await self.seen(11)
        self.factory.abort("drained")
        await client.is_lost()
        self.assert_story(await self.logged(), reason="drained")


class HandshakeTests(TerminationCase):
    """What can go wrong, and is logged."""

    async def cause(self, peer: SecurePeer, port: int) -> str:
        """Shake hands in vain, and give the logged cause."""
        await connect_tls(self, port, peer)
        await peer.failed()
        if peer.lost is None:
            peer.close()
        record = await self.logged()
        self.assert_story(record, reason="tls-failed", route="tls", backend=None)
        return record.facts["tls_error"]

    def trusting(self, **settings: Any) -> ssl.SSLContext:
        """Make a client's context with some attributes set."""
        context = client_context(self.ca)
        for name, value in settings.items():
            setattr(context, name, value)
        return context

    async def test_old_client(self) -> None:
        """TLS older than tls_minimum is not spoken."""
        port = self.mux([self.tls_route(minimum="1.3")])
        context = self.trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
        self.assertEqual(
            await self.cause(self.peer(context=context), port),
            "the client speaks only older versions of TLS than tls_minimum",
        )

    async def test_distrusting_client(self) -> None:
        """A client that does not know the authority says so."""
        stranger = make_authority("Stranger").write(self.folder / "stranger.pem")
        port = self.mux([self.tls_route()])
        self.assertEqual(
            await self.cause(self.peer(context=client_context(stranger)), port),
            "the client ended the TLS handshake with the alert 'unknown ca'",
        )

    async def test_no_cipher(self) -> None:
        """A client may know no cipher that is strong enough."""
        context = self.trusting(maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("AES128-SHA:@SECLEVEL=0")
        cause = await self.cause(self.peer(context=context), self.mux([self.tls_route()]))
        self.assertEqual(cause, "the client and txmux have no cipher in common")

    async def test_no_protocol(self) -> None:
        """A client that offers protocols, but none of those that are spoken, is told so."""
        port = self.mux([self.tls_route(alpn=("h2", "http/1.1"))])
        peer = self.peer(alpn=("imap", "pop3"))
        self.assertEqual(
            await self.cause(peer, port),
            "by ALPN the client offers only imap, pop3, which alpn does not name",
        )
        self.assertIn("no application protocol", str(peer.failure).lower().replace("_", " "))

    async def test_no_certificate(self) -> None:
        """With tls_client_ca a client without a certificate is turned away."""
        port = self.mux([self.tls_route(client_ca=self.ca)])
        peer = self.peer()
        self.assertEqual(
            await self.cause(peer, port),
            "the client has sent no certificate, but tls_client_ca wants one",
        )

    def shown_by(self, identity: Identity) -> SecurePeer:
        """Make a client with a certificate."""
        context = client_context(self.ca)
        context.load_cert_chain(identity.write(self.folder / "client.pem", key=True))
        return self.peer(context=context)

    async def test_bad_certificates(self) -> None:
        """So is one whose certificate is none that is trusted, and the cause tells whose it was."""
        stranger = make_authority("Stranger")
        old = authority().issue("old.example", begins=-2, ends=-1, usage=False)
        young = authority().issue("young.example", begins=1, usage=False)
        begin = young.certificate.not_valid_before_utc
        for identity, cause in (
            (
                stranger.issue("x.example", usage=False),
                "the certificate of 'CN=x.example' is of an authority that is not in tls_client_ca, 'CN=Stranger'",
            ),
            (
                old,
                f"the certificate of 'CN=old.example' expired on {old.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            ),
            (
                young,
                f"the certificate of 'CN=young.example' is valid only from {begin:%Y-%m-%d %H:%M} UTC on",
            ),
            (
                authority().issue("server.example"),
                "the certificate of 'CN=server.example' is not meant for clients",
            ),
            (
                make_authority("Self"),
                "the certificate of 'CN=Self' is self-signed, and not in tls_client_ca",
            ),
        ):
            port = self.mux([self.tls_route(client_ca=self.ca)])
            self.assertEqual(await self.cause(self.shown_by(identity), port), cause)
            self.records.clear()

    async def test_client_certificate(self) -> None:
        """A client with a good one is let in, and the log tells who it is."""
        identity = authority().issue("alice", usage=False)
        port = self.mux([self.tls_route(client_ca=self.ca), self.inner()])
        client = await connect_tls(self, port, self.shown_by(identity))
        await client.ready()
        client.send(SSH)
        await (await self.backend.peer()).has(len(SSH))
        client.reset()
        record = await self.logged()
        self.assertEqual(record.facts["tls_client"], "CN=alice")

    async def test_garbage(self) -> None:
        """Garbage records end the handshake at the first of them."""
        port = self.mux([self.tls_route()])
        client = await self.connect(port)
        client.send(b"\x16\x03\x01\x40\x00\x01" + b"\xff" * 100_000)
        await client.is_lost()
        record = await self.logged()
        self.assert_story(record, reason="tls-failed", route="tls")
        self.assertIn("tls_error", record.facts)

    async def test_slow(self) -> None:
        """A handshake has detect_timeout."""
        port = self.mux([self.tls_route()])
        client = await self.connect(port)
        client.send(b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
        await self.seen(11)
        self.time.advance(4.9)
        await self.turn(3)
        self.assertEqual(self.records, [])
        self.time.advance(0.2)
        await client.is_lost()
        record = await self.logged()
        self.assert_story(record, reason="tls-failed")
        self.assertEqual(
            record.facts["tls_error"], "the TLS handshake took longer than detect_timeout"
        )

    async def test_gone(self) -> None:
        """A client may leave in the middle of it, in good order or not."""
        for leave in ("finish", "close", "reset"):
            port = self.mux([self.tls_route()])
            client = await self.connect(port)
            client.send(b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
            await self.seen(11)
            getattr(client, leave)()
            record = await self.logged()
            self.assert_story(record, reason="tls-failed")
            self.assertEqual(
                record.facts["tls_error"], "the client left in the middle of the TLS handshake"
            )
            self.records.clear()

    async def test_finished_before(self) -> None:
        """A client that is led here because it sends no more cannot shake hands."""
        first = route(r"payload text=\x16\x03\x01never", CLOSE, name="first")
        client = await self.connect(self.mux([first, self.tls_route(match="any")]))
        client.send(b"\x16\x03\x01")
        client.finish()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="tls-failed")


class LeakTests(TerminationCase):
    """What is left when connections are over."""

    async def test_nothing_left(self) -> None:
        """No transport outlives its connection, however that ended, even without the garbage collector."""
        port = self.mux([self.tls_route(), self.inner()])
        endings = ("close", "reset", "goodbye", "fail", "leave")
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for count, ending in enumerate(endings * 2, start=1):
            if ending == "leave":
                plain = await self.connect(port)
                plain.send(b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03")
                await self.seen(11)
                plain.close()
            elif ending == "fail":
                plain = await self.connect(port)
                plain.send(b"\x16\x03\x01\x40\x00\x01" + b"\xff" * 100)
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


class AgreementTests(TerminationCase):
    """What is agreed on."""

    async def test_order_of_alpn(self) -> None:
        """Of the protocols that a client offers, the first one here is taken; a client may offer none."""
        port = self.mux([self.tls_route(alpn=("h2", "http/1.1"))])
        for offered, agreed in (
            (("http/1.1", "h2"), "h2"),
            (("spdy/3", "http/1.1"), "http/1.1"),
            ((), None),
        ):
            client = await self.client(port, alpn=offered)
            self.assertEqual(client.tls.selected_alpn_protocol(), agreed)
            client.reset()
            record = await self.logged()
            self.assertEqual(record.facts.get("tls_alpn"), agreed)
            self.records.clear()

    async def test_no_alpn(self) -> None:
        """Without the key no protocol is agreed on."""
        client = await self.client(self.mux([self.tls_route()]), alpn=("h2",))
        self.assertIsNone(client.tls.selected_alpn_protocol())

    async def test_certificate_by_name(self) -> None:
        """The certificate goes by the name that is asked for; the first one is for all others."""
        files = tuple(map(self.pem, ("first.example", "*.wild.example", "x.wild.example")))
        port = self.mux([self.tls_route(files=files)])
        for asked, shown in (
            ("first.example", "first.example"),
            ("a.wild.example", "*.wild.example"),
            ("X.Wild.Example", "x.wild.example"),
            ("a.b.wild.example", "first.example"),
            ("wild.example", "first.example"),
            ("other.example", "first.example"),
            (None, "first.example"),
        ):
            context = client_context(self.ca)
            context.check_hostname = False
            client = await connect_tls(self, port, self.peer(asked, context=context))
            await client.ready()
            certificate: Any = client.tls.getpeercert()
            self.assertEqual(certificate["subjectAltName"], (("DNS", shown),), asked)
            client.reset()
            await client.is_lost()

    async def test_session_again(self) -> None:
        """A client can come back with the session that it had, in TLS 1.2 and 1.3."""
        port = self.mux([self.tls_route(client_ca=self.ca), self.inner()])
        identity = authority().issue("alice", usage=False)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(self.ca)
            context.maximum_version = context.minimum_version = version
            context.load_cert_chain(identity.write(self.folder / "client.pem", key=True))
            first = await connect_tls(self, port, self.peer(context=context))
            await first.ready()
            first.send(SSH)
            server = await self.backend.peer(len(self.backend.peers))
            server.send(b"hello")
            await first.has(5)
            session = first.tls.session
            second = self.peer(context=context)
            second.tls.session = session
            await connect_tls(self, port, second)
            await second.ready()
            self.assertTrue(second.tls.session_reused)
            second.send(SSH)
            await (await self.backend.peer(len(self.backend.peers))).has(len(SSH))
            for client in (first, second):
                client.reset()
        while len(self.records) < 4:
            await self.turn()
        self.assertEqual({record.facts["tls_client"] for record in self.records}, {"CN=alice"})
