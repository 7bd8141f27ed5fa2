import time
from collections.abc import Container, Sequence
from typing import Any, Literal

from tests.support.kit import Peer, for_each
from tests.support.mux import CLOSE, MuxTestCase, backend_at
from tests.support.servers import counted, waited
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.rules.embedding import route
from txmux.rules.model import Route
from txmux.telemetry.counting import counter_groups
from txmux.transport import source_number

_SSH = b"SSH-2.0-a\r\n"
_HELLO = records(client_hello(server_name("a.test")))


@for_each("first", (_SSH, _HELLO))
@for_each("max_duration", (None, 1000.0))
class ServerCountsTest(MuxTestCase):
    """`max_duration` takes a client from the fast path; one that is routed by its hello has a server that may ask for another."""

    max_duration: float | None
    first: bytes

    async def begin(self) -> tuple[Peer, Peer]:
        self.server = backend_at(self.backend_port(), max_duration=self.max_duration)
        client = await self.connect_read(self.mux(self.routes()), self.first[:3])
        self.time.advance(1)  # the server is not to blame for a slow client
        client.send(self.first[3:])
        return client, await self.backend.heard(len(self.first))

    def routes(self) -> Sequence[Route]:
        if self.first == _SSH:
            return [route("ssh", self.server)]
        return [route("tls sni=vip.test", CLOSE), route("tls", self.server, name="all")]

    def cells(self) -> Any:
        key = counter_groups.SERVER.key("backend", self.server.servers[0].text)
        return self.factory.runtime.counters.block(key)

    def cell(self, name: str) -> int:
        return int(self.cells()[counter_groups.SERVER.names.index(name)])

    def sources(self, span: slice) -> Container[int]:
        return counter_groups.sources_in([0], self.cells()[span])

    async def test_first_byte_at_once_and_bytes_of_live_connections(self) -> None:
        """Also of a client that gets a stage while it waits."""
        for has_stage in self.anew((False, True)):
            client, server = await self.begin()
            if has_stage:
                self.only()
            asked = {"asked": 1} if self.max_duration or has_stage else {}
            self.assertEqual(counted(self.factory), asked)
            self.time.advance(0.25)
            await server.tell(client, b"answer")
            self.assertEqual(counted(self.factory), {**asked, "answered": 1})
            await server.tell(client, b" and more", 15)
            client.send(b"more")
            count = len(self.first) + 4
            await server.has(count)
            self.assertEqual((waited(self.factory), self.cell("answer time")), ((0.25, 1), 250_000))
            (connection,) = self.factory.connections
            connection.count_bytes()
            self.assertEqual((self.cell("bytes in"), self.cell("bytes out")), (count, 15))
            await client.tell(server, b"!", count + 1)
            client.close()
            await self.assert_ended(server, bytes_in=count + 1, reason="done")
            self.assertEqual(counted(self.factory), {**asked, "answered": 1})
            self.assertEqual((self.cell("bytes in"), self.cell("bytes out")), (count + 1, 15))

    async def test_reset_before_the_first_byte(self) -> None:
        """One after it is no failure of the server."""
        client, server = await self.begin()
        await server.tell(client, b"answer")
        await self.is_gone(client, server.reset)
        await self.assert_logged(reason="server-reset")
        self.assertEqual(counted(self.factory)["answered"], 1)
        self.forget()
        client, server = await self.begin()
        await self.is_gone(client, server.reset)
        await self.assert_logged(reason="server-reset")
        self.assertEqual(counted(self.factory), {"asked": 1, "failed reset": 1})
        when, cause = counter_groups.last_failure_of(self.cell("last failure")) or (0.0, "error")
        self.assertEqual(cause, "reset")
        self.assertLess(abs(time.time() - when), 60)
        self.assertEqual(self.sources(counter_groups.RESET), {source_number("127.0.0.1:1")})

    async def test_client_that_waits(self) -> None:
        """It is counted once, with its source, unless its request is not whole."""
        self.server = backend_at(self.backend_port(), max_duration=self.max_duration)
        port = self.mux([route("any", self.server, name="all")])
        whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        clients = []
        requests = (
            whole[:-2], b"POST " + whole[4:-2] + b"Content-Length: 9\r\n\r\n",
            bytes.fromhex("1603010200010001fc0303"), whole,
        )  # fmt: skip
        for number, data in enumerate(requests):
            clients.append(await self.connect(port, data))
            await self.backend.heard(len(data), number)
        for _ in range(3):
            self.time.advance(1)
        self.assertEqual(counted(self.factory), {"asked": 1})
        self.assertEqual(self.sources(counter_groups.WAITING), {source_number("127.0.0.1:1")})
        for client in clients:
            client.close()
        for peer in self.backend.peers:
            await peer.is_lost()

    async def test_client_leaves_before_or_after_the_answer(self) -> None:
        """The server may leave first, and the client may have finished before."""
        own = self.first
        for how, seconds, first, expected in self.anew((
            ("leaves", 1, own, "unanswered"), ("closed", 1, own, "answered"),
            ("finishes", 1, own, "answered"), ("finishes", 0, _HELLO, "answered"),
        )):  # fmt: skip
            self.first = first
            client, server = await self.begin()
            if how == "finishes":
                await server.has_all(client.finish)
            self.time.advance(seconds)
            if how == "leaves":
                client.close()
                await server.is_lost()
            else:
                server.send(b"answer")
                await client.has_all(server.close)
                client.close()
            await self.assert_logged(reason="done")
            self.assertEqual(counted(self.factory), {"asked": 1, expected: 1})

    async def test_server_closes_first_without_a_byte(self) -> None:
        """Which is told from a client that has sent all, and leaves, however and whenever the client goes then."""
        for leave, seconds in self.anew(((Peer.close, 0), (Peer.close, 2), (Peer.reset, 0))):
            client, server = await self.begin()
            self.time.advance(1)  # it waits
            await client.has_all(server.close)
            self.assertEqual(counted(self.factory), {"asked": 1, "closed": 1})
            self.time.advance(seconds)
            leave(client)
            await self.until_logged()
            self.assertEqual(counted(self.factory), {"asked": 1, "unanswered": 1, "closed": 1})

    async def test_http_400_to_a_proxy_header(self) -> None:
        """It counts only where a header is sent, and only as an answer of HTTP."""
        ways: list[tuple[Literal["off", "v1", "v2"], bytes, int]] = [
            ("v1", b"HTTP/1.1 400 Bad Request\r\n\r\n", 1),
            ("v2", b"HTTP/1.0 400 \r\n\r\n", 1),
            ("v2", b"HTTP/1.1 404 Not Found\r\n\r\n", 0),
            ("v2", b"SSH-2.0-x400\r\n", 0),
            ("off", b"HTTP/1.1 400 Bad Request\r\n\r\n", 0),
        ]
        at, sums = self.backend_port(), {"answered": 0, "bad requests": 0}
        for number, (version, answer, count) in enumerate(ways):
            self.server = backend_at(at, max_duration=self.max_duration, proxy_protocol=version)
            client, server = await self.both(self.mux([route("ssh", self.server)]), _SSH)
            await server.tell(client, answer)
            sums = counted(self.factory, names=sums)
            self.assertEqual(sums, {"answered": 1, **({"bad requests": 1} if count else {})})
            await server.is_lost(client.close)
            await self.until_logged(number + 1)


class ServerFirstTest(MuxTestCase):
    async def test_counts_as_asked_once(self) -> None:
        client = await self.connect(self.mux(default=self.greeting()))
        await self.has_greeting(client)
        server = await self.greeter.peer()
        await client.tell(server, b"EHLO x")
        self.assertEqual(counted(self.factory), {"asked": 1, "answered": 1})
        self.assertEqual(waited(self.factory), (0.0, 1))
        await self.closed(client, server)
        self.assertEqual(counted(self.factory), {"asked": 1, "answered": 1})

    async def test_wait_counts_from_the_first_byte_of_the_client(self) -> None:
        """Where clients are connected at once, too, half a request counts for nothing: a server does well to wait for the rest."""
        for is_half in self.anew((True, False)):
            client = await self.connect(self.mux(default=backend_at(self.backend_port())))
            server = await self.backend.peer()
            self.time.advance(5)
            self.assertEqual(counted(self.factory), {})
            if is_half:
                await client.tell(server, b"GET / HTTP/1.1\r\nHost: a\r\n")
                self.assertEqual(counted(self.factory), {})
                await server.tell(client, b"HTTP/1.1 408 Request Timeout\r\n\r\n")
                self.assertEqual(counted(self.factory), {"answered": 1})
            else:
                await client.tell(server, b"EHLO x\r\n")
                self.assertEqual(counted(self.factory), {"asked": 1})
                self.time.advance(0.25)
                await server.tell(client, b"hello")
                self.assertEqual(waited(self.factory), (0.25, 1))
            await self.closed(client, server)
