"""Servers that are down, failing or silent by checks and what clients meet, over all workers and in all reports."""

import os
import signal
import socket
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from tests.support.kit import SupervisedTestCase, Talker, free_port
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from txmux.backends.pool.server_health import MemberState
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.processes.supervisor.worker import Worker
from txmux.telemetry.counting.counter_groups import SERVER, ServerCounts
from txmux.telemetry.documents import ServerDocument
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader

_TRIED = r"refused, ([0-9]+) of \1 in [0-9]+ s; it is tried every 5 s$"
_DOWN = ["[backend web]: no server is up"]
_REQUEST = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


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


@pytest.mark.by_turns(each=True)
class ObservedTest(SupervisedTestCase):
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

    async def counted(self, count: int, name: str) -> None:
        """Wait until workers have counted so much, and no more."""
        key, at = SERVER.key("web", self.servers[0]), SERVER.names.index(name)
        counters = self.running.control.counters
        await self.until(lambda: counters.cells(key)[at] >= count)
        self.assertEqual(counters.cells(key)[at], count)

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
        self.assertRegex(begun, _TRIED)
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

    async def test_silent_server(self) -> None:
        """Behind a check, too. Neither many half requests, nor whole ones of one source, nor what it has reset, make the service alarm anyone."""
        peers = PeerFactory(_Stopped)
        server = f"127.0.0.1:{listen(self, peers)}"
        port = await self.begin(server, more="check = tcp\n")
        clients = []

        async def come(said: bytes, source: int = 1) -> None:
            clients.append(await connect(self, port, source=f"127.0.0.{source}"))
            clients[-1].send(said)

        def those_reset() -> list[Peer]:
            return [peer for peer in peers.peers if peer.received == b"x"]

        with capturedLogs() as logged:
            for number in range(12):
                await come(_REQUEST[:-2], 1 + number % 4)
            for _ in range(6):
                await come(_REQUEST)
            for number in range(1, 7):
                await come(b"x")
                await self.until(lambda: len(those_reset()) == number)  # noqa: B023
                those_reset()[-1].reset()
            await self.counted(12, "asked")
            await self.counted(6, "failed reset")
            await self.pass_seconds(40)
            self.assertEqual((await self.state(), await self.attention("text")), ("up", ""))
            self.assertEqual(await self.running.control.missing(), [])
            for source in range(2, 4):  # others, which get no answer, either
                await come(_REQUEST, source)
            await self.counted(14, "asked")
            await self.pass_seconds(6)
            self.assertEqual(await self.state(), "silent")
            self.assertEqual(await self.running.control.missing(), _DOWN)
            self.counts().answered(self.running.control.counters.column(1).backend("web"), 1.0)
            await self.pass_seconds(1)
            self.assertEqual(await self.state(), "up")
        [said] = [line for line in map(str, map(formatEvent, logged)) if "is silent" in line]
        why = r"no byte from it to 14 clients in a row for 4\d s; it may expect a PROXY header: see proxy_protocol"
        self.assertRegex(said, f"^backend web: {server} is silent: {why}$")

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
                    Talker.listening(self).say(b"x", port)
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
            self.assertRegex(lines[0], _TRIED)
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


class KnownTest(SupervisedTestCase):
    """What workers are told of checks: nothing while nothing changes, and each knows the state of every server."""

    def rules(self, settings: str = "", interval: str = "1s") -> str:
        servers = "\n    ".join(self.at)
        return (
            f"[txmux]\nworkers = 2\n[listen public]\nendpoint = 127.0.0.1:0\n[route all]\nmatch = any\n"
            f"backend = pool\n[backend pool]\nserver = {servers}\ncheck = tcp interval={interval} fall=1 rise=1\n{settings}"
        )

    async def pass_seconds(self, seconds: int) -> None:
        for _ in range(10 * seconds):
            self.time.advance(0.1)
            await deferLater(reactor, 0.002)

    def send(self, message: Message, **values: Any) -> None:
        self.sent += message is messages.CHECK
        self.send_to_all(message, **values)

    async def assert_known(self, *states: str) -> None:
        workers = self.supervisor.pool.workers
        reports = [await worker.ask(messages.SERVERS) for worker in workers]
        for process in (self.supervisor.state.upstreams.as_json(), *reports):
            self.assertEqual([server["state"] for server in process], [*states])

    async def test_known(self) -> None:
        self.sent = 0
        up = PeerFactory()
        named = len({row[4][0] for row in socket.getaddrinfo("localhost", None)})  # one, or two
        self.at = [f"127.0.0.1:{listen(self, up)}", f"localhost:{(gone := free_port())}"]
        await self.run_service(self.rules(), use=self.time)
        self.send_to_all = self.supervisor.pool.send_to_all
        self.supervisor.pool.send_to_all = self.send  # type: ignore[method-assign]
        with capturedLogs() as events:
            await self.pass_seconds(3)
            await self.assert_known("up", *["down"] * named)
            self.assertEqual(self.sent, 1 + named)
            await self.pass_seconds(10)
        # Once an interval, however many workers there are
        self.assertIn(len(up.peers), range(11, 15))
        self.assertEqual(self.sent, 1 + named)
        told = [text for text in map(str, map(formatEvent, events)) if " is down: " in text]
        self.assertEqual(len(told), named)
        self.assertRegex("\n".join(told), rf"127\.0\.0\.1:{gone}\b.* is down: .*connection refused")
        status = await self.running.control.status()
        self.assertIn("1 of 2 servers is down", str(status["attention"]))
        # At last without further checks, whose results would be others than those below.
        for rules in (self.rules(), self.rules("retries = 7"), self.rules(interval="1h")):
            self.write(rules)
            await self.running.reload()
            await self.assert_known("up", *["down"] * named)
        await self.pass_seconds(3)  # the first of these, and the next one is an hour away
        # A change while a worker starts, after its start message.
        supervisor, (first, _) = self.supervisor, self.supervisor.pool.workers
        start_message = supervisor.start_message

        def start(worker: Worker) -> dict[str, Any]:
            reactor.callLater(0, change)
            return start_message(worker)

        def change() -> None:
            for upstream in supervisor.state.upstreams.all():
                for member in upstream.pool.members:
                    ok = member.state is not MemberState.UP
                    supervisor.state.upstreams._take_result(
                        upstream, member, ok=ok, why="refused", is_first=False
                    )

        supervisor.start_message = start  # type: ignore[method-assign]
        os.kill(first.pid, signal.SIGKILL)
        for is_ready in (False, True):
            while first.ready is not is_ready:
                self.time.advance(0.01)  # as little as it takes, or the worker would be late
                await deferLater(reactor, 0.01)
        await self.assert_known("down", *["up"] * named)
