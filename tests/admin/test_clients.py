"""Clients that are slow, send too much, or come in hundreds harm nobody."""

import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import JSON, AdminCase, Told, request
from tests.interop.children import PATIENCE
from txmux.admin.api.reports import HEALTH as HEALTH_RESOURCES
from txmux.admin.guard import AdminGuard
from txmux.admin.http import AdminClients
from txmux.admin.resource import AnswerStream, ApiAnswer, Query, Resource
from txmux.admin.site import Site
from txmux.control.control import Control
from txmux.testing.transport import WaterMarkTransport

HEALTH = request("GET", "/x").replace(b"Connection: close\r\n", b"")
STREAM = HEALTH.replace(b"/x", b"/stream")


class ClientsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.streams: list[AnswerStream] = []
        self.slow: list[Deferred[None]] = []
        self.answered = 0
        control: Any = None
        self.clients = self.make(control)

    def make(self, control: Control) -> AdminClients:
        async def plain(_: Query) -> ApiAnswer:
            self.answered += 1
            return ApiAnswer.json({})

        async def stream(_: Query) -> ApiAnswer:
            return ApiAnswer(type="text/event-stream", stream=self.streams.append)

        async def slow(_: Query) -> ApiAnswer:
            self.slow.append(waiting := Deferred[None]())
            await waiting
            return ApiAnswer.json({})

        async def broken(_: Query) -> ApiAnswer:
            raise ValueError("on purpose")

        resources = (
            Resource("GET", "/x", plain), Resource("POST", "/x", plain),
            Resource("GET", "/stream", stream), Resource("GET", "/broken", broken),
            Resource("GET", "/slow", slow), *HEALTH_RESOURCES,
        )  # fmt: skip
        guard = AdminGuard(frozenset(), self.clock.seconds)
        return AdminClients(Site(control, resources, guard, is_admin=False), self.clock)

    def connected(self, host: str = "192.0.2.1") -> WaterMarkTransport:
        peer = IPv4Address("TCP", host, 50000)
        transport = WaterMarkTransport(1000, peer=peer)
        transport.connect(self.clients.buildProtocol(peer))
        return transport

    def assert_served(self, transport: WaterMarkTransport) -> None:
        transport.deliver(HEALTH)
        self.assertIn(b"200 OK", transport.take())

    def assert_closed(self, transport: WaterMarkTransport) -> None:
        transport.take()
        self.assertIsNotNone(transport.lost)

    def assert_crowded(self, host: str = "192.0.2.1") -> None:
        transport = self.connected(host)
        self.assertEqual(Told.of(transport.take()).status, 503)
        self.assertIsNotNone(transport.lost)

    def test_silent_clients_are_closed_after_30_seconds(self) -> None:
        silent = self.connected()
        self.clock.advance(29)
        self.assertIsNone(silent.lost)
        self.clock.advance(2)
        self.assert_closed(silent)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        headers, body = HEALTH, request("POST", "/x", JSON, b"{" + b" " * 30)
        for sent in (headers, body):  # request and body have 10 seconds to arrive
            transport = self.connected()
            for number in range(11):
                transport.deliver(sent[number : number + 1])
                self.assertIsNone(transport.lost)
                self.clock.advance(0.99)
            self.clock.advance(0.2)
            self.assert_closed(transport)
            self.assertEqual(transport.unsent, b"")

    def test_oldest_of_more_than_64_is_closed_but_not_a_busy_one(self) -> None:
        first = self.connected()
        first.deliver(STREAM)
        others = [self.connected() for _ in range(63)]
        others[0].deliver(b"G")  # nor does it stay by trickling
        new = self.connected()
        for transport in (first, *others):
            transport.take()
        self.assertIsNone(first.lost)
        self.assertEqual([number for number, one in enumerate(others) if one.lost is not None], [0])
        self.assert_served(new)
        self.streams[0].write(b"data: x\n\n")
        self.assertIn(b"data: x", first.take())

    def test_many_in_one_turn_make_room(self) -> None:
        transports = [self.connected() for _ in range(100)]
        for transport in transports:
            transport.take()
        gone = [number for number, one in enumerate(transports) if one.lost is not None]
        self.assertEqual(gone, [*range(36)])

    def test_new_client_is_refused_while_all_are_busy(self) -> None:
        for transport in [self.connected() for _ in range(64)]:
            transport.deliver(STREAM)
        self.assert_crowded()
        for stream in self.streams:
            stream.finish()
        self.assertIsNone(self.connected().lost)
        ended: list[bool] = []  # writer of a stream hears of its end and may write on
        transport = self.connected()
        transport.deliver(STREAM)
        stream = self.streams[-1]
        stream.on_end(lambda: ended.append(True))
        transport.reset()
        self.assertEqual(ended, [True])
        stream.write(b"more")
        stream.finish()

    def test_other_source_takes_a_place_of_the_largest_even_if_busy(self) -> None:
        other = self.connected("192.0.2.2")
        busy = [self.connected() for _ in range(63)]
        for transport in busy:
            transport.deliver(STREAM)
        self.assert_crowded()
        new = self.connected("192.0.2.3")
        for transport in (*busy, other):
            transport.take()
        self.assertEqual([one for one in busy if one.lost is not None], busy[:1])
        for transport in (other, new):
            self.assert_served(transport)
        self.setUp()
        fewer = "192.0.2.2"  # until both have the same number
        both = [self.connected(host) for host in ["192.0.2.1"] * 33 + [fewer] * 31]
        for transport in both:
            transport.deliver(STREAM)
        self.connected(fewer).deliver(STREAM)
        for transport in both:
            transport.take()
        self.assertEqual([one for one in both if one.lost is not None], both[:1])
        self.assert_crowded(fewer)

    def test_health_while_many_others_wait(self) -> None:
        """It is told at once; of all else, only some is made at a time."""
        for path in (*["/slow"] * 20, "/x"):
            transport = self.connected()
            transport.deliver(HEALTH.replace(b"/x", path.encode()))
        self.assertEqual((self.answered, transport.take()), (0, b""))
        health = self.connected()
        health.deliver(HEALTH.replace(b"/x", b"/healthz"))
        self.assertIn(b"200 OK", health.take())
        while self.slow:
            self.slow.pop().callback(None)
        self.assertIn(b"200 OK", transport.take())

    def test_end(self) -> None:
        """Answers that are being made have their time, also where nobody waits for them any more."""
        self.successResultOf(self.clients.end(5))
        for has_left in (False, True):
            busy, idle = self.connected(), self.connected()
            busy.deliver(STREAM)
            if has_left:
                self.clients.answering(Deferred())
                busy.reset()
            ended = Deferred.fromCoroutine(self.clients.end(5))
            idle.take()
            self.assertIsNotNone(idle.lost)
            self.clock.advance(4.9)
            self.assertNoResult(ended)
            self.clock.advance(0.1)
            busy.take()
            self.successResultOf(ended)
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clients.answering(answer := Deferred[None]())
        ended = Deferred.fromCoroutine(self.clients.end(5))
        self.assertNoResult(ended)
        answer.callback(None)
        self.successResultOf(ended)

    def test_one_request_a_connection(self) -> None:
        """What follows the first one is not read, whatever the client wishes."""
        for more in (b"", HEALTH * 99, HEALTH[:20], b"\x81\x85\0\0\0\0hello\r\n\r\n"):
            self.answered, transport = 0, self.connected()
            kept = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n")
            transport.deliver(kept + more)
            answer = transport.take()
            self.assertEqual((self.answered, answer.count(b"HTTP/1.1")), (1, 1))
            self.assertEqual(Told.of(answer).headers["connection"], "close")
            self.assertIsNotNone(transport.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answer_not_read(self) -> None:
        """Who does not take the answer is ended after 30 seconds, and makes room for others before."""
        lazy = [self.connected() for _ in range(64)]
        for transport in lazy:
            transport.deliver(HEALTH)
        self.assert_served(self.connected())
        self.assertIsNone(lazy[-1].lost)
        self.clock.advance(31)
        self.assert_closed(lazy[-1])

    def test_request_for_another_protocol_is_answered_as_http(self) -> None:
        for path, status in ((b"/x", b"200"), (b"/stream", b"200"), (b"/ws", b"404")):
            for field in (
                b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ):
                transport = self.connected()
                asked = HEALTH.replace(b"/x", path).replace(
                    b"\r\n\r\n", b"\r\nConnection: Upgrade\r\n" + field + b"\r\n"
                )
                transport.deliver(asked)
                for stream in self.streams:
                    stream.write(b"data: x\n\n")
                answer = transport.take()
                self.assertEqual(answer[9:12], status)
                self.assertNotIn(b"upgrade", answer.lower())
                if self.streams:
                    self.streams.pop().finish()
                self.assert_closed(transport)

    def test_body_of_more_than_64_kib_is_refused(self) -> None:
        whole = b"{" + b" " * 65534 + b"}"
        chunks = b"10000\r\n" + whole + b"\r\n"
        chunked = {**JSON, "Transfer-Encoding": "chunked", "Content-Length": ""}
        head = request("POST", "/x", chunked).replace(b"Content-Length: \r\n", b"")
        for sent, status in (
            (request("POST", "/x", JSON, whole), 200),
            (request("POST", "/x", JSON, whole + b" "), 413),
            (head + chunks + b"0\r\n\r\n", 200),
            (head + chunks + b"1\r\n \r\n0\r\n\r\n", 413),
        ):
            transport = self.connected()
            transport.deliver(sent)
            self.assertEqual(Told.of(transport.take()).status, status)
        for more in (b"A: " + b"a" * 65536, b"\r\n".join(b"A: %d" % n for n in range(9000))):
            transport = self.connected()
            transport.deliver(b"GET /x HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n\r\n")
            self.assertIn(Told.of(transport.take()).status, {400, 431})
            self.assertIsNotNone(transport.lost)
        transport = self.connected()
        transport.deliver(HEALTH.replace(b"/x", b"/broken"))
        self.assertIn(b"500 Internal Server Error", transport.take())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assert_served(self.connected())

    def test_not_http(self) -> None:
        for sent in (
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\0" * 40 + b"\r\n\r\n",
            b"SSH-2.0-x\r\n", b"GET /x\r\n\r\n", b"GET /x HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST /x HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /x HTTP/1.1\r\n\r\n",
        ):  # fmt: skip
            transport = self.connected()
            transport.deliver(sent)
            answer = transport.take()
            self.assertEqual(answer.count(b"HTTP/1.1 400 Bad Request\r\n"), 1, (sent, answer))
            self.assertTrue(Told.of(answer).error)


class CrowdTest(AdminCase):
    async def test_requests_before_and_behind_hundreds_in_the_queue_are_answered(self) -> None:
        await self.start("metrics = 127.0.0.1:0")
        port = self.port_of("metrics")

        def client() -> socket.socket:
            return self.enterContext(socket.create_connection(("127.0.0.1", port), PATIENCE))

        asking = client()
        asking.sendall(request("GET", "/healthz"))
        for _ in range(300):  # none is accepted meanwhile
            client()
        self.assertEqual((await self.ask("GET", "/healthz", to=port)).status, 200)
        with asking.makefile("rb") as answer:
            self.assertEqual(Told.of(answer.read()).status, 200)
