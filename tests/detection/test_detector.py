"""The promise of detection: priority, not timing; and the same bytes, the same route."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from unittest.mock import Mock

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from txmux.detection.detector import Decision, Detector, cancels_apart
from txmux.interfaces import Exchange, Peeked, Verdict
from txmux.rules.embedding import route
from txmux.rules.model import Alternative, Clients, NetworkSet, Refusal, Route
from txmux.rules.reading.route import period


@attrs.frozen
class After:
    longest: int
    verdict: Any
    learnt: Callable[[Peeked], dict[str, str]] = lambda _: {}

    def __call__(self, peeked: Peeked) -> Any:
        return self.verdict if len(peeked) >= self.longest else Verdict.NEED_MORE


@attrs.frozen
class Raises:
    error: type[BaseException] = ZeroDivisionError
    longest: int = 1

    def __call__(self, peeked: Peeked) -> Verdict:
        raise self.error

    def learnt(self, peeked: Peeked) -> dict[str, str]:
        raise self.error


def asks(name: str, *alternatives: Alternative) -> Route:
    return Route(name, alternatives, Refusal.CLOSE)


def yes(after: int, *, negated: bool = False) -> Alternative:
    return Alternative(f"yes {after}", After(after, Verdict.MATCH), negated)


def no(after: int, *, negated: bool = False) -> Alternative:
    return Alternative(f"no {after}", After(after, Verdict.NO), negated)


def name_of(decision: Decision[Route] | None) -> str | None:
    assert decision is not None
    return decision.route.name if decision.route else None


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
    return name_of(decision)


def decided(routes: Iterable[Route], data: bytes) -> Decision[Route]:
    decision = Detector(routes).start_detection().feed(data)
    assert decision is not None
    return decision


SAMPLES = [
    b"SSH-2.0-OpenSSH_9.2p1\r\n", b"GET /api/x HTTP/1.1\r\nHost: www.example.com\r\n\r\nbody",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"OPTIONS rtsp://x RTSP/1.0\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"PING\r\n",
    b"GET key\r\n", bytes.fromhex("16030100050100000100"), b"\x00\x01\x02\x03",
]  # fmt: skip
LINES = [
    "ssh", "ssh software=OpenSSH*", "not ssh", "http", "http host=*.example.com path=/api/*",
    "not http method=GET", "tls", "tls sni=*.example.com", "redis", "payload offset=2 text=H-",
    "payload hex=0001 mask=00ff", r"regex pattern=[A-Z]+\ (?:foo|/api)", "any",
]  # fmt: skip
_NAMING = {name: lambda _, name=name: {"host": name, name: "seen"} for name in "ab"}


class DetectorTest(SynchronousTestCase):
    def test_waits_for_an_earlier_route_but_not_where_all_say_no(self) -> None:
        detection = Detector([asks("a", yes(3)), asks("b", yes(1))]).start_detection()
        self.assertIsNone(detection.feed(b"x"))
        self.assertIsNone(detection.feed(b"xx"))
        self.assertEqual(name_of(detection.feed(b"xxx")), "a")
        for routes in ((), [asks("a", no(1)), asks("b", no(1))]):
            self.assertIsNone(decided(routes, b"x").route)

    def test_who_wins(self) -> None:
        """One match is enough, and a no needs all; undecided is a no at the end or the limit, and negated no answer."""
        b, two = asks("b", yes(1)), [b"xx"]
        for lines, more, chunks, limit, expected in (
            ([no(3)], [b], [b"x"] * 3, 1000, "b"), ([yes(3)], [b], two, 1000, "b"), ([yes(3)], [], two, 1000, None),
            ([yes(3)], [], [], 1000, None), ([yes(11)], [b], [b"x" * 10], 10, "b"),
            ([yes(11)], [b], [b"x" * 20], 10, "b"), ([yes(11)], [b], [b"x" * 11], 11, "a"),
            ([no(1), yes(2)], [b], two, 1000, "a"), ([yes(5), no(2)], [b], two, 1000, "b"),
            ([no(1), no(2)], [b], two, 1000, "b"), ([no(2, negated=True)], [], two, 1000, "a"),
            ([yes(2, negated=True)], [], two, 1000, None), ([no(3, negated=True)], [], two, 1000, None),
        ):  # fmt: skip
            found = decide([asks("a", *lines), *more], chunks, limit)
            self.assertEqual((lines, found), (lines, expected))

    def test_routes_serve_at_their_times_since_the_begin(self) -> None:
        office = (period("mon-fri 08:00-18:00 UTC"), period("sat 10:00-12:00 UTC"))
        routes = [
            attrs.evolve(route("any", "close", name="office"), during=office),
            attrs.evolve(asks("slow", yes(3)), during=office[:1]),
            route("any", "close", name="else"),
        ]
        detector = Detector(routes)
        for moment, expected, needs_more in (
            ("2026-11-20T08:00+00:00", "office", True), ("2026-11-20T18:00+00:00", "else", False),
            ("2026-11-21T11:00+00:00", "office", False), ("2026-11-22T11:00+00:00", "else", False),
        ):  # fmt: skip
            now = datetime.fromisoformat(moment).timestamp()
            detection = detector.start_detection(now=now)
            self.assertEqual(name_of(detection.feed(b"x")), expected)
            self.assertEqual(detection.needs_more(routes[1:2]), needs_more)  # by its own times
        self.assertEqual(name_of(detector.start_detection().feed(b"x")), "else")

    def test_routes_serve_their_networks(self) -> None:
        routes = [
            route("any", "close", name="inside", from_=["10.0.0.0/8"], not_from=["10.1.0.0/16"]),
            route("any", "close", name="outside", not_from=["10.0.0.0/8"]),
        ]
        detector = Detector(routes)
        for address, expected in [
            ("10.2.0.1", "inside"), ("192.0.2.1", "outside"), ("10.1.0.1", None),
        ]:  # fmt: skip
            decision = detector.start_detection(ip_address(address)).feed(b"x")
            self.assertEqual(name_of(decision), expected)
        self.assertEqual(name_of(detector.start_detection(None).feed(b"x")), "outside")

    def test_names_below_a_domain(self) -> None:
        domains = "b.test", "a.b.test", "else.test", *(f"h{number}.test" for number in range(20))
        routes = [route(f"http host=*.{one}", "close", name=one) for one in domains]
        for name, expected in (
            ("x.b.test", "b.test"), ("x.y.b.test", "b.test"), ("x.else.test", "else.test"),
            ("xb.test", None), ("b.test", None), ("test", None),
        ):  # fmt: skip
            data = f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()
            self.assertEqual(name_of(decided(routes, data)), expected, name)

    def test_dry_run_decides_nothing_and_is_in_the_facts(self) -> None:
        """So a second hello may say something else to it."""
        dry = attrs.evolve(route("payload text=GET", "close", name="dry"), dry_run=True)
        slow = attrs.evolve(route("payload text=GET!", "close", name="slow"), dry_run=True)
        detector = Detector([slow, dry, route("payload text=GE", "close", name="next")])
        for data, expected in [
            (b"GE", {}), (b"GET", {"dry_run": "dry"}), (b"GET!", {"dry_run": "slow"}),
        ]:  # fmt: skip
            decision = detector.start_detection().feed(data)
            assert decision is not None
            self.assertEqual((name_of(decision), decision.facts), ("next", expected))
        self.assertEqual(detector.would_have_taken, {"dry": 1, "slow": 1})
        dry = attrs.evolve(route("any", "close", name="dry"), dry_run=True)
        routes = [route("ssh", "close"), dry]
        self.assertNotIn("dry_run", decided(routes, b"SSH-").facts)
        self.assertEqual(decided(routes, b"x"), Decision(None, {"dry_run": "dry"}))
        self.assertIsNone(Detector(routes[::-1]).start_detection().decide_before_bytes())
        routes = [route(text, "close", name=text) for text in ("tls", "ssh", "tls sni=a.test")]
        routes[0] = attrs.evolve(routes[0], dry_run=True)
        self.assertEqual(list(Detector(routes).hello_readers), [routes[2]])

    def test_matcher_that_raises_or_gives_no_verdict_is_a_no_and_logged_once(self) -> None:
        bad: Sequence[Any] = (Raises(), Raises(SystemExit), After(1, None), After(1, "match"))
        for negated, predicate in itertools.product((False, True), bad):
            broken = Alternative(f"broken {negated} {predicate}", predicate, negated)
            self.assertEqual(decide([asks("a", broken), asks("b", yes(1))], [b"x"]), "b")
            self.assertEqual(decide([asks("a", broken, yes(2))], [b"x", b"x"]), "a")
            self.assertIsNone(Detector([asks("a", broken)]).decide_at_once(Peeked(b"x")))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, SystemExit, TypeError)), 16)
        detector = Detector([asks("a", Alternative("broken", Raises()))])
        for _ in range(3):
            detector.start_detection().feed(b"x")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_facts_up_to_the_winner_or_of_all(self) -> None:
        data = b"GET / HTTP/1.1\r\nHost: c\r\n\r\n"
        for matches, host in (
            (("http host=a", "any"), "c"), (("any", "http host=a"), None), (("http host=a", "http host=b"), "c"),
        ):  # fmt: skip
            decision = decided([route(match, "close") for match in matches], data)
            self.assertEqual(decision.facts.get("host"), host, matches)
        decision = decided([route("ssh", "close")], b"SSH-2.0-x\r\n")
        self.assertEqual(decision.facts, {"software": "x"})

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
    def test_all_at_once_in_pieces_and_byte_by_byte(
        self, chosen: list[list[str]], data: bytes, tail: bytes, cuts: set[int], limit: int
    ) -> None:
        """The same bytes lead to the same route, however the network cut them."""
        routes = [route(lines, "close", name=str(n)) for n, lines in enumerate(chosen)]
        data += tail
        edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
        whole = decide(routes, [data], limit)
        self.assertEqual(decide(routes, pieces, limit), whole)
        self.assertEqual(decide(routes, (bytes([byte]) for byte in data), limit), whole)

    def test_peeked_bytes_are_parsed_once(self) -> None:
        peeked = Peeked(b"abc")
        self.assertEqual((bytes(peeked), len(peeked)), (b"abc", 3))
        self.assertTrue(peeked.startswith(b"ab"))
        self.assertEqual(repr(peeked), "<Peeked 3 bytes>")
        calls: list[tuple[bytes, str | None]] = []

        def parser(data: bytes, earlier: str | None) -> str:
            calls.append((data, earlier))
            return data.decode()

        first = Peeked(b"a")
        self.assertEqual([first.parsed(parser), first.parsed(parser)], ["a", "a"])
        Peeked(b"abc", Peeked(b"ab", first)).parsed(parser)
        self.assertEqual(calls, [(b"a", None), (b"abc", "a")])

    def test_what_the_route_was_decided_by_counts(self) -> None:
        """Another matcher, of a route that has not won, may read another name in the same bytes."""

        def named(name: str, fact: str, verdict: Verdict) -> Route:
            return asks(name, Alternative(f"{name} {fact}", After(1, verdict, _NAMING[fact])))

        lost = [named("1", "a", Verdict.NO), named("2", "b", Verdict.NO)]
        for fact in "ab":
            won = named("3", fact, Verdict.MATCH)
            at_once = Detector([*lost, won]).decide_at_once(Peeked(b"x"))
            for decision in (at_once, decided([*lost, won], b"x")):
                assert decision is not None
                self.assertEqual(decision.facts, {"host": fact, "a": "seen", "b": "seen"})

    def test_who_is_answered(self) -> None:
        x, y = leads("x", Named(b"x")), leads("y", Named(b"y"))
        early, next_one = leads("early", After(2, MATCH)), leads("next", After(4, MATCH))
        late = leads("late", After(5, NO))
        dry = leads("x", Named(b"x"), dry_run=True)
        elsewhere = leads("x", Named(b"x"), clients=Clients(NetworkSet([])))
        both, last = [(5, "no"), (5, "yes")], leads("y", After(5, MATCH))
        for routes, pieces, expected in (
            # Each request is answered when it is there, also that of a client that does not wait.
            ([x, y], (b"a", b"?", b"b?", b"y"), ("y", [(2, "no"), (4, "yes")])),
            ([x], (b"a?b?x",), ("x", both)), ([x], (b"a?b?z",), (None, both)),
            # Two requests at once, of which one is there, are not answered.
            ([leads("x", Named(b"z", exchanges=lambda _: (FIRST, SECOND))), x], (b"a?", b"b?", b"x"), ("x", [(2, "no"), (4, "yes")])),
            # A match before the answer needs none, and one between two requests takes one.
            ([early, x], (b"a?", b"b?x"), ("early", [])), ([early, x], (b"a?b?x",), ("early", [])),
            ([x, next_one], (b"a?b?y",), ("next", both)), ([next_one, x], (b"a?b?x",), ("next", [(5, "no")])),
            # An earlier undecided route keeps no client waiting, and behind a match there is no answer.
            ([late, x], (b"a?", b"b?", b"x"), ("x", [(2, "no"), (4, "yes")])),
            ([leads("l", After(3, NO)), leads("sure", After(1, MATCH)), x], (b"a?", b"b"), ("sure", [])),
            # Dry runs and routes of other clients answer nobody.
            ([dry, last], (b"a?b?x",), ("y", [])), ([elsewhere, last], (b"a?b?x",), ("y", [])),
            ([late, dry], (b"a?", b"b?x"), (None, [])), ([late, elsewhere], (b"a?", b"b?x"), (None, [])),
            ([late, dry, elsewhere, leads("y", Named(b"x"))], (b"a?b?x",), ("y", both)),
        ):  # fmt: skip
            self.assertEqual((pieces, run(routes, *pieces)), (pieces, expected))

    def test_raising_finder_has_none_answered_and_who_cancels_apart(self) -> None:
        find = Mock(side_effect=ZeroDivisionError)
        routes = [leads("x", Named(b"x", exchanges=find)), leads("y", After(5, MATCH))]
        self.assertEqual(run(routes, b"a?", b"b?x"), ("x", []))
        for negated in (False, True):
            its = Alternative("x", Mock(cancels_apart=True), negated)
            self.assertEqual(cancels_apart(Route("x", (its,), Refusal.CLOSE)), not negated)

    @given(
        st.lists(st.integers(1, 4), max_size=4), st.sampled_from([b"x", b"y", b"z"]), st.booleans()
    )
    def test_cuts(self, cuts: list[int], name: bytes, early: bool) -> None:  # noqa: FBT001
        data = REQUESTS + name
        routes = [leads("x", Named(b"x")), leads("y", Named(b"y")), leads("any", After(3, MATCH))]
        routes = [routes[2], *routes[:2]] if early else routes
        pieces = [data[a:b] for a, b in itertools.pairwise([0, *sorted(set(cuts)), len(data)])]
        route, answers = run(routes, *pieces)
        expected, whole = run(routes, data)
        self.assertEqual((route, [text for _, text in answers]), (expected, [t for _, t in whole]))


MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

FIRST, SECOND = Exchange(b"a?", b"no", repeat=False), Exchange(b"b?", b"yes", repeat=True)
REQUESTS = b"a?b?"


def _requests(peeked: Peeked) -> Sequence[Exchange]:
    found: tuple[Exchange, ...] = ()
    for exchange in (FIRST, SECOND):
        if peeked.startswith(b"".join(e.request for e in found) + exchange.request):
            found += (exchange,)
        else:
            break
    return found


@attrs.frozen
class Named:
    name: bytes
    longest: int = 5
    exchanges: Callable[[Peeked], Sequence[Exchange]] = _requests

    def __call__(self, peeked: Peeked) -> Verdict:
        if not (peeked.startswith(REQUESTS) or REQUESTS.startswith(peeked.data)):
            return NO
        if len(peeked) < self.longest:
            return NEED_MORE
        return MATCH if peeked.data[4:5] == self.name else NO


def leads(name: str, predicate: Any, **settings: Any) -> Route:
    return Route(name, (Alternative(name, predicate),), Refusal.CLOSE, **settings)


def run(routes: Sequence[Route], *pieces: bytes) -> tuple[str | None, list[tuple[int, str]]]:
    """Send pieces; gives the route, and after how many bytes which request was first known to be answered."""
    detection = Detector(routes).start_detection()
    data = b""
    answers: list[tuple[int, str]] = []
    for piece in pieces:
        data += piece
        decision = detection.feed(data)
        known = len(answers)
        answers += [(len(data), e.answer.decode()) for e in detection.answered[known:]]
        if decision is not None:
            assert decision.answered == detection.answered
            break
    else:
        decision = detection.finish()
        assert decision.answered == detection.answered
    return (decision.route.name if decision.route else None), answers
