"""Hidden hellos through sockets: what the server gets, and a second hello after a HelloRetryRequest."""

from typing import Any

from OpenSSL import SSL

from tests.features.ech.client import (
    HIDDEN,
    INNER,
    PUBLIC,
    MadeKey,
    Sealer,
    inner,
    outer_extensions,
)
from tests.support.folders import make_folder
from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import Peer, PeerFactory, listen
from tests.support.servers import counted
from tests.wire.hello_builder import (
    KEY_SHARE,
    alpn,
    client_hello,
    extension,
    records,
    server_hello,
    server_name,
    sized,
    versions,
)
from txmux.rules.embedding import route
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
        client.close()
        server.close()
        record = await self.assert_logged(reason="done", route="public")
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
        record = await self.assert_ended(
            client, reason="done", route="hidden", bytes_out=len(_ANSWER)
        )
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
        names = "answered", "answer time"
        self.assertEqual(
            counted(self.factory, names=names), {"answered": 1, "answer time": 250_000}
        )
        client.close()
        server.close()
        await self.assert_logged(reason="done")

    async def test_second_hello_is_opened_however_it_is_cut(self) -> None:
        for size in (1, 16384):
            self.sealer = Sealer(_MADE)
            client, server = await self.asked_again()
            self.assertEqual(self.only().state, "awaiting-retry")
            self.assertEqual(self.only().cannot_move_because, "undecided")
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
            await server.has_all()
            server.close()
            record = await self.assert_logged(reason="done", route="hidden")
            self.assertEqual((record.facts["ech"], record.facts["ech_retry"]), ("inner", "yes"))
            self.records.clear()
            self.backend.peers.clear()

    async def test_illegal_second_hello_gets_an_alert(self) -> None:
        client, server = await self.asked_again()
        client.send(records(Sealer(_MADE).second(inner())))
        await client.has_all()
        await server.has_all()
        self.assertEqual(bytes(client.received)[len(_RETRY) :], bytes.fromhex("15030300020233"))
        record = await self.assert_ended(client, reason="tls-failed")
        self.assertEqual(record.facts["tls_error"], "the second hello does not open")

    async def test_second_hello_for_something_else_is_illegal(self) -> None:
        """The client was routed by the first one."""
        shared = INNER, outer_extensions(43, KEY_SHARE)
        for encoded, public, what in (
            (inner(name="vip.example"), PUBLIC, "server name inside"),
            (inner(server_name(HIDDEN), alpn(b"x"), *shared), PUBLIC,
             "application protocols inside"),
            (inner(), "vip.example", "server name"),
        ):  # fmt: skip
            self.sealer = Sealer(_MADE)
            client, server = await self.asked_again()
            client.send(records(self.sealer.second(encoded, public=public)))
            await client.has_all()
            await server.has_all()
            self.assertEqual(bytes(client.received)[len(_RETRY) :], _ILLEGAL)
            self.assertEqual(len(server.received), self.hello)
            client.close()
            record = await self.assert_logged(reason="tls-failed")
            self.assertEqual(
                record.facts["tls_error"], f"the second hello has other {what} than the first"
            )
            self.records.clear()
            self.backend.peers.clear()

    async def test_anything_but_a_hello_is_the_servers(self) -> None:
        """A client that gives up says so to the server."""
        client, server = await self.asked_again()
        alert = _ILLEGAL
        client.send(alert)
        await server.until(lambda: bytes(server.received).endswith(alert))
        client.close()
        server.close()
        await self.assert_logged(reason="done")

    async def test_second_hello_has_its_time(self) -> None:
        client, server = await self.asked_again(detect_timeout=5.0)
        self.time.advance(4.9)
        await self.turn(3)
        self.assertEqual(self.records, [])
        self.time.advance(0.2)
        await server.has_all()
        await self.assert_ended(client, reason="idle-timeout", route="hidden")

    async def test_too_much_before_the_second_hello(self) -> None:
        client, server = await self.asked_again(peek_limit=4096)
        early = b"\x17\3\3\x03\xe8" + bytes(1000)
        client.send(early * 5)
        await client.has_all()
        await server.has_all()
        await self.assert_ended(client, reason="limit")

    async def test_server_that_says_much_instead_of_waiting(self) -> None:
        """What it says is not kept without a limit, whether it has asked again or it is not known."""
        client, server = await self.asked_again(peek_limit=4096)
        server.send(bytes(5000))
        await client.has_all()
        await server.has_all()
        await self.assert_ended(client, reason="limit")
        self.records.clear()
        self.backend.peers.clear()
        self.sealer = Sealer(_MADE)
        client, server = await self.began(peek_limit=4096)
        server.send(b"\x16\3\3\0\0" * 1000)
        await client.has(5000)
        self.assertEqual(self.only().state, "relaying")
        client.close()
        server.close()
        await self.assert_logged(reason="done")

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
        client.close()
        server.close()
        await self.assert_logged(reason="done")

    async def test_ends_meanwhile(self) -> None:
        """Whichever side goes, and however, the other one learns it, and nothing is left."""
        for who, reason in (
            ("client closes", "done"), ("client resets", "client-reset"), ("server closes", "done"),
            ("server resets", "server-reset"), ("killed", "killed"),
        ):  # fmt: skip
            for begin in (self.began, self.asked_again):
                self.sealer = Sealer(_MADE)
                client, server = await begin()
                if who == "killed":
                    self.only().end("killed")
                else:
                    name, does = who.split()
                    peer = client if name == "client" else server
                    (peer.close if does == "closes" else peer.transport.abortConnection)()
                await client.has_all()
                await server.has_all()
                client.close()
                server.close()
                record = await self.logged()
                self.assertEqual((who, record.reason), (who, reason))
                is_servers = who == "server resets" and begin == self.began
                self.assertEqual("failed reset" in counted(self.factory), is_servers, who)
                self.records.clear()
                self.backend.peers.clear()

    async def test_client_that_has_finished_gets_the_answer(self) -> None:
        client = await self.connect(self.hidden_mux(), self.first())
        client.finish()
        server = await self.backend.peer()
        await server.has_all()
        server.send(_ANSWER)
        server.close()
        await client.has(len(_ANSWER))
        await self.assert_ended(client, reason="done")

    async def test_not_opened_goes_by_the_outer_name_unchanged(self) -> None:
        other = records(Sealer(MadeKey(7)).hello(inner()))
        await self.assert_by_the_outer_name(await self.connect(self.hidden_mux(), other), other)

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

    async def test_half_a_hello_is_decided_as_without_keys(self) -> None:
        client = await self.connect(self.hidden_mux(route("tls", "reset")), self.first()[:200])
        await self.seen(200)
        self.time.advance(6)
        await self.assert_ended(client, reason="denied")

    async def test_usual_hello_is_as_ever(self) -> None:
        hello = records(client_hello(server_name(HIDDEN), versions(0x0304)))
        client = await self.connect(self.hidden_mux(), hello)
        server = await self.backend.heard(len(hello))
        self.assertEqual(bytes(server.received), hello)
        client.close()
        server.close()
        record = await self.assert_logged(reason="done", route="hidden")
        self.assertNotIn("ech", record.facts)


_GROUPS = extension(10, sized(2, b"\0\x1d"))
_SIGNATURES = extension(13, sized(2, b"\4\3"))
_NO_SHARE = extension(KEY_SHARE, b"\0\0")


class EndsHereTest(MuxTestCase):
    """TLS that ends here: OpenSSL asks a client that has sent no key share for a second hello."""

    if SSL.OPENSSL_VERSION_NUMBER < 0x4000_0000:
        skip = "this OpenSSL does not accept hidden hellos"

    async def asked_again(self) -> tuple[Peer, Sealer]:
        made = MadeKey()
        keys = made.write(self.tls.folder / "ech.pem")
        port = self.mux(
            [self.tls.route(match=f"tls sni={HIDDEN}"), self.tls.inner()], more={"ech_keys": keys}
        )
        sealer = Sealer(made)
        client = await self.connect(port, records(sealer.hello(self.hello())))
        await client.until(lambda: bool(asks_again(bytes(client.received))))
        return client, sealer

    @staticmethod
    def hello(name: str = HIDDEN) -> bytes:
        parts = server_name(name), INNER, versions(0x0304), _GROUPS, _SIGNATURES, _NO_SHARE
        return inner(*parts)

    async def test_illegal_second_hello(self) -> None:
        client, _ = await self.asked_again()
        client.send(_CHANGED + records(Sealer(MadeKey()).second(self.hello())))
        await client.has_all()
        self.assertTrue(client.received.endswith(bytes.fromhex("15030300020233")))
        record = await self.assert_ended(client, reason="tls-failed")
        why = "the TLS handshake failed: the second hello does not open"
        self.assertEqual(record.facts["tls_error"], why)

    async def test_second_hello_for_another_name(self) -> None:
        client, sealer = await self.asked_again()
        client.send(_CHANGED + records(sealer.second(self.hello("vip.example"))))
        await client.has_all()
        self.assertTrue(client.received.endswith(_ILLEGAL))
        record = await self.assert_ended(client, reason="tls-failed")
        why = (
            "the TLS handshake failed: the second hello has other server name inside than the first"
        )
        self.assertEqual((record.facts["tls_error"], record.facts["sni"]), (why, HIDDEN))

    async def test_second_hello_without_a_share(self) -> None:
        """It is opened, and OpenSSL says what it thinks of it."""
        client, sealer = await self.asked_again()
        for byte in _CHANGED + records(sealer.second(self.hello())):
            client.send(bytes([byte]))
            await self.turn()
        await client.has_all()
        record = await self.assert_ended(client, reason="tls-failed")
        self.assertIn("the TLS handshake failed: bad key share", record.facts["tls_error"])
