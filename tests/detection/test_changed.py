"""A detector that was made of another one by what has changed: it is as one made anew."""

import itertools
from ipaddress import ip_address, ip_network
from operator import eq, itemgetter
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_plan import hello
from tests.support.examples import scaled
from tests.support.held import held_by
from txmux.detection.detector import Detector
from txmux.detection.flows import FlowDetection
from txmux.detection.plan import Plan
from txmux.detection.ranked import GAP, ListChange, finish
from txmux.interfaces import Peeked, Transport
from txmux.rules.difference import Splice, rank, spliced, splices
from txmux.rules.embedding import route
from txmux.rules.model import Route
from txmux.rules.model.networks import EVERY_CLIENT, Clients, NetworkSet
from txmux.testing import steps_in

NAMES = [*"abcdefghijklmnop"]
LINES = [
    *(f"tls sni={name}.test" for name in "abcdefghijklmnop"), *(f"http host={name}.test" for name in "abcdefgh"),
    "tls sni=*.test", "http host=*.a.test", "tls alpn=h2", "not tls sni=a.test", "ssh", "any", "postgres", "tls",
    "payload hex=16", "regex pattern=^[A-Z]", "dns", "wireguard", "stun",
]  # fmt: skip
FLIGHTS = [
    *(hello(name) for name in ("a.test", "b.test", "f.test", "x.a.test", "")),
    *(f"GET / HTTP/1.1\r\nHost: {name}.test\r\n\r\n".encode() for name in ("a", "h", "x.a", "q")),
    b"SSH-2.0-x\r\n", b"\x16\x03", b"\0\0\0\x08\x04\xd2\x16\x2f", b"x", bytes(40), b"\1" + bytes(147),
]  # fmt: skip
INSIDE = Clients(NetworkSet([ip_network("10.0.0.0/8")]))
SPECS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(LINES), min_size=1, max_size=2, unique=True),
        st.sampled_from(("", "", "dry", "inside")),
    ),
    unique_by=lambda one: one[0],
    min_size=5,
    max_size=len(NAMES),
)
Spec = tuple[str, list[str], str]


def made(spec: Spec) -> Route:
    name, lines, kind = spec
    clients = INSIDE if kind == "inside" else EVERY_CLIENT
    return attrs.evolve(route(lines, "close", name=name), dry_run=kind == "dry", clients=clients)


def known_of(plan: Plan[Route]) -> object:
    """Return what a plan says, whatever the ranks."""
    return (
        plan.routes, [[*map(type, some or ())] for some in plan.unconditional], [*plan.keyed],
        [[*map(plan.position_of, plan.dry_runs.get(named))] for named in (False, True)],
        {plan.position_of(rank): len(found) for rank, found in plan.conversing.items()},
        {*plan.exchanges},
        [
            [getattr(one, "__func__", one) for one in plan.learners_for(n)]
            for n in range(len(plan.routes) + 1)
        ],
    )  # fmt: skip


def decisions(detector: Detector[Route], *, datagrams: bool) -> list[object]:
    found: list[object] = []
    for data in FLIGHTS:
        for client in (None, ip_address("10.1.1.1")):
            detection: Any
            if datagrams:
                detection = FlowDetection(detector, client)
                decided = detection.feed([data]) or detection.finish()
            else:
                at_once = detector.decide_at_once(Peeked(data))
                detection = detector.start_detection(client)
                decided = detection.feed(data) or detection.finish()
                found.append(at_once and (at_once.route and at_once.route.name, at_once.facts))
            found.append((decided.route and decided.route.name, decided.facts, decided.answered))
    return found


def with_clients(detector: Detector[Route], change: ListChange[Route]) -> Detector[Route]:
    """Change a detector while a client with another first byte comes between any two steps."""
    changing = detector.changed(change, 2**15, id)
    try:
        for first in itertools.count():
            next(changing)
            detector.plan(first % 256)
    except StopIteration as end:
        made: Detector[Route] = end.value
    return made


class ChangedTest(SynchronousTestCase):
    @settings(max_examples=scaled(150), deadline=None)
    @given(
        versions=st.lists(SPECS, min_size=2, max_size=5),
        warm=st.sets(st.integers(0, 255), max_size=5),
        datagrams=st.booleans(),
    )
    def test_as_made_anew(
        self, versions: list[list[Spec]], warm: set[int], *, datagrams: bool
    ) -> None:
        detector: Detector[Route] = Detector(())
        specs: list[Spec] = []
        routes: list[Route] = []
        ranks: list[int] = []
        transport = Transport.UDP if datagrams else Transport.TCP
        for version in versions:
            found = splices(specs, version, itemgetter(0), eq)
            its = [Splice(one.start, one.stop, tuple(map(made, one.items))) for one in found]
            ranked = rank(routes, ranks, its)
            assert ranked is not None
            ranks, change, _ = ranked
            routes = spliced(routes, its)
            specs = version
            self.assertEqual(ranks, sorted({*ranks}))
            self.assertEqual([one.name for one in routes], [name for name, _, _ in version])
            own = [(at, one.for_transport(transport)) for at, one in change.new]
            kept = [(at, one) for at, one in own if one is not None]
            detector = with_clients(detector, ListChange(change.gone, kept))
            there = [one.for_transport(transport) for one in routes]
            anew = Detector([one for one in there if one is not None], 2**15, id)
            self.assertEqual(detector.routes, anew.routes)
            for name in ("hello_readers", "depends_on_client", "takes_any_client", "_drops"):
                self.assertEqual(getattr(detector, name), getattr(anew, name), name)
            self.assertEqual([one for _, one in detector.guards], [one for _, one in anew.guards])
            for byte in (*warm, 0x16, ord("G")):
                self.assertEqual(known_of(detector.plan(byte)), known_of(anew.plan(byte)))
            told = decisions(detector, datagrams=datagrams)
            self.assertEqual(told, decisions(anew, datagrams=datagrams))
            self.assertEqual(detector.would_have_taken, anew.would_have_taken)
            groups = {id(detector.plan(byte)) for byte in range(256)}
            self.assertEqual(len(groups), len({id(anew.plan(byte)) for byte in range(256)}))

    def test_a_step_for_what_changes(self) -> None:
        """However many routes there are, and wherever something changes, plans that are in use are not made again."""

        def steps(count: int) -> int:
            routes = [
                route(f"tls sni=h{n}.test" if n % 2 else f"payload text={n}x", "close")
                for n in range(count)
            ]
            detector = Detector(routes)
            for byte in (0x16, ord("1"), ord("x")):
                detector.plan(byte)
            new = [
                (count // 2 * GAP, route("tls sni=new.test", "close")),
                (count * GAP, route("ssh", "close")),
            ]
            change = ListChange([0, count // 2 * GAP], new)
            return steps_in(lambda: finish(detector.changed(change, 2**15, id)))

        steps(2)
        few, many = steps(200), steps(400)
        self.assertLessEqual(many, few * 1.1)

    def test_others_have_their_turn(self) -> None:
        """After each 256 that go, that come, or that are put together."""
        ranks = [n * GAP for n in range(600)]
        change = ListChange(ranks, [(rank + 1, rank) for rank in ranks])
        self.assertEqual(len([*change.cuts(ranks)]), 3 + 3 + 3)

    def test_nothing_stays_of_routes_that_are_gone_and_older_ones_stay(self) -> None:
        lines = [*(f"tls sni=h{n}.test" for n in range(10)), "tls sni=*.under.test", "tls"]
        routes = [route(line, "close", name=str(n)) for n, line in enumerate(lines)]
        whole, anew = Detector(routes), Detector(routes[:9])
        whole.plan(0x16)
        gone: ListChange[Route] = ListChange([9 * GAP, 10 * GAP, 11 * GAP], ())
        left, those = finish(whole.changed(gone, 2**15, id)).plan(0x16), anew.plan(0x16)
        self.assertEqual((known_of(left), held_by(left)), (known_of(those), held_by(those)))
        detector = Detector([route(f"tls sni=h{n}.test", "close", name=str(n)) for n in range(20)])
        before = known_of(detector.plan(0x16))
        change = ListChange([3 * GAP], [(3 * GAP, route("tls sni=h3.test", "close", name="new"))])
        changed = finish(detector.changed(change, 2**15, id))
        self.assertEqual(known_of(detector.plan(0x16)), before)
        for which, name in ((detector, "3"), (changed, "new")):
            decision = which.start_detection().feed(hello("h3.test"))
            assert decision is not None
            assert decision.route is not None
            self.assertEqual(decision.route.name, name)
