import contextlib
import errno
import os
import socket
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.kit import VirtualTime, make_authority, make_folder
from tests.support.peers import Peer, PeerFactory, listen, listen_tls, make_stalled_port, reactor
from txmux.net.http import NotConnectedError, RequestFailedError, ResponseTimeoutError, request
from txmux.net.tls.verification import ClientTLS


class GetTests(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()

    def ask(self, port: int, *, most: int = 100, scheme: str = "http", **more: Any) -> Any:
        url = f"{scheme}://host.test:{port}/path?x=1"
        options = {"address": "127.0.0.1", "seconds": 5.0, **more}
        return Deferred.fromCoroutine(
            request(self.time, "GET", url, {"X-Y": "z"}, most=most, **options)
        )

    async def asked(self, **options: Any) -> tuple[Any, Peer]:
        """Ask a server, and give what was asked and the server's end, which has got it."""
        self.server = PeerFactory()
        asking = self.ask(listen(self, self.server), **options)
        peer = await self.server.peer()
        await peer.has(20)
        return asking, peer

    async def answer(self, said: bytes, *, closes: bool = True, **options: Any) -> Any:
        asking, peer = await self.asked(**options)
        peer.send(said)
        if closes:
            peer.close()
        try:
            return await asking
        finally:
            await peer.is_lost()
            self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def fails(self, said: bytes, why: str, **options: Any) -> None:
        with self.assertRaisesRegex(RequestFailedError, why):
            await self.answer(said, **options)

    async def test_answer(self) -> None:
        said = b"HTTP/1.1 404 X\r\nA: 1\r\na: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
        answer = await self.answer(said)
        self.assertEqual((answer.status, answer.body, answer.headers["a"]), (404, b"hello", "2"))
        [peer] = self.server.peers
        head, *lines = bytes(peer.received).split(b"\r\n")
        self.assertEqual(head, b"GET /path?x=1 HTTP/1.1")
        self.assertIn(b"x-y: z", [line.lower() for line in lines])
        self.assertIn(b"connection: close", [line.lower() for line in lines])
        self.assertTrue(any(line.lower().startswith(b"host: host.test:") for line in lines))

    async def test_unix_socket_whose_queue_is_full(self) -> None:
        path = str(make_folder(self) / "s")
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(path)
            server.listen(0)
            is_full = False
            while not is_full:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.settimeout(0)
                is_full = waiting.connect_ex(path) == errno.EAGAIN
            with self.assertRaisesRegex(NotConnectedError, "^the connection was closed$"):
                await self.ask(80, address=path)

    async def test_unix_socket_of_another_owner(self) -> None:
        path = str(make_folder(self) / "s")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
            server.listen(1)
            with self.assertRaisesRegex(NotConnectedError, "its server is of user"):
                await self.ask(80, address=path, owner=os.geteuid() + 1)
            self.assertEqual(server.accept()[0].recv(9), b"")

    async def test_not_whole(self) -> None:
        """An answer that is too long is broken off, too."""
        for said, why in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "not whole"), (b"HTTP/1.1 200", "no whole answer"),
            (b"SSH-2.0-x\r\n\r\n", "no whole answer: it is not HTTP"), (b"", "no whole answer"),
        ):  # fmt: skip
            await self.fails(said, why)
        said = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + b"x" * 101
        await self.fails(said, "longer than 100 bytes", closes=False)

    async def test_parts(self) -> None:
        """A body is taken as it comes, if it is the one that was asked for; what the taker raises ends the request."""
        parts: list[bytes] = []
        for status, taken in (("200 OK", b"body"), ("500 Broken", b"")):
            said = f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbody".encode()
            answer = await self.answer(said, take=parts.append)
            self.assertEqual((b"".join(parts), answer.body), (taken, b"" if taken else b"body"))
            parts.clear()
        with self.assertRaises(ZeroDivisionError):
            await self.answer(b"HTTP/1.1 200 OK\r\n\r\nx", take=lambda _: 1 / 0, closes=False)

    async def test_endless_headers(self) -> None:
        """Headers without end, or answers before the answer, are broken off; as many as anybody has are not."""
        many = b"X: " + b"y" * 1000 + b"\r\n"
        early = b"HTTP/1.1 103 Y\r\nZ: z\r\n\r\n"
        for endless in (b"HTTP/1.1 200 OK\r\n" + 70 * many, 3000 * early):
            await self.fails(endless, "headers are longer than 65536 bytes", closes=False)
        length = b"Content-Length: 70000\r\n\r\n"
        said = b"HTTP/1.1 200 OK\r\n" + 60 * many + length + 70_000 * b"x"
        self.assertEqual(len((await self.answer(said, most=70_000)).body), 70_000)
        trailers = b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + 70 * many
        await self.fails(b"HTTP/1.1 200 OK\r\n" + trailers, "not whole", closes=False)

    async def test_too_late(self) -> None:
        for said in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):
            asking, peer = await self.asked()
            peer.send(said)
            for _ in range(5):
                await deferLater(reactor, 0.001)
            self.time.advance(5)
            with self.assertRaisesRegex(ResponseTimeoutError, "no answer within 5 s"):
                await asking
            await peer.is_lost()

    async def test_body_seconds(self) -> None:
        for ends in (True, False):
            asking, peer = await self.asked(body_seconds=3.0)
            self.time.advance(4)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx")
            [deadline] = self.time.clock.getDelayedCalls()
            while deadline.getTime() == 5:
                await deferLater(reactor, 0)
            self.time.advance(2)
            self.assertNoResult(asking)
            if ends:
                peer.send(b"y")
                self.assertEqual((await asking).body, b"xy")
            else:
                self.time.advance(1)
                with self.assertRaises(ResponseTimeoutError):
                    await asking
            await peer.is_lost()

    async def test_not_connected(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
            asked = request(self.time, "GET", url, {}, seconds=5.0, most=100)
            caught = self.assertFailure(Deferred.fromCoroutine(asked), NotConnectedError)
            while not caught.called:
                await deferLater(reactor, 0)
                self.time.let_connect()
            self.assertIn("refused", str(await caught))

    async def test_cancelled(self) -> None:
        asking = self.ask(make_stalled_port(self))
        asking.cancel()
        with self.assertRaises(CancelledError):
            await asking
        asked = request(self.time, "GET", "http://127.0.0.1:9/", {}, seconds=5.0, most=100)
        looking_up = Deferred.fromCoroutine(asked)
        looking_up.cancel()
        with self.assertRaises(CancelledError):
            await looking_up
        asking, peer = await self.asked()
        asking.cancel()
        with self.assertRaises(CancelledError):
            await asking
        await peer.is_lost()

    async def test_certificate(self) -> None:
        authority = make_authority()
        trusting = partial(ClientTLS, trustRoot=authority.private())
        for names, why, tls in (
            (["host.test"], "certificate verify failed", ClientTLS),
            (["b.test"], "its certificate is for b.test, not for host.test", trusting),
            ([], "has only a common name", trusting),
        ):
            server = authority.issue(*names).private().options()
            port = listen_tls(self, PeerFactory(), server)
            with self.assertRaisesRegex(RequestFailedError, why):
                await self.ask(port, scheme="https", tls=tls)
