"""A second hello asks for the same as the first, by which its client was routed (RFC 8446, section 4.1.2)."""

import ssl
from typing import Any
from unittest import SkipTest

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.support.kit import Peer, SecurePeer, client_context, close, connect_tls
from tests.support.mux import CLOSE, SSH, MuxTestCase, backend_at
from tests.wire import hello_builder
from tests.wire.hello_builder import alpn, extension, records, server_hello, server_name, sized
from txmux.rules.embedding import route
from txmux.rules.model import Route
from txmux.rules.optional import missing
from txmux.wire.hello.records import asks_again

CHANGED = bytes.fromhex("140303000101")  # for old middleboxes
ILLEGAL = bytes.fromhex("1503030002022f")
_GROUPS = extension(10, sized(2, b"\0\x1d"))
_SIGNATURES = extension(13, sized(2, b"\4\3"))
_KEY_SHARE = 51


def hello(*more: bytes, name: str = "a.test", share: bool = False, version: int = 0x0304) -> bytes:
    """Make the records of a hello; OpenSSL asks for a second one, unless it has a share of a key."""
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    shares = extension(_KEY_SHARE, sized(2, b"\0\x1d" + sized(2, public) if share else b""))
    parts = hello_builder.versions(version), _GROUPS, _SIGNATURES, shares, *more
    return records(hello_builder.client_hello(server_name(name), *parts, session_id=bytes(32)))


class EndsHereTest(MuxTestCase):
    def named(self, **settings: Any) -> int:
        end = self.tls.route(
            match="tls sni=a.test", outcome=backend_at(self.backend_port()), alpn=("h2", "x")
        )
        return self.mux([end], **settings)

    async def asked_again(self, *more: bytes) -> Peer:
        client = await self.connect(self.named(), hello(*more))
        await client.until(lambda: bool(asks_again(bytes(client.received))))
        self.before = len(client.received)
        return client

    async def test_another_name_protocol_or_version_is_illegal(self) -> None:
        """One that does not come is not waited for without end."""
        for first, second, what in self.anew((
            ((), hello(name="vip.test", share=True), "server name"),
            ((), hello(name="A\x1b.test", share=True), "server name"),
            ((alpn(b"x"),), hello(alpn(b"h2"), share=True), "application protocols"),
            ((), hello(alpn(b"h2"), share=True), "application protocols"), ((), CHANGED * 6000, ""),
        )):  # fmt: skip
            client = await self.asked_again(*first)
            client.send(CHANGED + second)
            await client.has_all()
            self.assertEqual(bytes(client.received)[self.before :], ILLEGAL)
            client.close()
            record = await self.assert_logged(reason="tls-failed", route="tls", backend=None)
            why = f"has other {what} than the first" if what else "is too long"
            expected = f"the TLS handshake failed: the second hello {why}"
            self.assertEqual((record.facts["tls_error"], record.facts["sni"]), (expected, "a.test"))

    async def test_the_same_is_served_however_it_is_cut(self) -> None:
        for size in self.anew((1, 1000)):
            client = await self.asked_again()
            said = CHANGED + hello(name="A.test.", share=True)
            await self.send_in_pieces(client, said, size)
            await client.has(self.before + 500)  # its certificate
            self.assertNotIn(ILLEGAL, client.received)
            client.reset()
            await self.logged()

    async def connected(self, port: int, peer: SecurePeer) -> SecurePeer:
        await connect_tls(self, port, peer)
        await peer.ready()
        peer.send(SSH)
        server = await self.backend.heard(len(SSH), len(self.backend.peers))
        await server.tell(peer, b"hello")
        return peer

    async def test_a_ticket_of_another_name(self) -> None:
        """A session is resumed only for the name that it was made for (RFC 6066, section 3), else the client gets what its hello asks for, with a whole handshake."""
        end = self.tls.route(files=(self.tls.pem("a.test", "vip.test"),), alpn=("x", "y"))
        inner = self.tls.inner()
        everywhere = self.mux([end, inner])
        for version in self.anew((ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)):
            context = client_context(self.tls.ca, alpn=("y",))
            context.maximum_version = context.minimum_version = version
            first = await self.connected(everywhere, SecurePeer((context, "vip.test")))
            for name, is_resumed in (("a.test", False), ("vip.test", True)):
                peer = SecurePeer((context, name))
                peer.tls.session = first.tls.session
                await self.connected(everywhere, peer)
                self.assertEqual(peer.tls.session_reused, is_resumed, (version, name))
                self.records.clear()
                peer.reset()
                record = await self.logged()
                found = record.facts["sni"], record.facts["tls_alpn"]
                self.assertEqual(found, (name, "y"))
            first.reset()
            await self.until_logged(2)


class WithinTest(MuxTestCase):
    async def assert_illegal(self, client: Peer) -> None:
        client.send(hello())
        await client.until(lambda: bool(asks_again(bytes(client.received).removeprefix(b"S"))))
        client.send(CHANGED + hello(name="vip.test", share=True))
        await client.until(lambda: client.received.endswith(ILLEGAL))
        client.close()
        self.assertEqual((await self.logged()).facts["sni"], "a.test")
        self.records.clear()

    async def test_starttls(self) -> None:
        if why := missing("starttls"):
            raise SkipTest(why)
        end = self.tls.route(match="tls sni=a.test")
        more = {"starttls": "smtp", "starttls_banner": "here ESMTP"}
        port = self.mux([end], more=more)
        client = await self.connect(port)
        for said in (b"", b"EHLO me\r\n", b"STARTTLS\r\n"):
            client.received.clear()
            client.send(said)
            await client.until(lambda: client.received.endswith(b"\r\n"))
        client.received.clear()
        await self.assert_illegal(client)

    async def test_postgresql(self) -> None:
        port = self.mux([self.tls.route(match="postgres sni=a.test")])
        client = await self.connect(port, bytes.fromhex("0000000804d2162f"))
        await client.has(1)
        await self.assert_illegal(client)

    async def test_tls_inside_tls(self) -> None:
        for ends in self.anew((True, False)):
            server = backend_at(self.backend_port())
            deep = self.tls.route("deep", match="tls sni=a.test", under="tls")
            passed = attrs.evolve(route("tls sni=a.test", server, name="deep"), under=("tls",))
            port = self.mux([self.tls.route(), deep if ends else passed])
            client = await self.tls.client(port)
            if ends:
                await self.assert_illegal(client)
                continue
            client.send(hello())
            peer = await self.backend.heard(len(hello()))
            await peer.tell(client, records(server_hello()), 10)
            client.send(CHANGED + hello(name="vip.test"))
            await client.until(lambda c=client: c.received.endswith(ILLEGAL))  # type: ignore[misc]
            self.assertEqual(bytes(peer.received), hello())
            client.close()
            await self.assert_logged(reason="tls-failed", route="deep")


class PassedOnTest(MuxTestCase):
    answer = records(server_hello(bytes(32))) + b"the rest"
    retry = records(server_hello()) + CHANGED

    def names(self, *more: Route, **settings: Any) -> int:
        server = backend_at(self.backend_port())
        routes = route("tls sni=vip.test", CLOSE, name="vip"), route("tls", server, name="all")
        return self.mux([*more, *routes], **settings)

    async def asked_again(
        self, first: bytes, more: bytes = b"", cut: int = 1000
    ) -> tuple[Peer, Peer]:
        client, server = await self.both(self.names(), first + more, len(first))
        self.assertEqual(bytes(server.received), first)
        for at in range(0, len(self.retry), cut):
            server.send(self.retry[at : at + cut])
            await self.turn(3)
        await client.has(len(self.retry))
        return client, server

    async def test_a_second_hello_for_something_else_reaches_no_server(self) -> None:
        rows = (
            (hello(), hello(name="vip.test"), "server name", b""),
            (hello(), hello(name="vip.test"), "server name", CHANGED + hello(name="vip.test")),
            (hello(alpn(b"x")), hello(alpn(b"y")), "application protocols", b""),
            (hello(), hello(version=0x0303), "versions", b""),
        )
        for first, second, what, more in self.anew(rows):
            client, server = await self.asked_again(first, more)
            client.send(second)
            await client.has_all()
            await server.has_all()
            self.assertEqual(bytes(client.received), self.retry + ILLEGAL)
            self.assertEqual(bytes(server.received), first)
            client.close()
            record = await self.assert_logged(reason="tls-failed", route="all")
            why = f"the second hello has other {what} than the first"
            self.assertEqual((record.facts["tls_error"], record.facts["sni"]), (why, "a.test"))

    async def test_the_same_reaches_it_however_it_is_cut(self) -> None:
        first = hello()
        for size in self.anew((1, 30, 1000)):
            client, server = await self.asked_again(first, cut=size)
            said = CHANGED + hello(share=True) + b"more"
            await self.send_in_pieces(client, said, size)
            await server.has(len(first + said))
            self.assertEqual(bytes(server.received), first + said)
            await server.tell(client, self.answer, len(self.retry + self.answer))
            self.assertEqual(self.only().state, "relaying")
            close(client, server)
            record = await self.assert_logged(reason="done", bytes_in=len(first + said))
            self.assertNotIn("ech_retry", record.facts)

    async def test_without_a_request_for_one_nothing_is_looked_at(self) -> None:
        first = hello()
        for answer in self.anew((self.answer, ILLEGAL, b"x")):
            client, server = await self.both(self.names(), first)
            self.assertEqual(self.only().state, "awaiting-retry")
            await server.tell(client, answer)
            self.assertEqual(self.only().state, "relaying")
            await client.tell(server, hello(name="vip.test"), len(first + hello(name="vip.test")))
            await self.assert_closed(client, server, reason="done", bytes_out=len(answer))

    async def test_early_data_waits_for_the_answer(self) -> None:
        first, early = hello(), b"\x17\3\3\0\4abcd"
        client, server = await self.both(self.names(), first + early, len(first))
        client.send(early)
        await self.turn(20)
        self.assertEqual(bytes(server.received), first)
        server.send(self.answer)
        await server.has(len(first + early * 2))
        await server.has_all(client.finish)
        server.close()
        await self.assert_ended(client, reason="done")

    async def test_each_side_may_leave_before_the_answer(self) -> None:
        """The other one hears of an end."""
        for who, does, reason in self.anew((
            (0, Peer.reset, "client-reset"), (0, Peer.finish, "done"), (1, Peer.close, "done"),
            (1, Peer.finish, "done"), (1, Peer.reset, "server-reset"),
        )):  # fmt: skip
            both = await self.both(self.names(), hello())
            await self.turn(3)
            does(both[who])
            if reason == "done":
                await both[1 - who].has_all()
                close(*both)
            record = await self.logged()
            self.assertEqual((record.reason, len(self.factory.connections)), (reason, 0))

    async def test_silent_server_is_given_up(self) -> None:
        for answer in self.anew((b"", self.retry[:20])):
            client, server = await self.both(self.names(), hello())
            self.time.advance(1000)
            await server.tell(client, answer)
            self.time.advance(2595)
            await self.turn(3)
            self.assertEqual(self.records, [])
            self.time.advance(10)
            await client.has_all()
            await self.assert_ended(client, reason="idle-timeout", bytes_out=len(answer))

    async def test_half_a_hello_is_waited_for_and_not_passed_on(self) -> None:
        """A name that has not come would reach the server behind the rules."""
        first = hello(extension(21, bytes(100)))
        client = await self.connect(self.names(), first[:-10])
        await self.seen(len(first) - 10)
        client.send(first[-10:])
        await self.backend.heard(len(first))
        client.reset()
        await self.assert_logged(route="all")
        self.records.clear()
        late = hello_builder.versions(0x0304), extension(21, bytes(40_000)), server_name("vip.test")
        rows = (hello(name="vip.test")[:40], 6), (records(hello_builder.client_hello(*late)), 0)
        for begins, wait in self.anew(rows):
            client = await self.connect(self.names(), begins)
            await self.seen(min(len(begins), 32768))
            self.time.advance(wait)
            await self.turn(3)
            self.time.advance(wait)
            await client.has_all()
            record = await self.assert_ended(client, reason="tls-failed", route="all")
            self.assertIn("its hello is malformed, longer than", record.facts["tls_error"])

    async def test_half_goes_to_the_default_where_its_name_is_not_restricted(self) -> None:
        """Of a hello, as of a request for TLS before one."""
        server = backend_at(self.backend_port())
        half, request = hello(name="vip.test")[:40], bytes.fromhex("0000000804")
        named = route("tls sni=a.test", "127.0.0.1:9", name="a")
        closed = route("tls sni=a.test", CLOSE, name="a")
        rows = (
            (server, [named], half), (CLOSE, [named, route("any", server)], half),
            (server, [route("postgres sni=a.test", server, name="a")], request),
            (server, [closed, route("postgres user=a", server)], request),
        )  # fmt: skip
        for default, routes, begun in self.anew(rows):
            client = await self.connect(self.mux(routes, default=default), begun)
            await self.seen(len(begun))
            self.time.advance(6)
            await self.backend.heard(len(begun))
            client.send(b"more")
            await self.backend.heard(len(begun) + 4)
            client.reset()
            await self.until_logged(1)

    async def test_late_half_of_a_hello_for_another_route_reaches_no_server(self) -> None:
        """The route was decided without the name, at the end of the time."""
        server, asked = backend_at(self.backend_port()), bytes.fromhex("0000000804d2162f")
        of_postgres = (
            route("postgres sni=vip.test", CLOSE, name="vip"),
            route("postgres", server, name="all"),
        )
        for before, part in ((b"", 20), (b"", 40), (asked, 0), (asked, 40)):
            for name in self.anew(("vip.test", "a.test")):
                said, at = before + hello(name=name), len(before) + part
                client = await self.connect(
                    self.mux([*of_postgres]) if before else self.names(), said[:at]
                )
                await self.seen(at)
                self.time.advance(6)
                await self.turn(3)
                self.assertEqual(self.only().state, "awaiting-hello")
                client.send(said[at:])
                if name == "vip.test":
                    await client.has_all()
                    record = await self.assert_ended(client, reason="tls-failed", route="all")
                    self.assertIn("another route", record.facts["tls_error"])
                else:
                    await self.backend.heard(len(before or said))
                    client.reset()
                    await self.assert_logged(route="all")

    async def test_a_request_for_tls_that_is_not_whole_in_time_reaches_no_server(self) -> None:
        """The name would come after the decision."""
        server = backend_at(self.backend_port())
        ssl, gssenc = bytes.fromhex("0000000804d2162f"), bytes.fromhex("0000000804d21630")
        vip, late = route("postgres sni=vip.test", CLOSE, name="vip"), hello(name="vip.test")
        for routes, begun, rest in (
            ((vip, route("postgres", server, name="all")), gssenc, ssl + late),
            ((vip,), gssenc, ssl + late), ((vip,), gssenc + ssl[:3], ssl[3:] + late),
            ((vip,), ssl[:5], ssl[5:] + late), ((vip,), gssenc[:1], gssenc[1:] + ssl + late),
        ):  # fmt: skip
            client = await self.connect(self.mux([*routes], default=server), begun)
            await self.seen(len(begun))
            self.time.advance(6)
            await self.turn(3)
            client.send(rest)
            await client.has_all()
            record = await self.assert_ended(client, reason="tls-failed")
            self.assertIn("was not whole", record.facts["tls_error"])
            self.records.clear()
        self.assertEqual([one.received for one in self.backend.peers if one.received], [])

    async def test_two_hellos_in_a_record_reach_no_server(self) -> None:
        """A message that a server answers ends a record (RFC 8446, section 5.1); one in very many records is as any other."""
        both = b"".join(hello(name=name)[5:] for name in ("a.test", "vip.test"))
        client = await self.connect(self.names(), records(both))
        await client.has_all()
        self.assertEqual(bytes(client.received), ILLEGAL)
        client.close()
        record = await self.assert_logged(reason="tls-failed", route="all")
        self.assertEqual(record.facts["tls_error"], "its hello is not alone in its records")
        self.assertEqual([one.received for one in self.backend.peers if one.received], [])
        said = records(hello(name="a.test")[5:], 1)
        client, _ = await self.both(self.names(), said)
        client.reset()
        record = await self.assert_logged(2, route="all")
        self.assertNotIn("tls_error", record.facts)

    async def test_a_hello_that_only_servers_understand_is_not_passed_on(self) -> None:
        server = backend_at(self.backend_port())
        vip = hello(name="vip.test")
        routes = [route("tls sni=vip.test", CLOSE, name="vip"), route("any", server, name="all")]
        port = self.mux(routes)
        for odd in (
            vip[:2] + b"\x09" + vip[3:],  # OpenSSL takes it
            vip[:1] + b"\x02" + vip[2:],  # Go, Java
            vip[:1] + b"\xff" + vip[2:],  # Java
            b"\x16\3\1\0\0" + vip,  # OpenSSL, Java
            b"\x15\3\1\0\2\1\x64" + vip,  # Go
            CHANGED + vip,  # GnuTLS
            b"\x14\3\1\0\0" + vip,  # OpenSSL
        ):
            for size in (1, 1000):
                client = await self.connect(port)
                await self.send_in_pieces(client, odd, size)
                await client.has_all()
                await self.assert_ended(client, reason="tls-failed", route="all")
                self.records.clear()
        self.assertEqual([one.received for one in self.backend.peers if one.received], [])

    async def test_rules_that_look_into_no_hello_pass_on_what_comes(self) -> None:
        """So does every other protocol."""
        server = backend_at(self.backend_port())
        rows = (
            ([route("tls", server, name="all")], hello() + hello(name="vip.test")),
            ([route("tls sni=a", CLOSE, name="a"), route("ssh", server)], b"SSH-2.0-x\r\n"),
            ([route("tls sni=a", CLOSE, name="a"), route("any", server)], b"\x16\x02nothing"),
            ([route("tls sni=a", CLOSE, name="a"), route("any", server)], b"\x15\x02nothing"),
        )
        for routes, said in self.anew(rows):
            client = await self.connect(self.mux(routes))
            await self.send_in_pieces(client, said)
            await self.backend.heard(len(said))
            self.assertEqual(self.only().state, "relaying")
            client.reset()
            await self.logged()
