from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire import http2_builder as h2
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.http import http
from txmux.testing import steps_in
from txmux.wire import http_head
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.http2_opening import PREFACE, parse_opening
from txmux.wire.http_head import HEAD_LIMIT, Request, Stage, parse_request, parse_upgrade

LINE = b"GET /a HTTP/1.1\r\n"
HELLO = b"\x01\x00\xf0\x00\x03\x03" + bytes(32) + b"\x00\xe0\x00"
MOST_STEPS, MOST_STEPS_OF_SHORT_RECORDS = 14, 25
"""Lines and calls that a byte may take. To read on takes more than twenty, or more than ninety."""


def in_records(message: bytes, size: int) -> bytes:
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + len(one).to_bytes(2, "big") + one for one in pieces)


def told(answer: object) -> dict[str, object]:
    return {name: value for name, value in vars(answer).items() if not name.startswith("_")}


def seen(request: Request) -> object:
    begun = request.host_begun if request.stage is Stage.FIELDS else ""
    return (request.stage, request.method, request.target, request.version, request.host, begun)


class CostTests(SynchronousTestCase):
    def check(
        self, parse: Callable[[bytes, Any], Any], start: bytes, rest: bytes, most: int = MOST_STEPS
    ) -> None:
        """See that what comes byte by byte after a start takes few steps, and is still read in the end."""
        known = parse(start, None)

        def send() -> None:
            nonlocal known
            for data in parts:
                known = parse(data, known)

        parts = [start + rest[:length] for length in range(1, len(rest) + 1)]
        self.assertLess(steps_in(send) / len(rest), most)
        self.assertEqual(told(known), told(parse(start + rest, None)))

    def test_parsers(self) -> None:
        """HTTP: a long target; a long field that may be the one, or not. HTTP/2: a long frame. TLS: long records; those of one byte are read once each."""
        self.check(parse_request, b"GET /", b"a" * 3000)
        self.check(parse_request, LINE + b"Cookie: ", b"a" * 3000)
        self.check(parse_request, LINE + b"Host: www." + b"a" * 260, b"a" * 3000)
        self.check(parse_upgrade, LINE + b"Upgrade: ", b"a" * 3000)
        self.check(parse_opening, PREFACE + h2.SETTINGS, h2.frame(0x20, b"a" * 3000))
        self.check(parse_client_hello, b"\x16\x03\x01\x10\x00" + HELLO, b"a" * 3000)
        start = in_records(HELLO, 1)
        rest = in_records(b"a" * 500, 1)
        self.check(parse_client_hello, start, rest, MOST_STEPS_OF_SHORT_RECORDS)


class MatcherTests(SynchronousTestCase):
    """What is asked for is not compared again with what has not changed."""

    def check(self, start: bytes, rest: bytes, **options: str) -> None:
        """See that what comes byte by byte after a start takes few steps, and decides nothing."""
        predicate = http.predicate(options)
        peeked = Peeked(start)

        def send() -> None:
            nonlocal peeked
            for data in parts:
                peeked = Peeked(data, peeked)
                verdicts.add(predicate(peeked))

        verdicts = {predicate(peeked)}
        parts = [start + rest[:length] for length in range(1, len(rest) + 1)]
        self.assertLess(steps_in(send) / len(rest), 80)
        self.assertEqual(verdicts, {Verdict.NEED_MORE})

    def test_http(self) -> None:
        """Protocols to change to, a thousand names, and a path behind which a query has begun."""
        self.check(LINE + b"Upgrade: " + b"a," * 15 + b"\r\nX: ", b"y" * 1000, upgrade="b*,c*,d")
        names = ",".join(f"w{number}.example.com" for number in range(1000))
        self.check(LINE + b"Host: w999 " + b" " * 260, b"y" * 1000, host=names)
        self.check(b"GET /api/b?", b"y" * 1000, path="/x*,/y*,/*b")


_PARTS = (
    *(b"X: " + b"y" * 700 + b"\r\n", b"\r\n", b"a:b\n", b"h", b"Host:", b"host:" + b"." * 255),
    *(b"Host: b.example\r\n", b"Upgrade: x/1, y\r\n", b"Upgrade: ", b"z" * 255, b" ", b"w" * 256),
)


class AnswerTests(SynchronousTestCase):
    """They answer as if they had begun again."""

    @settings(max_examples=scaled(60), deadline=None)
    @given(
        st.lists(st.sampled_from(_PARTS), max_size=8),
        st.integers(1, 300),
        st.sampled_from([LINE, b"GET /", b"CONNECT ", b"GET http://c.example/?"]),
    )
    def test_http(self, parts: list[bytes], step: int, start: bytes) -> None:
        """Heads in pieces of any size."""
        data = start + b"".join(parts)
        request, upgrade = None, None
        for end in (*range(len(start), len(data), step), len(data)):
            request = parse_request(data[:end], request)
            afresh = parse_request(data[:end], None)
            self.assertEqual(seen(request), seen(afresh))
            self.assertEqual(request.path_begun(data[:end], 9), afresh.path_begun(data[:end], 9))
            upgrade = parse_upgrade(data[:end], upgrade)
            self.assertEqual(upgrade.protocols, parse_upgrade(data[:end], None).protocols)

    def test_the_last_byte_of_a_head_or_of_its_first_line_is_not_waited_through(self) -> None:
        """Nor is it where a field has just begun."""
        for length in range(5):
            data = (LINE + b"a: ").ljust(HEAD_LIMIT - length - 1, b"a") + b"\n" + b"h" * length
            known = None
            for end in range(HEAD_LIMIT - 9, HEAD_LIMIT + 1):
                known = parse_request(data[:end], known)
                self.assertEqual(known.stage, parse_request(data[:end], None).stage)
            self.assertIs(known and known.stage, Stage.DONE)
        for start, limit, last in (
            (b"GET /", http_head.LINE_LIMIT, Stage.REFUSED), (LINE + b"a", HEAD_LIMIT, Stage.DONE),
        ):  # fmt: skip
            data = start.ljust(limit, b"a")
            for before in (1, 2, 255, 256, 257):
                known = parse_request(data[:-before], None)
                self.assertNotEqual(known.stage, last)
                self.assertEqual(parse_request(data, known).stage, last)
                known = parse_request(data[: 1 - before] if before > 1 else data, known)
                self.assertEqual(known.stage is last, before == 1)
        data = (LINE + b"a").ljust(HEAD_LIMIT, b"a")
        self.assertTrue(parse_upgrade(data, parse_upgrade(data[:-1], None)).done)
        # What was waited through in one continuation of a stream is not taken to be in another.
        begun = parse_request(LINE + b"a: ", None)
        waited = parse_request(LINE + b"a: " + b"b" * 100, begun)
        other = LINE + b"a: \r\nHost: b.example\r\n" + b"b" * 100
        self.assertEqual(parse_request(other, begun).host, "b.example")
        self.assertIsNone(waited.host)

    def test_not_asked_for_a_while(self) -> None:
        """A parser goes on with its own last result, even if others alone were run meanwhile, and is not asked again about the same bytes, though it found nothing."""
        asked: list[bytes] = []

        def nothing(data: bytes, _: None) -> None:
            asked.append(data)

        def one(data: bytes, earlier: bytes | None) -> bytes:
            return (earlier or b"") + data[-1:]

        def other(data: bytes, earlier: int | None) -> int:
            return len(data) + (earlier or 0)

        first = Peeked(b"a")
        for _ in range(2):
            first.parsed(nothing)
        self.assertEqual(asked, [b"a"])
        second = Peeked(b"ab", first)
        self.assertEqual((first.parsed(one), second.parsed(other)), (b"a", 2))
        fourth = Peeked(b"abcd", Peeked(b"abc", second))
        self.assertEqual((fourth.parsed(one), fourth.parsed(other)), (b"ad", 6))
        self.assertEqual(Peeked(b"abx", second).parsed(one), b"ax")
