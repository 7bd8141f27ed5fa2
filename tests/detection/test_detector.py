"""The promise of detection: priority, not timing; and the same bytes, the same route."""

from __future__ import annotations

import itertools
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from txmux.detection.detector import Detector
from txmux.interfaces import Peeked, Verdict
from txmux.rules.embedding import route
from txmux.rules.model import Alternative, Refusal, Route
from txmux.rules.reading.route import period

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class After:
    """Says what it says once it has seen this many bytes."""

    longest: int
    verdict: Verdict

    def __call__(self, peeked: Peeked) -> Verdict:
        return self.verdict if len(peeked) >= self.longest else Verdict.NEED_MORE


class Raises:
    """Breaks the contract."""

    longest = 1

    def __call__(self, peeked: Peeked) -> Verdict:
        raise ZeroDivisionError

    def learnt(self, peeked: Peeked) -> dict[str, str]:
        raise ZeroDivisionError


def asks(name: str, *alternatives: Alternative) -> Route:
    """Make a route."""
    return Route(name, alternatives, Refusal.CLOSE)


def yes(after: int, *, negated: bool = False) -> Alternative:
    """Match after this many bytes."""
    return Alternative(f"yes {after}", After(after, Verdict.MATCH), negated)


def no(after: int, *, negated: bool = False) -> Alternative:
    """Say no after this many bytes."""
    return Alternative(f"no {after}", After(after, Verdict.NO), negated)


def decide(routes: Iterable[Route], chunks: Iterable[bytes], limit: int = 1000) -> str | None:
    """Feed chunks until there is a decision, at the end of the stream at the latest."""
    detection = Detector(routes, limit).start_detection()
    data = b""
    for chunk in chunks:
        data += chunk
        decision = detection.feed(data)
        if decision is not None:
            break
    else:
        decision = detection.finish()
    return decision.route.name if decision.route else None


class PriorityTest(SynchronousTestCase):
    """The first route that is not a no decides."""

    def test_waits_for_an_earlier_route(self) -> None:
        """A match does not win while an earlier route is undecided."""
        detection = Detector([asks("a", yes(3)), asks("b", yes(1))]).start_detection()
        self.assertIsNone(detection.feed(b"x"))
        self.assertIsNone(detection.feed(b"xx"))
        decision = detection.feed(b"xxx")
        assert decision is not None
        assert decision.route is not None
        self.assertEqual(decision.route.name, "a")

    def test_falls_through(self) -> None:
        """When the earlier one says no, the later one's match counts."""
        self.assertEqual(decide([asks("a", no(3)), asks("b", yes(1))], [b"x", b"x", b"x"]), "b")

    def test_all_no(self) -> None:
        """When all have said no it is decided at once."""
        decision = Detector([asks("a", no(1)), asks("b", no(1))]).start_detection().feed(b"x")
        assert decision is not None
        self.assertIsNone(decision.route)

    def test_no_routes(self) -> None:
        """Without routes the first byte decides."""
        self.assertIsNotNone(Detector([]).start_detection().feed(b"x"))

    def test_finish(self) -> None:
        """At the end the undecided count as a no."""
        self.assertEqual(decide([asks("a", yes(3)), asks("b", yes(1))], [b"xx"]), "b")
        self.assertIsNone(decide([asks("a", yes(3))], [b"xx"]))
        self.assertIsNone(decide([asks("a", yes(3))], []))

    def test_limit(self) -> None:
        """No more than the limit is looked at, and there it is decided."""
        routes = [asks("a", yes(11)), asks("b", yes(1))]
        self.assertEqual(decide(routes, [b"x" * 10], limit=10), "b")
        self.assertEqual(decide(routes, [b"x" * 20], limit=10), "b")
        self.assertEqual(decide(routes, [b"x" * 11], limit=11), "a")

    def test_alternatives(self) -> None:
        """Any line that matches is enough; the route says no when all do."""
        self.assertEqual(decide([asks("a", no(1), yes(2)), asks("b", yes(1))], [b"xx"]), "a")
        self.assertEqual(decide([asks("a", yes(5), no(2)), asks("b", yes(1))], [b"xx"]), "b")
        self.assertEqual(decide([asks("a", no(1), no(2)), asks("b", yes(1))], [b"xx"]), "b")

    def test_negation(self) -> None:
        """`not` turns an answer round, but never takes being undecided for an answer."""
        self.assertEqual(decide([asks("a", no(2, negated=True))], [b"xx"]), "a")
        self.assertIsNone(decide([asks("a", yes(2, negated=True))], [b"xx"]))
        self.assertIsNone(decide([asks("a", no(3, negated=True))], [b"xx"]))

    def test_times(self) -> None:
        """Routes are not asked outside of their times; the time is that of the begin, whenever bytes come."""
        office = (period("mon-fri 08:00-18:00 UTC"), period("sat 10:00-12:00 UTC"))
        routes = [
            attrs.evolve(route("any", "close", name="office"), during=office),
            attrs.evolve(asks("slow", yes(3)), during=office[:1]),
            route("any", "close", name="else"),
        ]
        detector = Detector(routes)
        for moment, expected in (
            ("2026-11-20T08:00+00:00", "office"),
            ("2026-11-20T18:00+00:00", "else"),
            ("2026-11-21T11:00+00:00", "office"),
            ("2026-11-22T11:00+00:00", "else"),
        ):
            now = datetime.fromisoformat(moment).timestamp()
            decision = detector.start_detection(now=now).feed(b"x")
            assert decision is not None
            assert decision.route is not None
            self.assertEqual(decision.route.name, expected)
        outside = detector.start_detection().feed(b"x")
        assert outside is not None
        self.assertIs(outside.route, routes[2])

    def test_networks(self) -> None:
        """Routes that do not serve the client's network are not asked."""
        routes = [
            route("any", "close", name="inside", from_=["10.0.0.0/8"], not_from=["10.1.0.0/16"]),
            route("any", "close", name="outside", not_from=["10.0.0.0/8"]),
        ]
        detector = Detector(routes)
        for address, expected in [
            ("10.2.0.1", "inside"),
            ("192.0.2.1", "outside"),
            ("10.1.0.1", None),
        ]:
            decision = detector.start_detection(ip_address(address)).feed(b"x")
            assert decision is not None
            self.assertEqual(decision.route and decision.route.name, expected)
        decision = detector.start_detection(None).feed(b"x")
        assert decision is not None
        assert decision.route is not None
        self.assertEqual(decision.route.name, "outside")


class DryRunTest(SynchronousTestCase):
    """Routes that only tell what they would have taken."""

    def test_decides_nothing(self) -> None:
        """The next route wins, without waiting for one that runs dry, and the facts tell of it."""
        dry = attrs.evolve(route("payload text=GET", "close", name="dry"), dry_run=True)
        slow = attrs.evolve(route("payload text=GET!", "close", name="slow"), dry_run=True)
        detector = Detector([slow, dry, route("payload text=GE", "close", name="next")])
        for data, expected in [
            (b"GE", {}),
            (b"GET", {"dry_run": "dry"}),
            (b"GET!", {"dry_run": "slow"}),
        ]:
            decision = detector.start_detection().feed(data)
            assert decision is not None
            assert decision.route is not None
            self.assertEqual((decision.route.name, decision.facts), ("next", expected))
        self.assertEqual(detector.would_have_taken, {"dry": 1, "slow": 1})

    def test_comes_too_late(self) -> None:
        """A route that runs dry behind the winner would have taken nothing; with no winner it would."""
        dry = attrs.evolve(route("any", "close", name="dry"), dry_run=True)
        decision = Detector([route("ssh", "close"), dry]).start_detection().feed(b"SSH-")
        assert decision is not None
        self.assertNotIn("dry_run", decision.facts)
        decision = Detector([route("ssh", "close"), dry]).start_detection().feed(b"x")
        assert decision is not None
        self.assertEqual((decision.route, decision.facts), (None, {"dry_run": "dry"}))


class RaisingTest(SynchronousTestCase):
    """A matcher that raises."""

    def test_is_a_no(self) -> None:
        """It is a no, negated or not, and the others are asked as ever."""
        for negated in (False, True):
            broken = Alternative(f"broken {negated}", Raises(), negated)
            self.assertEqual(decide([asks("a", broken), asks("b", yes(1))], [b"x"]), "b")
            self.assertEqual(decide([asks("a", broken, yes(2))], [b"x", b"x"]), "a")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_is_logged_once(self) -> None:
        """Its traceback is logged once, however many clients come."""
        detector = Detector([asks("a", Alternative("broken", Raises()))])
        for _ in range(3):
            detector.start_detection().feed(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class FactsTest(SynchronousTestCase):
    """What is learnt on the way."""

    def test_of_the_winner(self) -> None:
        """The winner tells what it saw."""
        decision = Detector([route("ssh", "close")]).start_detection().feed(b"SSH-2.0-x\r\n")
        assert decision is not None
        self.assertEqual(decision.facts, {"software": "x"})

    def test_up_to_the_winner(self) -> None:
        """So do the routes before it, and none behind it."""
        data = b"GET / HTTP/1.1\r\nHost: c\r\n\r\n"
        for matches, reported in ((("http host=a", "any"), True), (("any", "http host=a"), False)):
            decision = (
                Detector([route(match, "close") for match in matches]).start_detection().feed(data)
            )
            assert decision is not None
            self.assertEqual(decision.facts.get("host"), "c" if reported else None)

    def test_of_nobody(self) -> None:
        """Without a winner each kind of predicate is asked once."""
        routes = [route(f"http host={name}", "close") for name in ("a", "b")]
        decision = Detector(routes).start_detection().feed(b"GET / HTTP/1.1\r\nHost: c\r\n\r\n")
        assert decision is not None
        self.assertEqual(decision.facts["host"], "c")


SAMPLES = [
    b"SSH-2.0-OpenSSH_9.2p1\r\n",
    b"GET /api/x HTTP/1.1\r\nHost: www.example.com\r\n\r\nbody",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS rtsp://x RTSP/1.0\r\n\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    b"PING\r\n",
    b"GET key\r\n",
    bytes.fromhex("16030100050100000100"),
    b"\x00\x01\x02\x03",
]
LINES = [
    "ssh",
    "ssh software=OpenSSH*",
    "not ssh",
    "http",
    "http host=*.example.com path=/api/*",
    "not http method=GET",
    "tls",
    "tls sni=*.example.com",
    "redis",
    "payload offset=2 text=H-",
    "payload hex=0001 mask=00ff",
    r"regex pattern=[A-Z]+\ (?:foo|/api)",
    "any",
]


class SegmentationTest(SynchronousTestCase):
    """The same bytes lead to the same route, however the network cut them."""

    @settings(max_examples=scaled(300), deadline=None)
    @given(
        chosen=st.lists(
            st.lists(st.sampled_from(LINES), min_size=1, max_size=3), min_size=1, max_size=5
        ),
        data=st.one_of(st.sampled_from(SAMPLES), st.binary(min_size=1, max_size=40)),
        tail=st.binary(max_size=20),
        cuts=st.sets(st.integers(1, 80)),
        limit=st.integers(1, 100),
    )
    def test_rules(
        self, chosen: list[list[str]], data: bytes, tail: bytes, cuts: set[int], limit: int
    ) -> None:
        """For whole sets of rules: all at once, in any pieces, and byte by byte."""
        routes = [route(lines, "close", name=str(n)) for n, lines in enumerate(chosen)]
        data += tail
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
        whole = decide(routes, [data], limit)
        self.assertEqual(decide(routes, pieces, limit), whole)
        self.assertEqual(decide(routes, (bytes([byte]) for byte in data), limit), whole)


class PeekedTest(SynchronousTestCase):
    """What the predicates see."""

    def test_is_bytes(self) -> None:
        """It has what is needed of bytes."""
        peeked = Peeked(b"abc")
        self.assertEqual((bytes(peeked), len(peeked)), (b"abc", 3))
        self.assertTrue(peeked.startswith(b"ab"))
        self.assertEqual(repr(peeked), "<Peeked 3 bytes>")

    def test_parses_once(self) -> None:
        """A parser runs once for a prefix, and is given its last result for the next."""
        calls: list[tuple[bytes, str | None]] = []

        def parser(data: bytes, earlier: str | None) -> str:
            calls.append((data, earlier))
            return data.decode()

        first = Peeked(b"a")
        self.assertEqual([first.parsed(parser), first.parsed(parser)], ["a", "a"])
        Peeked(b"abc", Peeked(b"ab", first)).parsed(parser)
        self.assertEqual(calls, [(b"a", None), (b"abc", "a")])
