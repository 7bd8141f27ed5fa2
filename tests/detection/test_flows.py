"""The same promise for datagrams: priority, not timing; and the same datagrams, the same route."""

from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_detector import Raises, name_of
from txmux.detection.detector import Decision, Detector
from txmux.detection.explain import explain
from txmux.detection.flows import FlowDetection, is_limit_reached
from txmux.interfaces import MOST_DATAGRAMS, Datagrams, NameKey, Transport, Verdict
from txmux.rules.embedding import route
from txmux.rules.model import Alternative, Refusal, Route
from txmux.rules.model.networks import Clients, NetworkSet


@attrs.frozen
class Nth:
    longest: int
    byte: int = ord("x")

    def __call__(self, flow: Datagrams, /) -> Verdict:
        if len(flow.datagrams) < self.longest:
            return Verdict.NEED_MORE
        wanted = flow.datagrams[self.longest - 1].startswith(bytes([self.byte]))
        return Verdict.MATCH if wanted else Verdict.NO

    def learnt(self, flow: Datagrams, /) -> dict[str, str]:
        return {"datagrams": str(len(flow.datagrams))}


@attrs.frozen
class Named:
    name: str
    longest: int = 1

    @property
    def key(self) -> NameKey:
        return NameKey(_name, frozenset({self.name}))

    def __call__(self, flow: Datagrams, /) -> Verdict:
        return Verdict.MATCH if _name(flow) == self.name else Verdict.NO


class Guarding(Nth):
    guard = bytes


@attrs.frozen
class Dropping:
    """Matches the first datagram that does not begin with a minus, with which servers drop one."""

    longest: int = MOST_DATAGRAMS

    @property
    def drops(self) -> Callable[[Datagrams], bool]:
        return _is_dropped

    def __call__(self, flow: Datagrams, /) -> Verdict:
        if all(one.startswith(b"-") for one in flow.datagrams):
            return Verdict.NEED_MORE if len(flow.datagrams) < MOST_DATAGRAMS else Verdict.NO
        return Verdict.MATCH if flow.datagrams[-1] == b"yes" else Verdict.NO


def _is_dropped(flow: Datagrams) -> bool:
    if flow.datagrams[-1] == b"-raise":
        raise ValueError
    return flow.datagrams[-1].startswith(b"-")


def _name(flow: Datagrams) -> str:
    return flow.data.decode("latin-1")


def asks(name: str, *predicates: object, **settings: object) -> Route:
    lines = tuple(Alternative(f"{name} {one}", one) for one in predicates)  # type: ignore[arg-type]
    return Route(name, lines, Refusal.CLOSE, **settings)  # type: ignore[arg-type]


def over_udp(*texts: str) -> list[Route]:
    routes = (route(text, "close", name=text).for_transport(Transport.UDP) for text in texts)
    return [one for one in routes if one is not None]


class FlowTests(SynchronousTestCase):
    def test_when_it_is_decided(self) -> None:
        """By the earlier route, and with the fourth datagram or enough bytes, which are seen whole, or at the end, at the latest."""
        second, ninth, first = asks("a", Nth(2)), asks("a", Nth(9)), asks("b", Nth(1))
        for routes, limit, undecided, last, expected in (
            ([second, first], 1000, [b"x"], [b"x", b"x"], "a"), ([second, first], 1000, [b"x"], [b"x", b"y"], "b"),
            ([second, first], 1000, [b"x"], [], "b"), ([first], 1000, [], [], None),
            ([ninth, first], 1000, [b"x"] * 3, [b"x"] * 4, "b"),
            ([ninth, first], 10, [b"x" * 9], [b"x" * 9, b"x"], "b"),
            ([asks("a", Named("x" * 30))], 10, [], [b"x" * 30], "a"),
            ([asks("a", Nth(3))], 1000, [], [b"y", b"", b"x"], "a"), (over_udp("sip", "any"), 1000, [], [b""], "any"),
        ):  # fmt: skip
            detection = FlowDetection(Detector(routes, limit))
            if undecided:
                self.assertIsNone(detection.feed(undecided))
            decision = detection.feed(last) if last else detection.finish()
            self.assertEqual((last, name_of(decision)), (last, expected))
        self.assertTrue(is_limit_reached([b"x"] * MOST_DATAGRAMS, 99))

    def test_keep_alive_decides_nothing_unless_it_is_taken(self) -> None:
        register = b"REGISTER sip:example.com SIP/2.0\r\n"
        sip, dns = over_udp("sip", "dns")
        for noise in (b"\r\n\r\n", b"\r\n", b"\0\0\0\0", b""):
            detection = FlowDetection(Detector([dns, sip]))
            self.assertIsNone(detection.feed([noise]))
            self.assertEqual(detection.left, ())
            self.assertIsNone(detection.feed([noise, noise]))
            decision = detection.feed([noise, noise, register])
            self.assertIs(decision and decision.route, sip)
            decision = FlowDetection(Detector([dns, sip])).feed([*[noise] * 9, register])
            self.assertIs(decision and decision.route, sip)
            self.assertIsNone(FlowDetection(Detector([dns, sip])).finish().route)
        [takes] = over_udp("payload hex=00000000")
        self.assertIs(FlowDetection(Detector([takes])).feed([bytes(4)]).route, takes)  # type: ignore[union-attr]
        for data in (b"\r\nx", b" ", b"\xff"):
            self.assertEqual(FlowDetection(Detector([takes])).feed([data]), Decision(None, {}))
        others = asks("a", Nth(1), clients=Clients(NetworkSet([ip_network("10.0.0.0/8")])))
        nobodys = FlowDetection(Detector([others]), ip_address("192.0.2.1"))
        self.assertIsNotNone(nobodys.feed([b"\r\n"]))

    def test_what_servers_drop_decides_nothing(self) -> None:
        routes = [asks("dropping", Dropping()), asks("second", Nth(2, ord("-")))]
        detection = FlowDetection(Detector(routes))
        for _ in range(9):
            self.assertIsNone(detection.feed([*detection.left, b"-", b"-"]))
            self.assertEqual(detection.left, ())
        self.assertIsNone(detection.finish().route)
        self.assertEqual(name_of(detection.feed([b"-", b"yes"])), "dropping")
        self.assertEqual(detection.left, (b"yes",))
        other = FlowDetection(Detector(routes))
        self.assertIsNone(other.feed([b"-", b"no", b"-"]))
        self.assertEqual(other.left, (b"no",))
        self.assertIsNone(other.feed([b"no", b"-"]))
        self.assertEqual(name_of(other.feed([b"no", b"x"])), None)
        self.assertIsNone(FlowDetection(Detector(routes, 5)).feed([b"-123456789"]))
        # A matcher that raises drops nothing.
        other = FlowDetection(Detector(routes[:1]))
        self.assertIsNone(other.feed([b"-raise"]))
        self.assertEqual(other.left, (b"-raise",))

    def test_what_servers_drop_is_explained_as_it_is_decided_and_may_be_taken(self) -> None:
        routes = [asks("any", Nth(1, ord("-"))), asks("dropping", Dropping())]
        self.assertEqual(name_of(FlowDetection(Detector(routes)).feed([b"-"])), "any")
        taken = explain(routes, [b"-", b"yes"]).decision
        self.assertEqual(taken, Decision(routes[0], {"datagrams": "1"}))
        routes = [asks("dropping", Dropping())]
        for received in ([b"-", b"yes"], [b"-"] * 9 + [b"yes"], [b"\0", b"", b"yes", b"z"]):
            found = explain(routes, received)
            self.assertEqual((found.decision.route, found.decided_at), (routes[0], 1))
            self.assertFalse(found.is_dropped)
        for received in ([b"-", b"-"], [b"", b"\0"]):
            found = explain(routes, received)
            told = (found.is_dropped, found.decided_at, found.decision.route)
            self.assertEqual(told, (True, None, None))
        self.assertFalse(explain(routes, ()).is_dropped)

    def test_guard(self) -> None:
        """It is the first of a route up to the one that has taken the flow."""
        routes = [asks("a", Nth(1)), asks("b", Guarding(1))]
        detector, flow = Detector(routes), Datagrams((b"x",))
        for one, seen, guard in (
            (routes[0], flow, None), (routes[1], flow, b"x"), (None, flow, b"x"), (None, None, None),
        ):  # fmt: skip
            self.assertEqual(detector.guard(one, seen), guard)

    def test_each_protocol_has_its_facts(self) -> None:
        names = ("kcp", "sip", "coap", "tftp", "radius", "ike", "rtp", "syslog", "dns")
        detector = Detector(over_udp(*names))
        for datagram, facts in (
            (b"\0\x01boot/pxe\0octet\0", {"path": "boot/pxe"}),
            (b"\x40\x01\0\x01\xb4temp", {"method": "GET", "path": "/temp"}),
            (bytes.fromhex("0100001b") + bytes(16) + b"\x01\x07alice", {"user": "alice"}),
        ):
            decision = FlowDetection(detector).feed([datagram])
            assert decision is not None
            self.assertEqual(decision.facts, facts)

    def test_name_finds_its_route_among_many_and_those_of_one_matcher_learn_once(self) -> None:
        names = (f"dns name=h{n}.example.com" for n in range(50))
        detector = Detector(over_udp(*names, "stun", "snmp"))
        self.assertEqual(len(detector.plan(0).learners_for(99)), 2)
        routes = [asks(f"r{n}", Named(f"n{n}")) for n in range(50)]
        routes.insert(20, asks("every", Nth(1, ord("n"))))
        detector = Detector(routes)
        for name, expected in (("n3", "r3"), ("n19", "r19"), ("n20", "every"), ("m", None)):
            self.assertEqual(name_of(FlowDetection(detector).feed([name.encode()])), expected)

    def test_clients_and_dry_runs(self) -> None:
        reported: list[Route] = []
        inside = Clients(NetworkSet([ip_network("192.0.2.0/24")]))
        routes = [
            asks("dry", Nth(1), dry_run=True), asks("a", Nth(1), clients=inside), asks("b", Nth(1)),
        ]  # fmt: skip
        detector = Detector(routes, on_would_take=reported.append)
        decision = FlowDetection(detector, ip_address("198.51.100.1")).feed([b"x"])
        self.assertEqual(name_of(decision), "b")
        assert decision is not None
        self.assertEqual(decision.facts, {"datagrams": "1", "dry_run": "dry"})
        self.assertEqual([route.name for route in reported], ["dry"])

    @given(
        st.lists(st.sampled_from([b"x", b"y", b"", b"xx"]), min_size=1, max_size=6),
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from(b"xy")), max_size=4),
        st.data(),
    )
    def test_batches_change_nothing(
        self, datagrams: list[bytes], wanted: list[tuple[int, int]], data: st.DataObject
    ) -> None:
        routes = [asks(str(n), Nth(*which)) for n, which in enumerate(wanted)]
        one_by_one = range(1, len(datagrams) + 1)
        batches = data.draw(st.sets(st.sampled_from(one_by_one))) | {len(datagrams)}

        def decide(counts: Sequence[int]) -> Decision[Route]:
            detection, fed = FlowDetection(Detector(routes, 5)), 0
            for count in counts:
                decision = detection.feed((*detection.left, *datagrams[fed:count]))
                if decision is not None:
                    return decision
                fed = count
            return detection.finish()

        self.assertEqual(decide(one_by_one), decide(sorted(batches)))

    def test_one_datagram_decides_at_once_where_routes_are_for_anyone(self) -> None:
        detector = Detector([asks("a", Nth(1, ord("y")), Nth(1)), asks("b", Nth(1, ord("z")))])
        for first in b"xyz":
            peeked = Datagrams((bytes([first]),))
            decision = detector.decide_at_once(peeked)
            self.assertEqual(FlowDetection(detector).feed(peeked.datagrams), decision)
        self.assertEqual(name_of(decision), "b")
        inside = Clients(NetworkSet([ip_network("192.0.2.0/24")]))
        negated = Alternative("not", Nth(1, ord("y")), negated=True)
        for one in (
            asks("more", Nth(2)), asks("limited", Nth(1), clients=inside), asks("dry", Nth(1), dry_run=True),
            asks("raises", Raises()), Route("negated", (negated,), Refusal.CLOSE), asks("other", Nth(1, ord("y"))),
        ):  # fmt: skip
            detector = Detector([one])
            detector.plan(ord("x"))
            self.assertIsNone(detector.decide_at_once(Datagrams((b"x",))), one.name)

    def test_explained_datagrams_are_counted(self) -> None:
        routes = [asks("a", Nth(2, ord("z"))), asks("b", Nth(3)), asks("c", Nth(4))]
        found = explain(routes, [b"x"] * 3)
        self.assertEqual((found.decided_at, name_of(found.decision)), (3, "b"))
        answers = [route.answer for route in found.routes]
        expected = [(Verdict.NO, 2, 2), (Verdict.MATCH, 3, 3), (Verdict.NEED_MORE, None, 4)]
        self.assertEqual([(one.verdict, one.at, one.needs) for one in answers if one], expected)
        b = asks("b", Nth(1))
        found, nothing = (explain([asks("a", Nth(2)), b], data) for data in ([b"x"], []))
        self.assertEqual((found.decided_at, found.decision.route), (None, b))
        self.assertEqual((nothing.decided_at, nothing.decision.route), (None, None))
        late = [asks("a", Nth(9)), b]
        self.assertEqual(explain(late, [b"x"] * 9), explain(late, [b"x"] * 4))

    def test_first_datagram_is_parsed_once(self) -> None:
        calls = []

        def parse(data: bytes, earlier: int | None) -> int:
            calls.append((data, earlier))
            return len(data)

        first = Datagrams((b"abc",))
        self.assertEqual(first.parsed(parse), 3)
        both = Datagrams((b"abc", b"d"), first)
        self.assertEqual((both.parsed(parse), len(both), bytes(both)), (3, 3, b"abc"))
        self.assertEqual((calls, repr(both)), ([(b"abc", None)], "<Datagrams of 3, 1 bytes>"))

    def test_all_datagrams_are_parsed_once_for_each_count(self) -> None:
        calls = []

        def parse(datagrams: tuple[bytes, ...], earlier: int | None) -> int:
            calls.append((datagrams, earlier))
            return sum(map(len, datagrams))

        first = Datagrams((b"abc",))
        self.assertEqual([first.parsed_all(parse), first.parsed_all(parse)], [3, 3])
        third = Datagrams((b"abc", b"", b"de"), Datagrams((b"abc", b""), first))
        self.assertEqual([third.parsed_all(parse), third.parsed_all(parse)], [5, 5])
        self.assertEqual(calls, [((b"abc",), None), ((b"abc", b"", b"de"), 3)])
