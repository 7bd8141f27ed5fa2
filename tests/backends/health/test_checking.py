"""Tests of single checks, over real sockets."""

from __future__ import annotations

import errno
import functools
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.backends.health.checking_case import WELL, CheckingTestCase, ill
from tests.support.folders import make_folder
from tests.support.mux import server_at
from tests.support.peers import PeerFactory, listen, make_stalled_port, reactor
from txmux.backends.health.checking import LONGEST_ANSWER, CheckResult, CheckRun
from txmux.rules.reading.endpoints import server

if TYPE_CHECKING:
    from collections.abc import Callable


class ConnectionTests(CheckingTestCase):
    """Whether a server can be connected to, and how it is left."""

    async def test_tcp(self) -> None:
        for dial in self.engines():
            self.server = PeerFactory()
            self.check("tcp", dial=dial)
            self.assertEqual(await self.finding(), WELL)
            peer = await self.server.peer()
            await peer.is_lost()
            self.assertEqual((bytes(peer.received), peer.was_reset()), (b"", False))
            await self.is_over()

    async def test_talkative_server_is_not_reset(self) -> None:
        self.check("tcp")
        peer = await self.server.peer()
        peer.send(b"220 mail.example.com\r\n" * 100)
        await peer.has_all()
        peer.send(b"421 bye\r\n" * 100)
        await deferLater(reactor, 0.01)
        await peer.is_lost()
        self.assertFalse(peer.was_reset())
        self.assertEqual(self.found, [WELL])
        await self.is_over()

    async def test_refused(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            for dial in self.engines():
                self.check("tcp", server_at(port), dial=dial)
                self.assertEqual(await self.finding(), ill("connection refused"))
                self.assert_nothing_left()

    async def test_unix(self) -> None:
        folder = make_folder(self)
        path = f"{folder}/socket"
        for dial in self.engines():
            self.check("tcp", server(f"unix:{path}"), dial=dial)
            self.assertEqual(await self.finding(), ill("no such file or directory"))
        port = reactor.listenUNIX(path, self.server)
        self.addCleanup(port.stopListening)
        for number, dial in enumerate(self.engines()):
            self.check("tcp", server(f"unix:{path}"), dial=dial)
            self.assertEqual(await self.finding(), WELL)
            peer = await self.server.peer(number)
            await peer.is_lost()
        await self.is_over()

    async def test_endpoint(self) -> None:
        port = listen(self, self.server)
        self.check("redis", server(f"tcp:127.0.0.1:{port}:timeout=9"))
        peer = await self.server.peer()
        peer.send(b"+PONG\r\n")
        self.assertEqual(await self.finding(), WELL)
        await peer.is_lost()
        self.assertFalse(peer.was_reset())
        await self.is_over()

    async def test_stalled(self) -> None:
        target = server_at(make_stalled_port(self))
        for dial in self.engines():
            self.check("tcp", target, dial=dial)
            await deferLater(reactor, 0.01)
            self.assertEqual(self.found, [])
            self.time.advance(1)
            self.assertEqual(await self.finding(), ill("timed out after 1 s"))
            self.assert_nothing_left()

    async def test_lack_of_descriptors_says_nothing_of_server(self) -> None:
        def dial(*_: object) -> Callable[[], None]:
            raise OSError(errno.EMFILE, "Too many open files")

        self.check("tcp", server_at(1), dial=dial)
        self.assertEqual(self.found, [CheckResult(None, "too many open files")])
        self.assert_nothing_left()

    async def test_plugin_trouble(self) -> None:
        def dial(*_: object) -> Callable[[], None]:
            raise ValueError("no such thing")

        self.check("tcp", server_at(1), dial=dial)
        self.assertEqual(self.found, [ill("no such thing")])

    async def test_time_limit_of_the_dialler(self) -> None:
        def dial(_: object, factory: Any, __: float) -> Callable[[], None]:
            factory.clientConnectionFailed(None, Failure(error.TimeoutError()))
            return self.fail

        self.check("tcp", server_at(1), dial=dial).abort()
        self.assertEqual(self.found, [ill("timed out after 1 s")])
        self.assert_nothing_left()


class AnswerTests(CheckingTestCase):
    """What is answered, and when."""

    async def test_healthy_answer_in_pieces(self) -> None:
        for dial in self.engines():
            self.server = PeerFactory()
            self.check("redis", dial=dial)
            peer = await self.server.peer()
            await peer.has(14)
            self.assertEqual(peer.received, b"*1\r\n$4\r\nPING\r\n")
            peer.send(b"+PO")
            await deferLater(reactor, 0.01)
            self.assertEqual(self.found, [])
            peer.send(b"NG\r\n")
            self.assertEqual(await self.finding(), WELL)
            await peer.is_lost()
            self.assertFalse(peer.was_reset())
            await self.is_over()

    async def test_unhealthy_answer(self) -> None:
        self.check("http")
        peer = await self.server.peer()
        peer.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\noh, ")
        self.assertEqual(await self.finding(), ill("HTTP 503"))
        await peer.has_all()
        peer.send(b"no")
        await peer.is_lost()
        self.assertFalse(peer.was_reset())

    async def test_no_answer_in_time(self) -> None:
        for said, why in (
            (b"", "timed out after 1 s"),
            (b"220 mail\r\n", "timed out after 1 s: no SSH banner: 220 mail"),
        ):
            self.server = PeerFactory()
            checking = self.check("ssh")
            peer = await self.server.peer()
            await peer.has(1)
            peer.send(said)
            await self.until(functools.partial(self.has_received, checking, len(said)))
            self.time.advance(0.99)
            self.assertEqual(self.found, [])
            self.time.advance(0.01)
            self.assertEqual(await self.finding(), ill(why))
            await peer.is_lost()
            self.assertFalse(peer.was_reset())
            self.assert_nothing_left()

    async def test_closes(self) -> None:
        for said, why in ((b"", "connection closed without an answer"), (b"-", "no PONG: -")):
            self.server = PeerFactory()
            self.check("redis")
            peer = await self.server.peer()
            peer.send(said)
            peer.close()
            self.assertEqual(await self.finding(), ill(why))
            await peer.is_lost()
            await self.is_over()

    async def test_resets(self) -> None:
        for dial in self.engines():
            self.server = PeerFactory()
            self.check("redis", dial=dial)
            peer = await self.server.peer()
            await peer.has(1)
            peer.reset()
            self.assertEqual(await self.finding(), ill("connection reset"))
            await self.is_over()

    async def test_endless(self) -> None:
        for beginning, finding in (
            (b"HTTP/1.1 200 OK\r\n\r\n", WELL),
            (b"SSH", ill("no HTTP answer in 64 KiB: SSH" + "x" * 77 + "…")),
        ):
            self.server = PeerFactory()
            checking = self.check("http")
            peer = await self.server.peer()
            peer.send(beginning + b"x" * (40 * LONGEST_ANSWER))
            self.assertEqual(await self.finding(), finding)
            await peer.is_lost()
            self.assertLess(checking._received, 3 * LONGEST_ANSWER)
            await self.is_over()

    async def test_server_that_does_not_close(self) -> None:
        self.check("redis")
        peer = await self.server.peer()
        peer.send(b"+PONG\r\n")
        await peer.has_all()
        self.assertEqual(self.found, [WELL])
        self.time.advance(1)
        await deferLater(reactor, 0.01)
        self.assert_nothing_left()
        await peer.is_lost()
        self.assertEqual(self.found, [WELL])


class CutTests(CheckingTestCase):
    """Checks that are cut off."""

    async def test_connecting(self) -> None:
        target = server_at(make_stalled_port(self))
        for dial in self.engines():
            checking = self.check("tcp", target, dial=dial)
            checking.abort()
            self.assert_nothing_left()
            self.assertEqual(self.found, [])

    async def test_waiting(self) -> None:
        for dial in self.engines():
            self.server = PeerFactory()
            checking = self.check("redis", dial=dial)
            peer = await self.server.peer()
            await peer.has(1)
            checking.abort()
            self.assert_nothing_left()
            await peer.is_lost()
            self.assertEqual(self.found, [])

    async def test_over(self) -> None:
        checking = self.check("redis")
        peer = await self.server.peer()
        peer.close()
        await self.finding()
        await peer.is_lost()
        await self.is_over()
        checking.abort()

    async def test_aborted_by_result(self) -> None:
        for answer in (b"+PONG\r\n", b"-LOADING\r\n", b""):
            self.server = PeerFactory()
            checking = self.check("redis")

            def cut(finding: CheckResult, checking: CheckRun = checking) -> None:
                self.found.append(finding)
                checking.abort()

            checking._on_result = cut
            peer = await self.server.peer()
            peer.send(answer)
            peer.finish()
            await self.finding()
            await peer.is_lost()
            self.assert_nothing_left()
