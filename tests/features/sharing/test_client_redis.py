from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import Peer, PeerFactory, VirtualTime, listen, reactor
from txmux.features.sharing.client import RedisError, RedisProtocol, ReplyError, ReplyParser

_LEAVES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40)
_REPLIES = st.recursive(_LEAVES, lambda inside: st.lists(inside, max_size=5), max_leaves=9).filter(
    lambda reply: _depth(reply) <= 4
)
_LONG = 1 << 20
_PARTS = b"*2\r\n", b"$3\r\n", b":", b"1", b"\r\n", b"-", b"x"


def _depth(reply: Any) -> int:
    return 1 + max(map(_depth, reply), default=0) if isinstance(reply, list) else 0


def _encoded(reply: Any) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n%b" % (len(reply), b"".join(map(_encoded, reply)))


class ParserTests(SynchronousTestCase):
    def parse(self, *pieces: bytes) -> list[Any]:
        parser = ReplyParser()
        return [reply for piece in pieces for reply in parser.feed(piece)]

    @given(st.lists(_REPLIES, max_size=4), st.integers(1, 20))
    def test_however_the_bytes_are_cut(self, replies: list[Any], size: int) -> None:
        data = b"+OK\r\n" + b"".join(map(_encoded, replies)) + b"*-1\r\n"
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        self.assertEqual(self.parse(*pieces), [b"OK", *replies, None])

    @given(st.binary() | st.lists(st.sampled_from(_PARTS)).map(b"".join))
    def test_anything_is_parsed_or_refused(self, data: bytes) -> None:
        pieces = [bytes([byte]) for byte in data]
        self.assertEqual(self.result(data), self.result(*pieces))

    def result(self, *pieces: bytes) -> str:
        try:
            return repr(self.parse(*pieces))
        except RedisError as problem:
            return type(problem).__name__

    def test_errors_say_what_to_do(self) -> None:
        (replica, other) = self.parse(b"-READONLY You can't.\r\n-ERR x\x1b[2J%b\r\n" % (b"y" * 999))
        self.assertEqual(replica.code, "READONLY")
        self.assertIn("read-only replica: name the master (READONLY You", str(replica))
        self.assertTrue(str(other).isprintable())
        self.assertLess(len(str(other)), 250)
        data = b"x" * (_LONG - 20)
        self.assertEqual(self.parse(_encoded(data)), [data])
        self.assertEqual(self.parse(b"*1000\r\n" + 1000 * b":1\r\n"), [[1] * 1000])
        for data, why in (
            (b"$1048576\r\n", "longer than 1048576"),
            (b"*20\r\n" + 20 * _encoded(b"x" * 60_000), "longer than 1048576"),
            (b"*1000000000\r\n", "more than 4 levels, or 1000 elements"),
            (b"*900\r\n*200\r\n", "or 1000 elements"),
            (b"*1\r\n" * 10_000, "more than 4 levels"),
            (b"+" + b"x" * 5000, "a line of its reply is longer"),
            (b"$3\r\nabcde", "does not speak Redis's protocol"),
            (b"HTTP/1.1 400 Bad Request\r\n", "does not speak Redis's protocol: 'HTTP/1.1 400"),
            (b":1_0\r\n", "does not speak"),
            (b":" + b"9" * 4000 + b"\r\n", "does not speak"),
        ):
            self.assertRaisesRegex(RedisError, why, self.parse, data)


class ConnectionTests(TestCase):
    async def connect(self, on_message: Any = None) -> tuple[RedisProtocol, Peer]:
        self.time, server = VirtualTime(), PeerFactory()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", listen(self, server))
        protocol = await connectProtocol(endpoint, RedisProtocol(self.time, 5.0, on_message))
        time = self.time
        self.addCleanup(lambda: Deferred.fromCoroutine(self.closed(protocol, time)))
        return protocol, await server.peer()

    async def closed(self, protocol: RedisProtocol, time: VirtualTime) -> None:
        lost: Deferred[None] = Deferred()
        protocol.lost.addCallback(lambda _: lost.callback(None))
        protocol.end("the test is over")
        await lost
        self.assertEqual(time.clock.getDelayedCalls(), [])

    async def fails(self, asking: "Deferred[Any]") -> str:
        try:
            await asking
        except RedisError as problem:
            return str(problem)
        return self.fail("it has a reply")

    async def test_replies_are_those_of_their_commands_also_after_a_stop(self) -> None:
        protocol, peer = await self.connect()
        asked = [protocol.execute(*words) for words in (("GET", "a"), ("X",), ("SET", "é", 1.5))]
        asked[0].cancel()
        asked[0].addErrback(lambda _: None)
        await peer.has(60)
        commands = [[b"GET", b"a"], [b"X"], [b"SET", b"\xc3\xa9", b"1.5"]]
        self.assertEqual(peer.received, b"".join(map(_encoded, commands)))
        peer.send(b"$1\r\n1\r\n-NOSCRIPT x\r\n+OK\r\n")
        self.assertEqual(await asked[2], b"OK")
        self.assertIsInstance(self.failureResultOf(asked[1]).value, ReplyError)
        late = protocol.execute("GET", "a")
        peer.send(b"+1\r\n")
        self.time.advance(60)
        self.assertEqual(await late, b"1")

    async def test_late_reply_or_what_was_not_asked_for_ends_the_connection(self) -> None:
        """A byte now and then is no reply, but each whole one gives the next as long again."""
        protocol, peer = await self.connect()
        first, second, third = (protocol.execute("GET", name) for name in "abc")
        self.time.advance(4.9)
        peer.send(b"+1\r\n")
        await first
        self.time.advance(4.9)
        peer.send(b"+2\r\n+")
        await second
        self.time.advance(4.9)
        self.assertNoResult(third)
        self.time.advance(0.2)
        self.assertEqual(await self.fails(third), "no answer within 5 s")
        self.assertEqual(await self.fails(protocol.execute("GET", "d")), "no answer within 5 s")
        for data in (b"+OK\r\n", b"-ERR max number of clients reached\r\n", b"*1\r\n" * 9):
            protocol, peer = await self.connect()
            peer.send(data)
            await peer.is_lost()
            why = await self.fails(protocol.execute("PING"))
            self.assertRegex(why, "question|max number|levels")

    async def test_idle_connection_is_checked(self) -> None:
        """And ended if the check is refused, or not answered."""
        protocol, peer = await self.connect()
        protocol.check_each(10.0, "PEXPIRE", "x", 0)
        self.time.advance(10)
        await peer.has(20)
        peer.send(b"-READONLY x\r\n")
        await peer.is_lost()
        protocol, peer = await self.connect()
        protocol.check_each(10.0, "PING")
        self.time.advance(10)
        await peer.has(14)
        answer = protocol.execute("PING")
        peer.send(2 * b"+PONG\r\n")
        await answer
        self.time.advance(10)
        await peer.has(42)
        self.time.advance(5.1)
        await peer.is_lost()
        self.assertEqual(await self.fails(protocol.execute("GET", "a")), "no answer within 5 s")

    async def test_messages(self) -> None:
        """They come beside replies, and none comes in a pause, in which no reply is late."""
        messages: list[bytes] = []
        protocol, peer = await self.connect(messages.append)
        subscribing = protocol.execute("SUBSCRIBE", "c")
        peer.send(_encoded([b"subscribe", b"c", 1]) + 2 * _encoded([b"message", b"c", b"hi"]))
        self.assertEqual(await subscribing, [b"subscribe", b"c", 1])
        while len(messages) < 2:
            await deferLater(reactor, 0)
        asked = protocol.execute("PING")
        protocol.pause()
        peer.send(_encoded([b"message", b"c", b"late"]) + _encoded([b"pong", b""]))
        self.time.advance(60)
        for _ in range(9):
            await deferLater(reactor, 0)
        self.assertEqual(len(messages), 2)
        protocol.resume()
        self.assertEqual(await asked, [b"pong", b""])
        self.assertEqual(messages, [b"hi", b"hi", b"late"])
