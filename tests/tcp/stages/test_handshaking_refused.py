import ssl
from typing import Any

from tests.support.kit import Identity, Peer, authority, change_constants, connect, make_authority
from tests.support.mux import CLOSE, SSH, MuxTestCase
from tests.support.secure import CLOSE_NOTIFY, SecurePeer, client_context, connect_tls
from txmux.access import per_source
from txmux.rules.embedding import route
from txmux.rules.reading.route import allowed_client


class AgreementTests(MuxTestCase):
    async def test_certificate_follows_the_name(self) -> None:
        """Or the address that the client has come to, if there is one for that."""
        files = tuple(map(self.tls.pem, ("first.example", "*.wild.example", "x.wild.example")))
        port = self.mux([self.tls.route(files=files)])
        both = self.mux([self.tls.route(files=(files[0], self.tls.pem("127.0.0.1")))])
        for asked, shown in (
            ("first.example", "first.example"), ("a.wild.example", "*.wild.example"),
            ("X.Wild.Example", "x.wild.example"), ("a.b.wild.example", "first.example"),
            ("wild.example", "first.example"), ("other.example", "first.example"),
            (None, "first.example"), (None, "127.0.0.1"),
        ):  # fmt: skip
            context = client_context(self.tls.ca)
            context.check_hostname = False
            is_address = shown == "127.0.0.1"
            peer = self.tls.peer(asked, context=context)
            client = await connect_tls(self, both if is_address else port, peer)
            await client.ready()
            certificate: Any = client.tls.getpeercert()
            expected = "IP Address" if is_address else "DNS", shown
            self.assertEqual(certificate["subjectAltName"], (expected,), asked)
            await client.is_lost(client.reset)


class HandshakeTests(MuxTestCase):
    async def cause(self, peer: SecurePeer, port: int) -> str:
        await connect_tls(self, port, peer)
        await peer.failed()
        if peer.lost is None:
            peer.close()
        record = await self.assert_logged(reason="tls-failed", route="tls", backend=None)
        return record.facts["tls_error"]

    async def test_causes(self) -> None:
        stranger = make_authority("Stranger").write(self.tls.folder / "stranger.pem")
        old, weak = client_context(self.tls.ca), client_context(self.tls.ca)
        old.maximum_version = weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-SHA:@SECLEVEL=0")
        others = client_context(self.tls.ca, alpn=("imap", "pop3"))
        for end, context, cause in self.anew((
            ({"minimum": "1.3"}, old,
             "the client speaks only older versions of TLS than tls_minimum"),
            ({}, client_context(stranger),
             "the client ended the TLS handshake with the alert 'unknown ca'"),
            ({}, weak, "the client and txmux have no cipher in common"),
            ({"client_ca": self.tls.ca}, client_context(self.tls.ca),
             "the client has sent no certificate, but tls_client_ca wants one"),
            ({"alpn": ("h2", "http/1.1")}, others,
             "by ALPN the client offers only imap, pop3, which alpn does not name"),
        )):  # fmt: skip
            peer, port = self.tls.peer(context=context), self.mux([self.tls.route(**end)])
            self.assertEqual(await self.cause(peer, port), cause)
        self.assertIn("no application protocol", str(peer.failure).lower().replace("_", " "))

    async def test_certificate_that_is_offered_for_later_is_none(self) -> None:
        """Nothing asks for one after the handshake (RFC 8446, section 4.6.2)."""
        identity = authority().issue("alice", usage=False)
        context = client_context(self.tls.ca)
        context.post_handshake_auth = True
        port = self.mux([self.tls.route(client_ca=self.tls.ca), self.tls.inner()])
        cause = await self.cause(self.tls.peer(context=context), port)
        self.assertEqual(cause, "the client has sent no certificate, but tls_client_ca wants one")
        self.records.clear()
        context.load_cert_chain(identity.write(self.tls.folder / "alice.pem", key=True))
        open_port = self.mux([self.tls.route(name="open"), self.tls.inner(under="open")])
        client = await self.tls.client(open_port, context=context)
        client.send(SSH)
        await self.backend.heard(len(SSH))
        client.reset()
        self.assertNotIn("tls_client", (await self.logged()).facts)

    def shown_by(self, identity: Identity) -> SecurePeer:
        context = client_context(self.tls.ca)
        context.load_cert_chain(identity.write(self.tls.folder / "client.pem", key=True))
        return self.tls.peer(context=context)

    async def admitted(self, port: int, identity: Identity) -> SecurePeer:
        client = await connect_tls(self, port, self.shown_by(identity))
        await client.ready()
        client.send(SSH)
        await self.backend.heard(len(SSH))
        return client

    async def test_untrusted_certificates_are_refused_with_their_owner_in_the_log(self) -> None:
        stranger = make_authority("Stranger")
        old = authority().issue("old.example", begins=-2, ends=-1, usage=False)
        young = authority().issue("young.example", begins=1, usage=False)
        begin = f"{young.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        end = f"{old.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        foreign = "is of an authority that is not in tls_client_ca, 'CN=Stranger'"
        for identity, name, cause in self.anew((
            (stranger.issue("x.example", usage=False), "x.example", foreign), (old, "old.example", f"expired on {end}"),
            (young, "young.example", f"is valid only from {begin} on"),
            (authority().issue("server.example"), "server.example", "is not meant for clients"),
            (make_authority("Self"), "Self", "is self-signed, and not in tls_client_ca"),
        )):  # fmt: skip
            port = self.mux([self.tls.route(client_ca=self.tls.ca)])
            found = await self.cause(self.shown_by(identity), port)
            self.assertEqual(found, f"the certificate of 'CN={name}' {cause}")

    async def test_allow_client_admits_only_named_certificates(self) -> None:
        allowed = (allowed_client("cn=alice ou=ops"),)
        port = self.mux(
            [self.tls.route(client_ca=self.tls.ca, allow_client=allowed), self.tls.inner()]
        )
        rows = (
            (("dev",), "the certificate of 'CN=alice,OU=dev' is not one of those in allow_client"),
            ((), "the certificate of 'CN=alice' is not one of those in allow_client"),
        )
        for units, cause in self.anew(rows):
            peer = self.shown_by(authority().issue("alice", usage=False, units=units))
            self.assertEqual(await self.cause(peer, port), cause)
        stranger = make_authority("Stranger").issue("alice", usage=False, units=("ops",))
        self.assertIn("an authority that", await self.cause(self.shown_by(stranger), port))
        self.records.clear()
        identity = authority().issue("alice", usage=False, units=("ops",))
        client = await self.admitted(port, identity)
        client.reset()
        facts = (await self.logged()).facts
        self.assertEqual(
            (facts["tls_client"], facts["tls_client_names"]), ("CN=alice,OU=ops", "DNS:alice")
        )

    async def test_revoked(self) -> None:
        """A certificate that its authority has revoked, be it since, is refused, and so are all while the list cannot be trusted."""
        file = self.tls.folder / "crl.pem"
        good = authority().issue("good", usage=False)
        bad = authority().issue("bad", usage=False)
        end = self.tls.route(client_ca=self.tls.ca, client_crl=file)
        of = "CN=Test Authority"
        for revoked, identity, cause in self.anew((
            (authority().revoke(bad), bad, f"was revoked by {of!r}"),
            (authority().revoke(ends=-1), good,
             f"cannot be checked: the list of {of!r} in tls_client_crl has expired"),
            (make_authority("Stranger").revoke(), good,
             f"is of an authority of which tls_client_crl has no list, {of!r}"),
        )):  # fmt: skip
            file.write_bytes(revoked)
            reported = await self.cause(self.shown_by(identity), self.mux([end, self.tls.inner()]))
            name = "bad" if identity is bad else "good"
            self.assertEqual(reported, f"the certificate of 'CN={name}' {cause}")
        file.write_bytes(authority().revoke(bad))
        port = self.mux([end, self.tls.inner()])
        first = await self.admitted(port, good)
        await self.backend.peers[-1].tell(first, b"hello")
        new = self.tls.folder / "new.pem"
        new.write_bytes(authority().revoke(good))
        new.replace(file)
        self.time.advance(1.1)
        second = self.tls.peer(context=first.tls.context)
        second.tls.session = first.tls.session
        reported = await self.cause(second, port)
        self.assertEqual(reported, f"the certificate of 'CN=good' was revoked by {of!r}")

    async def test_what_follows_a_hello_or_ends_half_of_one_is_named(self) -> None:
        half = b"\x16\x03\x01\x00\x80\x01\x00\x00\x7c\x03\x03"
        left = "the client left in the middle of the TLS handshake"
        for said, does, cause in self.anew((
            (self.tls.hello() + CLOSE_NOTIFY, bool, left),
            (self.tls.hello() + b"and nothing of TLS", bool, "what the client sent is not TLS"),
            (self.tls.hello() + b"\x17\x03\x03\xff\xff" + bytes(99), bool,
             "what the client sent is not TLS"),
            (self.tls.hello() + b"\x17\x03\x03\x00\x05plain", bool,
             "a record of the handshake is damaged, or not encrypted as it should be"),
            (half, Peer.finish, left), (half, Peer.close, left), (half, Peer.reset, left),
            (half, None, "the TLS handshake took longer than detect_timeout"),
        )):  # fmt: skip
            client = await self.connect(self.mux([self.tls.route()]), said)
            if said == half:
                await self.seen(len(half))
            if does is None:
                await self.assert_waits(5)
            else:
                does(client)
            record = await self.assert_logged(reason="tls-failed", route="tls")
            self.assertEqual(record.facts["tls_error"], cause)

    async def test_garbage_and_a_half_close_end_the_handshake(self) -> None:
        garbage = b"\x16\x03\x01\x40\x00\x01" + b"\xff" * 100_000
        await self.connect_until_lost(self.mux([self.tls.route()]), garbage)
        record = await self.assert_logged(reason="tls-failed", route="tls")
        self.assertIn("tls_error", record.facts)
        first = route(r"payload text=\x16\x03\x01never", CLOSE, name="first")
        client = await self.connect(self.mux([first, self.tls.route(match="any")]), b"\x16\x03\x01")
        client.finish()
        await self.assert_ended(client, 2, reason="tls-failed")


class LimitTests(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        change_constants(self, per_source, MOST_PER_SOURCE=1)

    async def unfinished(
        self, port: int, source: str = "127.0.0.2", part: int = 0, more: bytes = b""
    ) -> Peer:
        hello = self.tls.hello()
        peer = await connect(self, port, source=source)
        peer.send(hello[: part or None] + more)
        return peer

    async def answered(self, *peers: Peer) -> None:
        self.time.advance(0)
        for peer in peers:
            await peer.has(500)

    async def waiting(self, port: int, count: int) -> list[Peer]:
        (limited,) = self.factory.runtime.handshakes.sources.values()
        peers = [await self.unfinished(port) for _ in range(count)]
        while len(limited.waiting) < count:
            await self.turn()
        await self.turn(3)
        self.assertEqual([bytes(peer.received) for peer in peers], [b""] * count)
        return peers

    async def test_further_ones_wait_in_order(self) -> None:
        change_constants(self, per_source, MOST_PER_SOURCE=2)
        port = self.mux([self.tls.route()])
        begun = [await self.unfinished(port) for _ in range(2)]
        await self.answered(*begun)
        second, third, last = await self.waiting(port, 3)
        await self.answered(await self.unfinished(port, "127.0.0.3"))
        begun[0].close()
        await self.assert_logged(1, reason="tls-failed")
        await self.answered(second)
        second.reset()
        await self.assert_logged(2, reason="tls-failed")
        await self.answered(third)
        self.assertEqual(bytes(last.received), b"")

    async def test_handshake_that_takes_long_makes_room(self) -> None:
        change_constants(self, per_source, MOST_PER_SOURCE=2)
        port = self.mux([self.tls.route()])
        old = [await self.unfinished(port) for _ in range(2)]
        await self.answered(*old)
        self.time.advance(1.9)
        waiting = await self.waiting(port, 3)
        self.time.advance(2.2)
        for peer in old:
            await peer.is_lost()
        await self.assert_logged(2, reason="limit", route="tls")
        await self.answered(*waiting[:2])
        self.time.advance(1.9)
        await self.turn(3)
        self.assertEqual(bytes(waiting[2].received), b"")
        self.time.advance(0.2)
        await self.answered(waiting[2])
        await self.assert_logged(3, reason="limit", route="tls")

    async def test_client_waits_for_detect_timeout(self) -> None:
        """It may not send much meanwhile."""
        port = self.mux([self.tls.route()])
        await self.answered(await self.unfinished(port))
        (peer,) = await self.waiting(port, 1)
        peer.send(bytes(4096))
        await self.assert_ended(peer, reason="limit", route="tls")
        at_once = await self.unfinished(port, more=bytes(4096))
        await self.assert_ended(at_once, 2, reason="limit", route="tls")
        *begun, last = await self.waiting(port, 3)
        for number, peer in enumerate(begun, 3):
            self.time.advance(2.2)
            await self.logged(number)
            await self.answered(peer)
        self.time.advance(0.6)  # to the very end
        await last.is_lost()
        self.assertEqual(bytes(last.received), b"")
        await self.logged(5)
        self.assertEqual({record.reason for record in self.records}, {"limit"})

    async def test_handshake_that_has_waited_has_its_time(self) -> None:
        port = self.mux([self.tls.route()], detect_timeout=5)
        first = await self.unfinished(port)
        await self.answered(first)
        (peer,) = await self.waiting(port, 1)
        self.time.advance(1.0)
        first.close()
        await self.assert_logged(1, reason="tls-failed")
        await self.answered(peer)
        self.time.advance(4.9)
        await self.turn(3)
        self.assertEqual(len(self.records), 1)
        self.time.advance(0.2)
        record = await self.assert_ended(peer, 2, reason="tls-failed")
        self.assertIn("took longer than detect_timeout", record.facts["tls_error"])

    async def test_every_kind_of_end_makes_room(self) -> None:
        port = self.mux([self.tls.route(), self.tls.inner()])
        for number, end in enumerate((Peer.close, Peer.reset, Peer.finish, None), 1):
            peer = await self.unfinished(port, "127.0.0.1")
            await self.answered(peer)
            if end is None:
                self.time.advance(5)
            else:
                end(peer)
            await self.assert_logged(number, reason="tls-failed")
        for peer in [await self.tls.client(port) for _ in range(2)]:
            peer.reset()
        await self.logged(6)
        self.assertEqual(self.factory.runtime.handshakes.sources, {})

    async def test_who_waits_may_leave(self) -> None:
        port = self.mux([self.tls.route()])
        first = await self.unfinished(port)
        await self.answered(first)
        waiting = await self.waiting(port, 3)
        waiting[0].reset()
        await self.assert_logged(1, reason="tls-failed")
        waiting[1].finish()
        first.close()
        await self.logged(2)
        self.time.advance(0)
        await self.logged(3)
        await self.answered(waiting[2])
        self.factory.abort("drained")
        await self.assert_logged(4, reason="drained")
        self.assertEqual(self.factory.runtime.handshakes.sources, {})

    async def test_handshake_begins_when_the_hello_is_complete(self) -> None:
        port = self.mux([self.tls.route(match="any")])
        for part in (1, 4, 100):
            await self.unfinished(port, part=part)
        while sum(one.record.bytes_in for one in self.factory.connections) < 105:
            await self.turn()
        await self.answered(await self.unfinished(port))
