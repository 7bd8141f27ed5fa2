import itertools
from ipaddress import IPv4Address
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_detector import LINES, SAMPLES, After, Raises, asks, name_of, no, yes
from tests.support.examples import scaled
from txmux.detection.detector import Decision, Detector
from txmux.detection.explain import Explanation, PredicateAnswer, explain
from txmux.interfaces import Verdict
from txmux.rules.embedding import route
from txmux.rules.model import Alternative, Route
from txmux.rules.model.client_certificate import CertificateCondition

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


def says(found: Explanation[Route]) -> list[tuple[str, int | None] | None]:
    return [
        None if its.answer is None else (its.answer.verdict.value, its.answer.at)
        for its in found.routes
    ]


_ROUTES = st.tuples(
    st.lists(st.sampled_from(LINES), min_size=1, max_size=3),
    st.sampled_from(([], ["192.0.2.0/24"], ["10.0.0.0/8"])),
    st.sampled_from(([], ["192.0.2.1"])),
    st.sampled_from((False, False, True)),
)


class TraceTests(SynchronousTestCase):
    @settings(max_examples=scaled(150), deadline=None)
    @given(
        chosen=st.lists(_ROUTES, max_size=12),
        data=st.one_of(st.sampled_from(SAMPLES), st.binary(max_size=40)),
        cut=st.integers(0, 60),
        limit=st.integers(1, 100),
    )
    def test_winner_and_byte_of_byte_wise_detection(
        self, chosen: list[Any], data: bytes, cut: int, limit: int
    ) -> None:
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

    def test_many_names_take_a_short_cut(self) -> None:
        routes = [route(f"http host={n}.example", "close", name=str(n)) for n in range(20)]
        data = b"GET / HTTP/1.1\r\nHost: 7.example\r\n\r\n"
        found = explain(routes, data, CLIENT)
        at, decision = byte_by_byte(routes, data, CLIENT, 1000)
        self.assertEqual((found.decided_at, name_of(found.decision)), (at, name_of(decision)))
        self.assertEqual(name_of(decision), "7")
        self.check_trace(found, 1000)

    def test_each_answer_has_its_byte(self) -> None:
        """An undecided one needs up to so many bytes, or the limit; no byte leaves all undecided."""
        slow, quick = [yes(9)], [yes(2)]
        for alternatives, data, limit, answers, needs, decided in (
            ([[no(3)], quick, [no(4)], slow], b"xxxxx", 1000,
             [("no", 3), ("match", 2), ("no", 4), ("need more", None)], 3, (3, "1")),
            ([slow, quick], b"xxx", 1000, [("need more", None), ("match", 2)], 9, (None, "1")),
            ([slow, quick], b"xxxxx", 4, [("need more", None), ("match", 2)], 4, (4, "1")),
            ([[yes(0)]], b"", 1000, [("need more", None)], 0, (None, None)),
        ):  # fmt: skip
            routes = [asks(str(number), *lines) for number, lines in enumerate(alternatives)]
            found = explain(routes, data, peek_limit=limit)
            self.assertEqual(says(found), answers)
            assert found.routes[0].answer is not None
            self.assertEqual(found.routes[0].answer.needs, needs)
            self.assertEqual((found.decided_at, name_of(found.decision)), decided)

    def test_earliest_match_or_most_patient_line_or_last_no_answers(self) -> None:
        for alternatives, expected in (
            ((no(1), yes(3), yes(2), yes(9)), ("match", 2)), ((no(1), yes(9), yes(8)), ("need more", None)),
            ((no(1), no(4), yes(2, negated=True)), ("no", 4)), ((no(2, negated=True),), ("match", 2)),
            ((yes(9, negated=True),), ("need more", None)),
        ):  # fmt: skip
            found = explain([asks("a", *alternatives)], b"xxxxx")
            self.assertEqual(says(found), [expected])
            self.assertEqual(len(found.routes[0].lines), len(alternatives))
        patient = explain([asks("a", yes(8), yes(9))], b"x").routes[0].answer
        self.assertEqual(patient, PredicateAnswer(Verdict.NEED_MORE, None, 9))

    def test_explanation_names_keys_errors_and_facts(self) -> None:
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
        routes = [
            attrs.evolve(one, client_cert=CertificateCondition(frozenset())) for one in routes
        ]
        found = explain(routes, b"x", CLIENT)
        self.assertEqual([its.excluded_by for its in found.routes][1:], ["not_from", "client_cert"])
        said: Any = {Raises(): "ZeroDivisionError: "}
        said[After(1, "match")] = "TypeError: 'match' is no Verdict"
        for negated, (bad, error) in itertools.product((False, True), said.items()):
            found = explain([asks("a", Alternative("broken", bad, negated))], b"xx")
            answer = PredicateAnswer(Verdict.NO, 1, 1, error)
            self.assertEqual((found.routes[0].answer, found.decided_at), (answer, 1))
            self.flushLoggedErrors(ZeroDivisionError, TypeError)
        found = explain([route("ssh", "close")], b"SSH-2.0-x\r\n")
        self.assertEqual((found.decided_at, found.decision.facts), (4, {"software": "x"}))
