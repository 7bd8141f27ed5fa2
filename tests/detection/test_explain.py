"""Explaining agrees with deciding, and says of each route when it knew."""

from __future__ import annotations

from ipaddress import IPv4Address

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_detector import LINES, SAMPLES, Raises, asks, no, yes
from tests.support.examples import scaled
from txmux.detection.detector import Decision, Detector
from txmux.detection.explain import Explanation, PredicateAnswer, explain
from txmux.interfaces import Verdict
from txmux.rules.embedding import route
from txmux.rules.model import Alternative, Route

CLIENT = IPv4Address("192.0.2.1")


def byte_by_byte(
    routes: list[Route], data: bytes, client: IPv4Address, limit: int
) -> tuple[int | None, Decision[Route]]:
    """Decide as the service does when each byte is a packet: after how many, if at all, and what."""
    detection = Detector(routes, limit).start_detection(client)
    for length in range(1, len(data) + 1):
        decision = detection.feed(data[:length])
        if decision is not None:
            return length, decision
    return None, detection.finish()


def name_of(decision: Decision[Route]) -> str | None:
    """Give the name of the route that won."""
    return decision.route.name if decision.route else None


def says(found: Explanation[Route]) -> list[tuple[str, int | None] | None]:
    """Give what each route says and when; None for one that is not asked."""
    return [
        None if its.answer is None else (its.answer.verdict.value, its.answer.at)
        for its in found.routes
    ]


class AgreementTests(SynchronousTestCase):
    """It says what the service does."""

    @settings(max_examples=scaled(150), deadline=None)
    @given(
        chosen=st.lists(
            st.tuples(
                st.lists(st.sampled_from(LINES), min_size=1, max_size=3),
                st.sampled_from(([], ["192.0.2.0/24"], ["10.0.0.0/8"])),
                st.sampled_from(([], ["192.0.2.1"])),
                st.sampled_from((False, False, True)),
            ),
            max_size=12,
        ),
        data=st.one_of(st.sampled_from(SAMPLES), st.binary(max_size=40)),
        cut=st.integers(0, 60),
        limit=st.integers(1, 100),
    )
    def test_rules(
        self,
        chosen: list[tuple[list[str], list[str], list[str], bool]],
        data: bytes,
        cut: int,
        limit: int,
    ) -> None:
        """For whole sets of rules: the winner, and the byte at which it was sure, are those of byte-wise detection."""
        routes = [
            attrs.evolve(
                route(lines, "close", name=str(n), from_=from_, not_from=not_from), dry_run=dry_run
            )
            for n, (lines, from_, not_from, dry_run) in enumerate(chosen)
        ]
        data = data[:cut]
        found = explain(routes, data, CLIENT, limit)
        at, decision = byte_by_byte(routes, data, CLIENT, limit)
        self.assertEqual((found.decided_at, name_of(found.decision)), (at, name_of(decision)))
        self.check_trace(found, limit)

    def check_trace(self, found: Explanation[Route], limit: int) -> None:
        """The decision is what follows from the answers of the routes."""
        at = 1
        for its in found.routes:
            if its.answer is None or its.route.dry_run:
                continue
            if its.answer.at is None:
                self.assertIn(found.decided_at, (None, limit))
                return
            at = max(at, its.answer.at)
            if its.answer.verdict is Verdict.MATCH:
                self.assertIs(found.decision.route, its.route)
                break
        self.assertIn(found.decided_at, (None, at))

    def test_many_names(self) -> None:
        """So it is where names take a short cut through many routes."""
        routes = [route(f"http host={n}.example", "close", name=str(n)) for n in range(20)]
        data = b"GET / HTTP/1.1\r\nHost: 7.example\r\n\r\n"
        found = explain(routes, data, CLIENT)
        at, decision = byte_by_byte(routes, data, CLIENT, 1000)
        self.assertEqual((found.decided_at, name_of(found.decision)), (at, name_of(decision)))
        self.assertEqual(name_of(decision), "7")
        self.check_trace(found, 1000)


class AnswerTests(SynchronousTestCase):
    """What is said of each route."""

    def test_when_known(self) -> None:
        """A match and a no have the byte, also those after the winner; what is undecided has none."""
        routes = [asks("a", no(3)), asks("b", yes(2)), asks("c", no(4)), asks("d", yes(9))]
        found = explain(routes, b"xxxxx")
        self.assertEqual(says(found), [("no", 3), ("match", 2), ("no", 4), ("need more", None)])
        self.assertEqual((found.decided_at, name_of(found.decision)), (3, "b"))

    def test_undecided(self) -> None:
        """It tells how many bytes it may take; and what comes of it if there are no more."""
        found = explain([asks("a", yes(9)), asks("b", yes(2))], b"xxx")
        (answer, _) = (its.answer for its in found.routes)
        self.assertEqual(answer, PredicateAnswer(Verdict.NEED_MORE, None, 9))
        self.assertEqual((found.decided_at, name_of(found.decision)), (None, "b"))

    def test_limit(self) -> None:
        """At the limit it is decided; nobody needs more than that."""
        found = explain([asks("a", yes(9)), asks("b", yes(2))], b"xxxxx", peek_limit=4)
        self.assertEqual(says(found), [("need more", None), ("match", 2)])
        self.assertEqual(found.routes[0].answer, PredicateAnswer(Verdict.NEED_MORE, None, 4))
        self.assertEqual((found.decided_at, name_of(found.decision)), (4, "b"))

    def test_no_byte(self) -> None:
        """Without a byte nobody is asked, and all are undecided."""
        found = explain([asks("a", yes(0))], b"")
        self.assertEqual(says(found), [("need more", None)])
        self.assertEqual((found.decided_at, name_of(found.decision)), (None, None))

    def test_lines(self) -> None:
        """The earliest match, else the most patient, else the last no speaks for the route."""
        for alternatives, expected in (
            ((no(1), yes(3), yes(2), yes(9)), ("match", 2)),
            ((no(1), yes(9), yes(8)), ("need more", None)),
            ((no(1), no(4), yes(2, negated=True)), ("no", 4)),
            ((no(2, negated=True),), ("match", 2)),
            ((yes(9, negated=True),), ("need more", None)),
        ):
            found = explain([asks("a", *alternatives)], b"xxxxx")
            self.assertEqual(says(found), [expected])
            self.assertEqual(len(found.routes[0].lines), len(alternatives))
        patient = explain([asks("a", yes(8), yes(9))], b"x").routes[0].answer
        self.assertEqual(patient, PredicateAnswer(Verdict.NEED_MORE, None, 9))

    def test_networks(self) -> None:
        """Routes that are not for the client are not asked, and it is told by which key."""
        routes = [
            route("any", "close", from_=["10.0.0.0/8"]),
            route("any", "close", not_from=["192.0.2.0/24"]),
            route("any", "close", from_=["192.0.2.0/24"]),
        ]
        found = explain(routes, b"x", CLIENT)
        self.assertEqual([its.excluded_by for its in found.routes], ["from", "not_from", None])
        self.assertEqual(says(found), [None, None, ("match", 1)])
        unknown = explain(routes, b"x")
        self.assertEqual([its.excluded_by for its in unknown.routes], ["from", None, "from"])

    def test_raises(self) -> None:
        """A matcher that raises is a no, negated or not, and its error is told."""
        for negated in (False, True):
            found = explain([asks("a", Alternative("broken", Raises(), negated))], b"xx")
            answer = PredicateAnswer(Verdict.NO, 1, 1, "ZeroDivisionError: ")
            self.assertEqual(found.routes[0].answer, answer)
            self.assertEqual(found.decided_at, 1)
            self.flushLoggedErrors(ZeroDivisionError)

    def test_facts(self) -> None:
        """Facts are from all of the bytes, not only from those up to the decision."""
        found = explain([route("ssh", "close")], b"SSH-2.0-x\r\n")
        self.assertEqual((found.decided_at, found.decision.facts), (4, {"software": "x"}))
