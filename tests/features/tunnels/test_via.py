import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names.test_destinations import names
from tests.backends.pool.pools import servers
from tests.backends.test_upstreams import ChangingUpstreams
from tests.support.dialler import played
from tests.support.kit import MuxTestCase, free_port, make_folder
from tests.support.peers import Peer, PeerFactory, close, make_stalled_port, reactor
from tests.support.server_sockets import ServerSockets
from txmux.backends.connect.client import ProxyClientFactory
from txmux.backends.connect.dial import reason_of
from txmux.backends.connect.socket_plan import ServerSocketPlan
from txmux.backends.health.checking import CheckResult, CheckRun
from txmux.backends.health.probes import probe
from txmux.backends.names.cache import KnownName, NameCache
from txmux.backends.names.destinations import ClientTarget, Denial, Destinations
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import BackendPool
from txmux.features.tunnels.dialler import ProxyDialler
from txmux.features.tunnels.via import Via, proxy
from txmux.rules.embedding import from_python, route
from txmux.rules.model import Backend, Check, Server
from txmux.rules.reading.endpoints import server

SOCKS = (b"\5\1\0", b"\5\0"), (b"\5\1\0\3\ndb.example\x15\x38", b"\5\0\0\1" + bytes(6))
CONNECT = b"CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n"
HTTP = ((CONNECT, b"HTTP/1.1 200 OK\r\n\r\n"),)


class ViaTests(MuxTestCase):
    def backend_by(self, kind: str = "socks5", *ports: int, **settings: Any) -> Backend:
        self.proxy_port = ports[0] if ports else self.backend_port()
        settings.setdefault("more", {"via": proxy(f"{kind}://127.0.0.1:{self.proxy_port}")})
        servers = tuple(map(server, settings.pop("servers", ("db.example:5432",))))
        return Backend("db", servers, **settings)

    async def lead(self, backend: Backend, said: bytes = b"x") -> Peer:
        return await self.connect(self.mux([route("any", backend)], reactor=reactor), said)

    async def granted(self, talk: Any, rest: bytes = b"", index: int = 0) -> Peer:
        peer = await self.backend.peer(index)
        for number, (asked, answer) in enumerate(talk):
            await peer.has(len(asked))
            self.assertEqual(bytes(peer.received[: len(asked)]), asked)
            del peer.received[: len(asked)]
            peer.send(answer + (rest if number == len(talk) - 1 else b""))
        return peer

    async def test_name_goes_to_the_proxy_and_no_byte_is_lost(self) -> None:
        rows: Any = ("auto", "socks5", SOCKS), ("auto", "http", HTTP), ("portable", "http", HTTP)
        for number, (self.relay, kind, talk) in enumerate(rows):
            client = await self.lead(self.backend_by(kind), b"hello")
            peer = await self.granted(talk, b"220 welcome", number)
            await peer.has(5)
            await client.has(11)
            client.finish()
            await peer.has_all()
            peer.send(b"late")
            peer.finish()
            await client.has(15)
            received = [bytes(one.received) for one in (peer, client)]
            self.assertEqual(received, [b"hello", b"220 welcomelate"])
            close(client, peer)
            story = {"reason": "done", "server": "db.example:5432", "bytes_in": 5, "bytes_out": 15}
            await self.assert_logged(number + 1, **story)

    async def test_answer_may_come_byte_by_byte_and_the_end_with_it(self) -> None:
        client = await self.lead(self.backend_by("http"))
        peer = await self.backend.heard(len(CONNECT))
        for number, byte in enumerate(b"HTTP/1.1 200 OK\r\n\r\nbye"):
            peer.send(bytes([byte]))
            if number < 12:
                await self.turn(2)
        await peer.has(len(CONNECT) + 1)
        peer.finish()
        await client.has_all()
        self.assertEqual(bytes(client.received), b"bye")
        await self.assert_closed(client, peer, reason="done", bytes_out=3)

    async def test_proxy_header_is_first_inside_and_password_is_read_from_its_file(self) -> None:
        client = await self.lead(self.backend_by(proxy_protocol="v1"), b"hi")
        peer = await self.granted(SOCKS)
        await peer.until(lambda: peer.received.endswith(b"\r\nhi"))
        self.assertTrue(peer.received.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 "))
        await self.assert_closed(client, peer, reason="done")
        path = make_folder(self) / "password"
        path.write_text("secret\n")
        via = proxy(f"socks5://ops:{path}@127.0.0.1:{self.backend_port()}")
        client = await self.lead(self.backend_by(more={"via": via}))
        login = (b"\5\2\0\2", b"\5\2"), (b"\1\3ops\6secret", b"\1\0"), SOCKS[1]
        peer = await self.granted(login, index=1)
        await peer.has(1)
        await self.assert_closed(client, peer, 2, reason="done")

    async def test_name_that_the_client_asks_for_is_not_looked_up_here(self) -> None:
        allowed = names("www.test", "[0-9]*", "*0x*", "*localhost")
        backend = self.backend_by("http", servers=("{host}:80",), allow_names=allowed)
        port = self.mux([route("http", backend)], reactor=reactor)
        head = "GET / HTTP/1.1\r\nHost: {}\r\n\r\n"
        refused = ("10.0.0.1", "www.example", "2130706433", "x.0x7f", "a.localhost")
        for number, host in enumerate(refused):
            client = await self.connect(port, head.format(host).encode())
            await self.assert_ended(client, number + 1, reason="name-denied")
        client = await self.connect(port, head.format("www.test").encode())
        asked = CONNECT.replace(b"db.example:5432", b"www.test:80")
        peer = await self.granted(((asked, HTTP[0][1]),))
        await peer.has(len(head))
        await self.assert_closed(
            client, peer, len(refused) + 1, reason="done", server="www.test:80"
        )

    async def test_leaving_client_cancels_the_request(self) -> None:
        client = await self.lead(self.backend_by())
        peer = await self.backend.heard(3)
        client.reset()
        await self.assert_ended(peer, reason="client-gone")
        self.assertTrue(peer.was_reset())

    async def try_answer(self, kind: str, *answers: bytes | None, **settings: Any) -> str:
        self.backend, self.records[:] = PeerFactory(), []
        with capturedLogs() as logged:
            client = await self.lead(self.backend_by(kind, **settings))
            peer = await self.backend.heard(3)
            for answer in answers:
                if answer is None:
                    peer.close()
                else:
                    del peer.received[:]
                    peer.send(answer)
                    await peer.until(lambda: bool(peer.received) or peer.lost is not None)
            await client.is_lost()
            (record,) = self.records
        warned = [formatEvent(one) for one in logged if one["log_level"].name == "warn"]
        self.assertEqual(record.server, "db.example:5432")
        proxy_text = f"{kind}://127.0.0.1:{self.proxy_port}"
        return f"{record.reason}: " + " ".join(warned).replace(proxy_text, "PROXY")

    async def test_each_wrong_answer_is_named_and_silence_costs_the_connect_timeout(self) -> None:
        """Those that there may be are in `test_request`."""
        begin = (
            "connect-refused: backend db: cannot connect to db.example:5432: the proxy PROXY: it"
        )
        for kind, answers, expected in (
            ("socks5", (b"\5\0", b"\5\5\0\1" + bytes(6)), "cannot connect: connection refused (5)"),
            ("socks5", (b"\5\0", None), "closed the connection instead of answering"),
            ("http", (b"HTTP/1.1 403 Filtered\r\n\r\n",), "answers 403 Filtered"),
            ("http", (None,), "closed the connection instead of answering"),
        ):  # fmt: skip
            self.assertEqual(await self.try_answer(kind, *answers), f"{begin} {expected}")
        for said_first in ((), (b"\5\0",)):
            said = await self.try_answer("socks5", *said_first, connect_timeout=0.2)
            why = "cannot connect to db.example:5432: no connection through PROXY within 0.2 s"
            self.assertEqual(said, f"connect-timeout: backend db: {why}")

    async def test_refused_server_is_followed_by_the_next_one(self) -> None:
        client = await self.lead(self.backend_by(servers=("a.example:1", "b.example:2")))
        first = await self.backend.heard(3)
        first.send(b"\5\0")
        await first.has(3 + 16)
        first.send(b"\5\1\0\1" + bytes(6))
        second = await self.granted((SOCKS[0], (b"\5\1\0\3\tb.example\0\2", SOCKS[1][1])), index=1)
        await second.has(1)
        record = await self.assert_closed(client, second, reason="done", server="b.example:2")
        self.assertEqual(record.facts["tried"], "a.example:1 connect-refused")
        self.assertTrue(first.was_reset() or first.finished)

    async def test_proxy_that_refuses_is_named_and_a_stalled_one_costs_the_timeout(self) -> None:
        port = free_port()
        with capturedLogs() as logged:
            client = await self.lead(self.backend_by("http", port))
            await self.assert_ended(client, reason="connect-refused")
        said = " ".join(map(str, map(eventAsText, logged)))
        self.assertIn(f"the proxy http://127.0.0.1:{port}: connection refused", said)
        stalled = self.backend_by("http", make_stalled_port(self), connect_timeout=0.1)
        await self.assert_ended(await self.lead(stalled), 2, reason="connect-timeout")

    async def test_those_to_the_proxy_are_made_as_to_servers(self) -> None:
        option, made = (socket.SOL_SOCKET, socket.SO_PRIORITY, 5), ServerSocketPlan.of
        self.patch(ServerSocketPlan, "of", lambda its: attrs.evolve(made(its), options=(option,)))
        async for use, found in ServerSockets(self, _proxied).streams(source=("127.0.0.77",)):
            if use == "proxy":
                self.assertEqual(found.getsockopt(*option[:2]), 5)
                self.assertEqual(found.getsockname()[0], "127.0.0.77")


class DestinationsTest(SynchronousTestCase):
    def test_names_are_left_to_the_proxy_whose_addresses_have_their_turns(self) -> None:
        cache = NameCache(Clock())
        for address in ("8.8.8.8", "10.0.0.1"):
            known = KnownName((ip_address(address),), 60.0)
            self.patch(cache, "known", lambda *_, known=known: known)
            for more, place in (
                ({"via": Via("socks5", server("127.0.0.1:1080"))}, "www.test"),
                ({}, "8.8.8.8"),
            ):
                backend = Backend("b", (server("{sni}:443"),), allow_names=names("*"), more=more)
                destinations = Destinations(backend, cache, lambda *_: False, Clock().seconds)
                [template] = BackendPool(backend, Clock().seconds).members
                found = destinations.choose(template, ClientTarget({"sni": "www.test"}, "", 0))
                if not more and address == "10.0.0.1":
                    self.assertEqual(found, Denial("address-denied", "10.0.0.1:443"))
                else:
                    assert isinstance(found, Member)
                    self.assertEqual(found.target.host, place)
        clock, addresses = Clock(), [server(f"10.0.0.{number}:3128") for number in (1, 2)]
        made = ProxyDialler(proxy("http://proxy.test:3128"), lambda: addresses, str)
        tried: list[str] = []

        def refuse(at: Server, factory: Any, timeout: float, **_: Any) -> Any:
            tried.append(f"{at.host} {timeout:g}")
            if len(tried) < 3:
                factory.clientConnectionFailed(None, Failure(ConnectError(111, "refused")))
            return lambda: None

        failed: list[str] = []
        for proxied in (made, made, ProxyDialler(made.via, list, str)):
            factory = ProxyClientFactory(lambda _: None, lambda why: failed.append(reason_of(why)))
            dial = attrs.evolve(played(refuse, clock), proxy=proxied)
            factory.connect(dial, server("web.test:80"), 8.0)
        self.assertEqual(tried, ["10.0.0.1 4", "10.0.0.2 4", "10.0.0.2 4"])
        why = "the proxy http://proxy.test:3128: "
        self.assertEqual(failed, [f"{why}refused", f"{why}its name has no address"])
        results: list[CheckResult] = []
        check = CheckRun(clock, probe(Check("tcp"), "web.test", 80, tls=False), 1.0, results.append)
        dial = attrs.evolve(played(lambda *_, **__: lambda: None, clock), proxy=made)
        check.start(dial, server("web.test:80"))
        clock.advance(1)
        self.assertEqual(results, [CheckResult(ok=False, why=f"{why}timed out after 1 s")])

    def test_text_is_not_ignored_and_is_read_again(self) -> None:
        """What else could be a text, and is none here, would connect without the proxy."""
        of_text = Backend("b", (server("127.0.0.1:1"),), more={"via": "socks5://127.0.0.1:1"})
        with self.assertRaisesRegex(TypeError, "via is what a text stands for, and no text"):
            from_python([("any", of_text)], "l")
        its = ChangingUpstreams()
        path = make_folder(self) / "password"
        path.write_text("first")
        keys: dict[str, Any] = {"more": {"via": proxy(f"socks5://ops:{path}@10.0.0.9:1080")}}
        made = its.change("web.test:80", **keys)
        files: Any = made.files
        self.assertEqual(files.made[1], "first")
        path.write_text("second\n")
        self.assertIs(its.change("web.test:80", **keys), made)
        self.assertEqual(files.made[1], "second")
        backend = Backend("b", servers("web.test:80"), **keys)
        wrong = f"via: '{path}' does not hold one line of at most 255 characters"
        gone = f"via: cannot read '{path}': No such"
        for content, why in (("two\nlines", wrong), (256 * "a", wrong), ("", gone)):
            path.write_text(content) if content else path.unlink()
            prepared = its.prepare(backend)
            self.assertEqual(prepared.problems, [])
            prepared.commit()
            self.assertIn(why, files.trouble)
            self.assertIn("; what is in use is kept", files.trouble)
            self.assertEqual(files.made[1], "second")
        path.write_text(255 * "a")
        its.change("web.test:80", **keys)
        self.assertEqual(files.made[1], 255 * "a")


def _proxied(number: int, **keys: Any) -> Iterator[tuple[str, Backend]]:
    via = {"via": proxy(f"socks5://127.0.0.1:{number}")}
    yield "proxy", Backend("proxied", (server("db.example:1"),), more=via, **keys)
