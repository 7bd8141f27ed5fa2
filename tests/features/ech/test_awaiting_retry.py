"""Hidden hellos through sockets: what the server gets, and a second hello after a HelloRetryRequest."""

from typing import Any

from OpenSSL import SSL

from tests.features.ech import client as clients
from tests.features.ech.client import HIDDEN, PUBLIC, MadeKey, Sealer, inner, outer_extensions
from tests.support.kit import MuxTestCase, Peer, PeerFactory, backend_at, close, listen, make_folder
from tests.support.servers import counted
from tests.wire import hello_builder
from tests.wire.hello_builder import extension, records, server_hello, server_name, sized, versions
from txmux.rules.embedding import route
from txmux.telemetry.record import ConnectionRecord
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.hello.records import asks_again

_MADE = MadeKey()
_CHANGED = bytes.fromhex("140303000101")  # for old middleboxes
_ANSWER = records(server_hello(bytes(32))) + b"the rest"
_RETRY = records(server_hello()) + _CHANGED
_ILLEGAL = bytes.fromhex("1503030002022f")


class AwaitingRetryTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sealer = Sealer(_MADE)
        self.keys = _MADE.write(make_folder(self) / "key.pem")
        self.public = PeerFactory()

    def hidden_mux(self, *routes: Any, **settings: Any) -> int:
        names = (
            route(f"tls sni={HIDDEN}", backend_at(self.backend_port()), name="hidden"),
            route(f"tls sni={PUBLIC}", backend_at(listen(self, self.public)), name="public"),
        )
        return self.mux([*routes, *names], more={"ech_keys": self.keys}, **settings)

    async def assert_by_the_outer_name(self, client: Peer, said: bytes) -> None:
        server = await self.public.heard(len(said))
        self.assertEqual(bytes(server.received), said)
        record = await self.assert_closed(client, server, reason="done", route="public")
        self.assertEqual((record.facts["ech"], record.facts["sni"]), ("outer", PUBLIC))

    def first(self, encoded: bytes | None = None) -> bytes:
        return records(self.sealer.hello(inner() if encoded is None else encoded))

    async def began(self, said: bytes = b"", **settings: Any) -> tuple[Peer, Peer]:
        client = await self.connect(self.hidden_mux(**settings), self.first() + said)
        server = await self.backend.peer()
        await server.until(lambda: bool(parse_client_hello(bytes(server.received), None).hello))
        self.hello = len(server.received)
        return client, server

    async def asked_again(self, **settings: Any) -> tuple[Peer, Peer]:
        client, server = await self.began(**settings)
        server.send(_RETRY)
        await client.has(len(_RETRY))
        return client, server

    async def ended(self, client: Peer, server: Peer, **wanted: Any) -> ConnectionRecord:
        """Both have learnt it; what comes next begins anew."""
        await client.has_all()
        await server.has_all()
        record = await self.assert_closed(client, server, **wanted)
        self.records.clear()
        self.backend.peers.clear()
        self.sealer = Sealer(_MADE)
        return record

    async def test_hidden_name_decides_and_server_gets_the_hidden_hello(self) -> None:
        client, server = await self.began()
        self.assertEqual(parse_client_hello(bytes(server.received), None).sni, HIDDEN)
        self.assertEqual(self.only().state, "awaiting-retry")
        server.send(_ANSWER)
        await client.has(len(_ANSWER))
        client.send(b"x" * 100_000)
        await server.has(self.hello + 100_000)
        self.assertEqual(self.only().state, "relaying")
        client.finish()
        await server.has_all()
        server.close()
        record = await self.ended(client, server, reason="done", route="hidden")
        self.assertEqual(record.bytes_out, len(_ANSWER))
        facts = {"ech": "inner", "sni": HIDDEN, "outer_sni": PUBLIC}
        self.assertLessEqual(facts.items(), record.facts.items())
        self.assertEqual(bytes(client.received), _ANSWER)

    async def test_wait_for_the_server_counts_from_the_hello(self) -> None:
        client = await self.connect(self.hidden_mux())
        await self.accepted_for(1.0)
        client.send(self.first())
        server = await self.backend.peer()
        await server.until(lambda: bool(server.received))
        self.time.advance(0.25)
        server.send(_ANSWER)
        await client.has(len(_ANSWER))
        found = counted(self.factory, names=("answered", "answer time"))
        self.assertEqual(found, {"answered": 1, "answer time": 250_000})
        await self.assert_closed(client, server, reason="done")

    async def test_second_hello_is_opened_however_it_is_cut(self) -> None:
        for size in (1, 16384):
            client, server = await self.asked_again()
            self.assertEqual(self.only().state, "awaiting-retry")
            self.assertEqual(self.only().cannot_move_because, "being connected")
            said = _CHANGED + records(self.sealer.second(inner()), 100) + b"more"
            for at in range(0, len(said), size):
                client.send(said[at : at + size])
                if size == 1:
                    await self.turn()
            await server.until(lambda s=server: s.received.endswith(b"more"))  # type: ignore[misc]
            got = bytes(server.received)[self.hello :]
            self.assertEqual(got[: len(_CHANGED)], _CHANGED)
            second = parse_client_hello(got[len(_CHANGED) :], None)
            self.assertEqual((second.sni, second.malformed), (HIDDEN, False))
            server.send(_ANSWER)
            await client.has(len(_RETRY + _ANSWER))
            client.close()
            record = await self.ended(client, server, reason="done", route="hidden")
            self.assertEqual((record.facts["ech"], record.facts["ech_retry"]), ("inner", "yes"))

    async def test_second_hello_for_something_else_is_illegal(self) -> None:
        """The client was routed by the first one; one that does not open gets an alert of its own."""
        shared = clients.INNER, outer_extensions(43, hello_builder.KEY_SHARE)
        other = "the second hello has other {} than the first"
        for encoded, public, alert, why in (
            (None, PUBLIC, bytes.fromhex("15030300020233"), "the second hello does not open"),
            (inner(name="vip.example"), PUBLIC, _ILLEGAL, other.format("server name inside")),
            (inner(server_name(HIDDEN), hello_builder.alpn(b"x"), *shared), PUBLIC, _ILLEGAL,
             other.format("application protocols inside")),
            (inner(), "vip.example", _ILLEGAL, other.format("server name")),
        ):  # fmt: skip
            client, server = await self.asked_again()
            sealer = self.sealer if encoded else Sealer(_MADE)
            client.send(records(sealer.second(encoded or inner(), public=public)))
            record = await self.ended(client, server, reason="tls-failed")
            self.assertEqual(bytes(client.received)[len(_RETRY) :], alert)
            self.assertEqual((len(server.received), record.facts["tls_error"]), (self.hello, why))

    async def test_anything_but_a_hello_is_the_servers(self) -> None:
        """A client that gives up says so to the server."""
        client, server = await self.asked_again()
        client.send(_ILLEGAL)
        await server.until(lambda: bytes(server.received).endswith(_ILLEGAL))
        await self.assert_closed(client, server, reason="done")

    async def test_second_hello_has_its_time(self) -> None:
        client, server = await self.asked_again(detect_timeout=5.0)
        self.time.advance(4.9)
        await self.turn(3)
        self.assertEqual(self.records, [])
        self.time.advance(0.2)
        await server.has_all()
        await self.assert_ended(client, reason="idle-timeout", route="hidden")

    async def test_too_much_before_the_second_hello(self) -> None:
        """What either side says is not kept without a limit, whether the server has asked again or it is not known."""
        client, server = await self.asked_again(peek_limit=4096)
        client.send((b"\x17\3\3\x03\xe8" + bytes(1000)) * 5)
        await self.ended(client, server, reason="limit")
        client, server = await self.asked_again(peek_limit=4096)
        server.send(bytes(5000))
        await self.ended(client, server, reason="limit")
        client, server = await self.began(peek_limit=4096)
        server.send(b"\x16\3\3\0\0" * 1000)
        await client.has(5000)
        self.assertEqual(self.only().state, "relaying")
        client.close()
        await self.ended(client, server, reason="done")

    async def test_what_comes_early_waits_for_the_answer(self) -> None:
        early = b"\x17\3\3\0\4abcd"
        client, server = await self.began(early, peek_limit=2048)
        for _ in range(40):
            client.send(early * 100)
            await self.turn()
        await self.turn(20)
        self.assertEqual(len(server.received), self.hello)
        self.assertLess(len(self.only().received), 10_000)  # and no more is read
        server.send(_ANSWER)
        await server.has(self.hello + 4001 * len(early))
        self.assertEqual(bytes(server.received)[self.hello :], early * 4001)
        await self.assert_closed(client, server, reason="done")

    async def test_ends_meanwhile(self) -> None:
        """Whichever side goes, and however, the other one learns it, and nothing is left."""
        for who, reason in (
            ("client closes", "done"), ("client resets", "client-reset"), ("server closes", "done"),
            ("server resets", "server-reset"), ("killed", "killed"),
        ):  # fmt: skip
            for begin in (self.began, self.asked_again):
                client, server = await begin()
                if who == "killed":
                    self.only().end("killed")
                else:
                    name, does = who.split()
                    peer = client if name == "client" else server
                    (peer.close if does == "closes" else peer.transport.abortConnection)()
                self.assertEqual((who, (await self.ended(client, server)).reason), (who, reason))
                is_servers = who == "server resets" and begin == self.began
                self.assertEqual("failed reset" in counted(self.factory), is_servers, who)

    async def test_client_that_has_finished_gets_the_answer(self) -> None:
        client = await self.connect(self.hidden_mux(), self.first())
        client.finish()
        server = await self.backend.peer()
        await server.has_all()
        server.send(_ANSWER)
        server.close()
        await client.has(len(_ANSWER))
        await self.assert_ended(client, reason="done")

    async def test_hello_that_is_not_opened_or_not_hidden(self) -> None:
        other = records(Sealer(MadeKey(7)).hello(inner()))
        await self.assert_by_the_outer_name(await self.connect(self.hidden_mux(), other), other)
        hello = records(hello_builder.client_hello(server_name(HIDDEN), versions(0x0304)))
        client = await self.connect(self.hidden_mux(), hello)
        server = await self.backend.heard(len(hello))
        self.assertEqual(bytes(server.received), hello)
        close(client, server)
        self.assertNotIn("ech", (await self.assert_logged(2, reason="done", route="hidden")).facts)

    async def test_name_that_ends_here_goes_by_the_outer_name(self) -> None:
        here = PeerFactory()
        first = self.first()
        mux = self.hidden_mux(route(f"tls sni={HIDDEN}", here, name="here"))
        client = await self.connect(mux, first[:100])
        await self.seen(100)
        client.send(first[100:])
        await self.assert_by_the_outer_name(client, first)
        self.assertEqual(here.peers, [])

    async def test_illegal_hello_gets_an_alert(self) -> None:
        encoded = inner(server_name(HIDDEN), versions(0x0304), outer_extensions(43))
        client = await self.connect(self.hidden_mux(), self.first(encoded))
        await client.has_all()
        self.assertEqual(bytes(client.received), _ILLEGAL)
        record = await self.assert_ended(client, reason="tls-failed", bytes_out=7)
        facts = {"ech": "inner", "outer_sni": PUBLIC, "tls_error": "the hidden hello is not legal"}
        self.assertEqual(record.facts, facts)


_GROUPS = extension(10, sized(2, b"\0\x1d"))
_SIGNATURES = extension(13, sized(2, b"\4\3"))
_NO_SHARE = extension(hello_builder.KEY_SHARE, b"\0\0")


class EndsHereTest(MuxTestCase):
    """TLS that ends here: OpenSSL asks a client that has sent no key share for a second hello."""

    if SSL.OPENSSL_VERSION_NUMBER < 0x4000_0000:
        skip = "this OpenSSL does not accept hidden hellos"

    @staticmethod
    def hello(name: str = HIDDEN) -> bytes:
        return inner(
            server_name(name), clients.INNER, versions(0x0304), _GROUPS, _SIGNATURES, _NO_SHARE
        )

    async def test_second_hello_for_another_name(self) -> None:
        """Nor does one of another key open; one without a share is opened, and OpenSSL says what it thinks of it."""
        made = MadeKey()
        keys = {"ech_keys": made.write(self.tls.folder / "ech.pem")}
        routes = [self.tls.route(match=f"tls sni={HIDDEN}"), self.tls.inner()]
        other = "the second hello has other server name inside than the first"
        for key, name, alert, why in (
            (MadeKey(), HIDDEN, bytes.fromhex("15030300020233"), "the second hello does not open"),
            (made, "vip.example", _ILLEGAL, other), (made, HIDDEN, b"", "bad key share"),
        ):  # fmt: skip
            self.records.clear()
            sealer = Sealer(made)
            said = records(sealer.hello(self.hello()))
            client = await self.connect(self.mux(routes, more=keys), said)
            await client.until(lambda its=client: bool(asks_again(bytes(its.received))))  # type: ignore[misc]
            sealer = sealer if key is made else Sealer(key)
            for byte in _CHANGED + records(sealer.second(self.hello(name))):
                client.send(bytes([byte]))
                await self.turn()
            await client.has_all()
            self.assertTrue(client.received.endswith(alert))
            facts = (await self.assert_ended(client, reason="tls-failed")).facts
            expected = f"the TLS handshake failed: {why}", HIDDEN
            self.assertEqual((facts["tls_error"], facts["sni"]), expected)
