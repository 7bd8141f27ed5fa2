from typing import Any

import attrs
from hpack import Encoder

from tests.features.misdirected import frames
from tests.features.misdirected.frames import DATA, HEADERS, SETTINGS, WINDOW_UPDATE, Speaker, asked
from tests.support.kit import SecurePeer, connect_tls, free_port
from tests.support.mux import CLOSE, MuxTestCase, backend_at
from txmux.features.misdirected.places import header_frames
from txmux.features.misdirected.rows import MISDIRECTED
from txmux.net.tls.end import TlsTransport
from txmux.rules.embedding import route
from txmux.rules.model import Route
from txmux.rules.reading.route import certificate_condition
from txmux.wire.http2_opening import PREFACE, frame

_A, _B, _C = "a.example", "b.example", "c.example"
_BEGUN = PREFACE + frame(SETTINGS, 0, 0)
_SERVED = frame(SETTINGS, 0, 0)
_ANSWER = [(":status", "421")]


def _inside(under: str, hosts: str, port: int) -> Route:
    made = route(f"http host={hosts}", backend_at(port), name=hosts)
    return attrs.evolve(made, under=(under,))


class MisdirectedTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.files = (self.tls.pem(_A, _B, _C),)

    def ends(self, name: str, match: str, port: int = 0, **more: Any) -> Route:
        outcome = backend_at(port) if port else None
        more = {"files": self.files, "alpn": ("h2", "http/1.1"), **more}
        return self.tls.route(name, match, outcome=outcome, **more)

    def two(self) -> int:
        return self.mux(self.two_routes())

    def two_routes(self) -> list[Route]:
        first = self.ends("a", f"tls sni={_A},{_C}", self.backend_port())
        return [first, self.ends("b", f"tls sni={_B}", free_port())]

    def under(self) -> int:
        first = _inside("tls", f"{_A},{_C}", self.backend_port())
        inner = [first, _inside("tls", _B, free_port())]
        return self.mux([self.ends("tls", "tls sni=*.example"), *inner])

    async def speak(self, port: int, name: str | None = _A) -> SecurePeer:
        self.speaker = Speaker()
        peer = await connect_tls(self, port, self.tls.peer(name, alpn=("h2",)))
        await peer.ready()
        return peer

    def request(self, stream: int, host: str, flags: int = 1, *more: tuple[str, str]) -> bytes:
        return self.speaker.headers(stream, asked(host, "GET", *more), flags)

    async def begun(self, port: int, host: str, name: str | None = _A) -> SecurePeer:
        """Connect by a name, and ask for a host."""
        client = await self.speak(port, name)
        client.send(_BEGUN + self.request(1, host))
        return client

    async def assert_misdirected(self, client: SecurePeer, stream: int = 1) -> None:
        self.assertEqual((await self.answers(client, 2))[1:], [(HEADERS, stream, _ANSWER)])
        client.reset()

    async def answers(self, client: SecurePeer, count: int) -> list[tuple[int, int, object]]:
        await client.until(lambda: _count(client.received) >= count)
        read = self.speaker.read(bytes(client.received))
        client.received.clear()
        return read

    async def check_later(self, port: int) -> None:
        client = await self.begun(port, _A)
        server = await self.backend.heard(len(_BEGUN) + 1)
        server.send(_SERVED)
        await self.answers(client, 1)
        server.received.clear()
        more = self.request(5, _C, 1, ("x", "y"))
        client.send(self.request(3, _B, 0) + frame(DATA, 0, 3, b"12345") + more)
        answers = await self.answers(client, 3)
        self.assertEqual(answers[:2], [(HEADERS, 3, _ANSWER), (frames.RST_STREAM, 3, bytes(4))])
        self.assertEqual(answers[2:], [(WINDOW_UPDATE, 0, b"\0\0\0\5")])
        await server.has(9)
        passed = Speaker().read(bytes(server.received))
        self.assertEqual(passed, [(HEADERS, 5, asked(_C, "GET", ("x", "y")))])
        server.send(frame(DATA, 1, 5, b"fine"))
        self.assertEqual(await self.answers(client, 1), [(DATA, 5, b"fine")])
        client.reset()
        facts = (await self.assert_logged(reason="client-reset")).facts
        self.assertEqual((facts["misdirected"], facts["misdirected_host"]), ("1", _B))
        self.assertEqual(self.factory.configuration.counts.cells[MISDIRECTED.at], 1)

    async def test_later_request_for_another_route(self) -> None:
        """Its stream is answered; the connection goes on, and the server gets nothing of it."""
        for port in (self.two, self.under):
            await self.check_later(port())
            self.records.clear()
            self.backend.peers.clear()

    async def test_first_request(self) -> None:
        """It is answered before there is a server; the next one decides."""
        for port in (self.two(), self.under()):
            before = len(self.backend.peers)
            client = await self.begun(port, _B)
            read = await self.answers(client, 2)
            self.assertEqual(read, [(SETTINGS, 0, b""), (HEADERS, 1, _ANSWER)])
            client.send(frame(SETTINGS, frames.ACK, 0) + self.request(3, _A))
            server = await self.backend.heard(len(_BEGUN) + 10, before)
            passed = Speaker().read(bytes(server.received)[len(PREFACE) :])
            self.assertEqual(passed, [(SETTINGS, 0, b""), (HEADERS, 3, asked(_A))])
            client.reset()

    async def test_names_that_make_no_difference(self) -> None:
        """Nor do those that no route knows, or that no hello could name; all bytes pass as they are."""
        client = await self.speak(self.two())
        said = _BEGUN + b"".join(
            self.request(1 + 2 * number, host, 1, ("x", "y"))
            for number, host in enumerate((_A, f"{_A.upper()}.:8443", _C, "other.example", "[::1]"))
        )
        client.send(said)
        self.assertEqual((await self.backend.heard(len(said))).received, said)
        client.reset()
        self.assertNotIn("misdirected", (await self.assert_logged()).facts)
        client = await self.speak(self.two())
        section = Encoder().encode(asked("x" * 65_300), huffman=False)
        said = _BEGUN + self.request(1, _A) + header_frames(3, 1, section)
        client.send(said)
        self.assertEqual((await self.backend.heard(len(said), 1)).received, said)
        client.reset()

    async def test_other_places(self) -> None:
        """A default, if it is a server, has the names that no route takes; TLS that is passed on; the same servers with other certificates of clients."""
        to = self.backend_port()
        passed = route(f"tls sni={_B}", backend_at(free_port()), name="passed")
        port = self.mux([self.ends("a", "tls"), passed], default=backend_at(to))
        client = await self.begun(port, _B)
        await self.backend.heard(len(_BEGUN) + 1)  # "tls" takes it first
        client.reset()
        optional = self.ends("a", f"tls sni={_A}", to, client_ca=self.tls.ca, client="optional")
        required = self.ends("b", f"tls sni={_B}", to, client_ca=self.tls.ca)
        for routes, default, host in (
            (self.two_routes(), backend_at(free_port()), "www.example"),
            ([passed, self.ends("a", "tls", to)], CLOSE, _B), ([optional, required], CLOSE, _B),
        ):  # fmt: skip
            await self.assert_misdirected(await self.begun(self.mux(routes, default=default), host))

    async def test_client_without_a_name_has_that_of_its_first_request(self) -> None:
        first = _inside("tls", _A, self.backend_port())
        port = self.mux([self.ends("tls", "tls"), first, _inside("tls", _B, free_port())])
        client = await self.begun(port, _A, None)
        (await self.backend.heard(len(_BEGUN) + 1)).send(_SERVED)
        client.send(self.request(3, _B))
        await self.assert_misdirected(client, 3)

    async def test_dry_runs_count_only_what_would_have_come(self) -> None:
        dry = attrs.evolve(route("tls", CLOSE, name="dry"), dry_run=True)
        await self.assert_misdirected(await self.begun(self.mux([dry, *self.two_routes()]), _B))
        self.assertEqual(self.factory.configuration.top.detector.would_have_taken, {"dry": 1})

    async def test_one_place_alone_is_not_watched(self) -> None:
        """Nor is HTTP/1."""
        ends = self.ends("a", "tls", self.backend_port())
        for routes, alpn in (([ends], "h2"), (self.two_routes(), "http/1.1")):
            client = await self.tls.client(self.mux(routes), _A, alpn=(alpn,))
            self.assertIsInstance(next(iter(self.factory.connections)).transport, TlsTransport)
            client.reset()
            await self.assert_logged()

    async def test_most_requests_that_are_looked_at(self) -> None:
        """Each look takes as long as a connection: after many, what has not been seen passes, and the rest goes by its name."""
        more = self.ends("d", "tls sni=d.example", free_port())
        client = await self.speak(self.mux([*self.two_routes(), more]))
        requests = (
            self.request(2 * number + 1, host, 1, ("x", str(number)))
            for number, host in enumerate([_A, *[_B, _C] * 100, "d.example", _B, _C])
        )
        client.send(b"".join([_BEGUN, *requests]))
        read = await self.answers(client, 102)
        self.assertEqual([one for _, one, _ in read[1:]], [*range(3, 402, 4), 405])
        client.reset()

    async def test_certificate_that_a_route_inside_asks_for(self) -> None:
        """A client that was not asked for a certificate here may have one, for a connection of its own."""
        to = self.backend_port()
        for client_cert, kind in (("any", "required"), ("any", "optional"), ("none", "optional")):
            with self.subTest(client_cert, kind=kind):
                condition = certificate_condition(client_cert)
                inside = route("any", backend_at(to), name="inside")
                routes = [
                    self.ends("a", f"tls sni={_A}", to),
                    self.ends("b", f"tls sni={_B}", client_ca=self.tls.ca, client=kind),
                    attrs.evolve(inside, under=("b",), client_cert=condition),
                ]
                await self.assert_misdirected(await self.begun(self.mux(routes), _B))

    async def test_certificate_that_the_client_lacks(self) -> None:
        """A name of a route for certificates is not reached by another name of the same TLS."""
        to = self.backend_port()
        inside = [_inside("a", name, to) for name in (_A, _B)]
        inside[1] = attrs.evolve(inside[1], client_cert=certificate_condition("any"))
        outer = self.ends("a", "tls sni=*.example", client_ca=self.tls.ca, client="optional")
        client = await self.begun(self.mux([outer, *inside]), _A)
        client.send(self.request(3, _B))
        await self.assert_misdirected(client, 3)

    def beside_protected(self) -> int:
        to = self.backend_port()
        second = self.ends("b", f"tls sni={_B}", to, client_ca=self.tls.ca)
        return self.mux([self.ends("a", f"tls sni={_A}", to), second])

    async def test_unread_beside_a_protected_name(self) -> None:
        """What cannot be read ends the connection, and what names no host is answered 421: nothing gets by without the certificate."""
        small = frame(SETTINGS, 0, 0, bytes.fromhex("000100000000"))
        cases = {
            "large": lambda: self.request(1, _B, 1, ("x", "y" * 70_000)),
            "compression": lambda: frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
            "padding": lambda: frame(HEADERS, 0xD, 1, b"\x09"),
        }
        for count, (case, bad) in enumerate(cases.items(), 1):
            with self.subTest(case):
                client = await self.speak(self.beside_protected())
                client.send(PREFACE + small + bad())
                await client.is_lost()
                record = await self.assert_logged(count, reason="limit")
                self.assertEqual(record.facts["misdirected_unread"], "yes")
        names = (_B, f"x@{_B}", f"{_A}:443@{_B}", f"{_A},{_B}", "", f"{_A} {_B}", "%62.example")
        for settings, name in ((settings, name) for settings in (_SERVED, small) for name in names):
            with self.subTest(name, settings=settings):
                client = await self.speak(self.beside_protected())
                client.send(PREFACE + settings + self.request(1, name))
                await self.assert_misdirected(client)
        client = await self.speak(self.beside_protected())
        client.send(_BEGUN + self.request(1, _A, 1, ("host", _B)))
        await self.assert_misdirected(client)
        client = await self.speak(self.beside_protected())
        many = (self.request(2 * n + 1, "www.example", 1, ("x", str(n))) for n in range(200))
        client.send(b"".join([_BEGUN, *many, self.request(401, _B)]))
        await self.assert_misdirected(client, 401)

    async def test_unread_elsewhere(self) -> None:
        """Without such a name, the server judges it, and the log has that it was not looked at."""
        for count, bad in enumerate((frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"), None), 1):
            client = await self.speak(self.two())
            said = _BEGUN + (self.request(1, f"x@{_B}") if bad is None else bad)
            client.send(said)
            await self.backend.heard(len(said), len(self.backend.peers))
            client.reset()
            self.assertEqual((await self.assert_logged(count)).facts["misdirected_unread"], "yes")

    async def test_client_that_has_finished(self) -> None:
        """It still gets what its server answers, as without HTTP/2."""
        client = await self.begun(self.two(), _A)
        client.close_notify()
        server = await self.backend.heard(len(_BEGUN) + 1)
        await server.has_all()
        server.send(_SERVED + frame(DATA, 1, 1, b"fine"))
        server.close()
        self.assertIn((DATA, 1, b"fine"), await self.answers(client, 2))
        await self.assert_logged(reason="done")

    async def test_answer_behind_a_download(self) -> None:
        """A client that is slow to read from its server is not one that reads no answers."""
        client = await self.begun(self.two(), _A)
        server = await self.backend.heard(len(_BEGUN) + 1)
        client.transport.pauseProducing()
        server.send(_SERVED)
        (connection,), pieces = self.factory.connections, 0
        while connection.transport.socket.unsent <= 1 << 16:
            server.send(frame(DATA, 0, 1, bytes(16_000)))
            pieces += 1
            await self.turn()
        client.send(self.request(3, _B))
        await self.until_so(lambda: "misdirected" in connection.record.facts)
        await self.turn(3)
        client.transport.resumeProducing()
        self.assertIn((HEADERS, 3, _ANSWER), await self.answers(client, pieces + 2))
        client.reset()

    async def test_client_that_does_not_read_its_answers(self) -> None:
        client = await self.speak(self.two())
        client.transport.pauseProducing()
        client.send(_BEGUN + b"".join(self.request(n, _B) for n in range(1, 2101, 2)))
        client.transport.resumeProducing()
        await client.is_lost()
        await self.assert_logged(reason="limit")


def _count(data: bytes | bytearray) -> int:
    count, at = 0, 0
    while len(data) >= at + 9:
        at += 9 + int.from_bytes(data[at : at + 3], "big")
        count += at <= len(data)
    return count
