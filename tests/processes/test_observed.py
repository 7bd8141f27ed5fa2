"""Servers that are failing or silent by what their clients meet, over all workers and in all reports."""

import socket
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from tests.support.datagrams import Talker
from tests.support.kit import SupervisedTestCase, VirtualTime, free_port
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from txmux.telemetry.counting.counter_groups import SERVER, ServerCounts
from txmux.telemetry.documents import ServerDocument
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader

pytestmark = pytest.mark.by_turns(each=True)
_DOWN = ["[backend web]: no server is up"]


class _Stopped(Peer):
    """As a program that does not run: the system accepts for it."""


class _NoHeader(Peer):
    """As nginx without ``proxy_protocol``: it takes a header for a request that is malformed."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        is_request = data.startswith(b"GET /good ")
        self.send(b"HTTP/1.1 %s\r\n\r\n" % (b"200 OK" if is_request else b"400 Bad Request"))
        self.close()


class _WithHeader(Peer):
    """As nginx with it: what comes behind the header is malformed, or it waits for that."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if b"GET /" in self.received:
            self.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.close()


class ObservedTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = VirtualTime()

    async def begin(self, *servers: str, more: str = "", endpoint: str = "127.0.0.1:0") -> int:
        self.servers = servers
        listed = "\n    ".join(servers)
        (port,) = await self.run_service(
            f"[txmux]\naccess_log = LOG\nworkers = 2\n[listen public]\nendpoint = {endpoint}\n"
            f"[route all]\nmatch = any\nbackend = web\n[backend web]\nserver = {listed}\n{more}",
            use=self.time,
        )
        return port

    async def clients(self, port: int, count: int, said: bytes = b"x") -> None:
        for _ in range(count):
            client = await connect(self, port)
            client.send(said)
            await client.is_lost()

    def counts(self) -> ServerCounts:
        """Return the cells of a worker, in which a test counts what it has not the time to do."""
        return self.running.control.counters.column(1).server("web", self.servers[0])

    def cell(self, name: str) -> int:
        cells = self.running.control.counters.cells(SERVER.key("web", self.servers[0]))
        return int(cells[SERVER.names.index(name)])

    async def counted(self, count: int, name: str) -> None:
        """Wait until workers have counted so much."""
        await self.until(lambda: self.cell(name) >= count)

    async def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.time.advance(1)
            for _ in range(20):  # what has begun by then ends on sockets
                await deferLater(reactor, 0.001)

    async def server(self) -> ServerDocument:
        (backend,) = await self.running.control.backends()
        return backend["servers"][0]

    async def state(self) -> str:
        return (await self.server())["state"]

    async def attention(self, what: str = "cause") -> str:
        items: list[Any] = (await self.running.control.status())["attention"]
        return "\n".join(str(item[what]) for item in items)

    async def test_lone_server_that_is_dead(self) -> None:
        """It is seen within five seconds, everywhere, and comes back without a client."""
        at = free_port()
        port = await self.begin(f"127.0.0.1:{at}")
        events: list[Any] = []
        self.addCleanup(self.running.control.events.subscribe(events.append))
        with capturedLogs() as logged:
            await self.clients(port, 3)
            self.assertEqual(await self.state(), "up")
            await self.pass_seconds(4)
            server = await self.server()
            self.assertEqual(server["state"], "failing")
            self.assertRegex(server["why"], r"^connection refused, ([0-9]+) of \1 in [0-9]+ s$")
            self.assertEqual(await self.running.control.missing(), _DOWN)
            self.assertIn("backend web: no server is up", await self.attention("text"))
            self.write(self.file.read_text() + "connect_timeout = 4s\n")
            self.assertTrue((await self.running.reload()).ok)
            self.assertEqual(await self.state(), "failing")
            back = PeerFactory()
            opened = reactor.listenTCP(at, back, interface="127.0.0.1")
            self.addCleanup(opened.stopListening)
            await self.pass_seconds(9)
            self.assertEqual(await self.state(), "up")
            self.assertEqual(await self.running.control.missing(), [])
        lines = [formatEvent(event) for event in logged]
        name = f"backend web: 127.0.0.1:{at} is"
        (begun,) = (line for line in lines if f"{name} failing" in line)
        self.assertRegex(begun, r"refused, ([0-9]+) of \1 in [0-9]+ s; it is tried every 5 s$")
        self.assertTrue(any(f"{name} no longer failing" in line for line in lines), lines)
        changes = [one for one in events if one and one["event"] == "server"]
        states = [(one["before"], one["state"]) for one in changes]
        self.assertEqual(states, [("up", "failing"), ("failing", "up")])

    async def test_proxy_header_that_an_http_server_does_not_expect(self) -> None:
        """It answers, so it has no state; that it expects no header is a note. One whose clients send malformed requests has none."""
        for version in ("v1", "v2"):
            for kind, is_noted in ((_NoHeader, True), (_WithHeader, False)):
                peers = PeerFactory(kind)
                server = f"127.0.0.1:{listen(self, peers)}"
                port = await self.begin(server, more=f"proxy_protocol = {version}\n")
                await self.clients(port, 3, b"GET /bad HTTP/1.1\r\n\r\n")
                await self.counted(3, "bad requests")
                await self.pass_seconds(4)
                self.assertEqual(await self.state(), "up")
                self.assertEqual(len(peers.peers), 4)  # one of txmux itself
                why = f"HTTP 400, 3 of 3 in 1 s; it may not expect the header of proxy_protocol = {version}"
                self.assertEqual(why in await self.attention(), is_noted, await self.attention())
                await self.stop()

    async def test_server_to_which_clients_only_send(self) -> None:
        """A server of logs: they say all, and leave, and that it sends nothing is no doubt; that it closes before them is one."""
        peers = PeerFactory()
        port = await self.begin(f"127.0.0.1:{listen(self, peers)}")
        for number in range(4):
            client = await connect(self, port)
            client.send(b"<34>1 - a b - - - x\n")
            server = await peers.heard(20, number)
            client.close()
            await server.is_lost()
        await self.counted(4, "unanswered")
        await self.pass_seconds(3)
        self.assertNotIn("without a byte", await self.attention())
        for number in range(4, 7):
            client = await connect(self, port)
            client.send(b"<34>1 - a b - - - x\n")
            (await peers.heard(20, number)).close()
            await client.is_lost()
        await self.pass_seconds(3)
        self.assertIn(
            "closed without a byte, 3 of 3 in 1 s; it may expect a PROXY header",
            await self.attention(),
        )

    async def test_server_that_never_answers_behind_a_check(self) -> None:
        server = f"127.0.0.1:{listen(self, PeerFactory())}"
        await self.begin(server, more="check = tcp\n")
        with capturedLogs() as logged:
            for source in range(5):
                self.counts().asked(source)
            await self.pass_seconds(14)
            self.assertEqual(await self.state(), "up")
            await self.pass_seconds(3)
            self.assertEqual(await self.state(), "silent")
            self.assertEqual(await self.running.control.missing(), _DOWN)
            column = self.running.control.counters.column(1)
            self.counts().answered(column.backend("web"), 1.0)
            await self.pass_seconds(1)
            self.assertEqual(await self.state(), "up")
        lines = [formatEvent(event) for event in logged]
        expected = f"backend web: {server} is silent: no byte from it to 5 clients in a row for 15 s; it may expect a PROXY header: see proxy_protocol"
        self.assertIn(expected, lines)

    async def test_one_client_that_begins_requests(self) -> None:
        """Neither many half requests, nor whole ones of one source, nor what it has reset, make the service alarm anyone."""
        peers = PeerFactory(_Stopped)
        port = await self.begin(f"127.0.0.1:{listen(self, peers)}")
        clients = []
        with capturedLogs() as logged:
            for number in range(12):
                clients.append(await connect(self, port, source=f"127.0.0.{1 + number % 4}"))
                clients[-1].send(b"GET / HTTP/1.1\r\nHost: a.example\r\n")
            for _ in range(6):
                clients.append(await connect(self, port))
                clients[-1].send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            for _ in range(6):
                clients.append(await connect(self, port))
                clients[-1].send(b"x")
                await self.until(lambda: len(peers.peers) >= len(clients))
                peers.peers[-1].reset()
            await self.counted(12, "asked")
            await self.counted(6, "failed reset")
            await self.pass_seconds(40)
            self.assertEqual((await self.state(), await self.attention("text")), ("up", ""))
            self.assertEqual(await self.running.control.missing(), [])
            for number in range(2, 4):  # others, which get no answer, either
                clients.append(await connect(self, port, source=f"127.0.0.{number}"))
                clients[-1].send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            await self.counted(14, "asked")
            await self.pass_seconds(6)
            self.assertEqual(await self.state(), "silent")
        self.assertEqual(self.cell("asked"), 14)
        self.assertEqual(sum("is silent" in str(formatEvent(event)) for event in logged), 1)

    async def test_try_begins_as_a_client_does(self) -> None:
        """With a PROXY header and with TLS, which a server of plain TCP fails."""
        peers = PeerFactory()
        server = f"127.0.0.1:{listen(self, peers)}"
        await self.begin(server, more="proxy_protocol = v2\n")
        with capturedLogs():
            for _ in range(3):
                self.counts().failed("connect-timeout")
            await self.pass_seconds(4)
            self.assertEqual(await self.state(), "up")
            local = encode_v2(ProxyHeader(Command.LOCAL))
            self.assertEqual([peer.received for peer in peers.peers], [local])
            self.write(self.file.read_text().replace("proxy_protocol = v2", "tls = yes"))
            self.assertTrue((await self.running.reload()).ok)
            for source in range(3):
                self.counts().failed("tls-failed", source=source)
            await self.pass_seconds(3)
            self.assertEqual(await self.state(), "failing")
            hello = peers.peers[-1].received
            self.assertEqual(hello[:1], b"\x16")

    async def test_dead_server_of_datagrams(self) -> None:
        """It is tried by datagrams without content, so that it comes back without a client."""
        for more, expected in (
            ("", b""),
            ("proxy_protocol = v2\n", encode_v2(ProxyHeader(Command.LOCAL), datagrams=True)),
        ):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kept:
                kept.bind(("127.0.0.1", 0))
                at = kept.getsockname()[1]
            port = await self.begin(f"udp:127.0.0.1:{at}", more=more, endpoint="udp:127.0.0.1:0")
            with capturedLogs() as logged:
                for _ in range(3):
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                        client.sendto(b"x", ("127.0.0.1", port))
                await self.counted(3, "failed connect-refused")
                await self.pass_seconds(12)
                self.assertEqual(await self.state(), "failing")
                self.assertEqual(await self.running.control.missing(), _DOWN)
                back = Talker.listening(self, port=at)
                await self.pass_seconds(7)
                self.assertEqual(await self.state(), "up")
                self.assertEqual(await self.running.control.missing(), [])
            self.assertEqual(set(back.heard), {expected})
            lines = [line for line in map(formatEvent, logged) if line and "failing" in line]
            self.assertRegex(
                lines[0], r"refused, ([0-9]+) of \1 in [0-9]+ s; it is tried every 5 s$"
            )
            self.assertEqual(len(lines), 2, lines)
            await self.running.stopService()

    async def test_nothing_is_left_at_the_end(self) -> None:
        """A server that does not answer is being tried while the service stops."""
        with socket.create_server(("127.0.0.1", 0)) as full:
            await self.begin(f"127.0.0.1:{full.getsockname()[1]}", more="connect_timeout = 1h\n")
            with capturedLogs():
                for _ in range(3):
                    self.counts().failed("connect-timeout")
                await self.pass_seconds(4)
                await self.running.stopService()
