"""Clients that wait for an answer before they go on: who is answered, when, and that cuts do not matter."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import Mock

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.detector import Detector
from txmux.interfaces import Exchange, Peeked, Verdict
from txmux.rules.model import Alternative, Clients, NetworkSet, Refusal, Route

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


@attrs.frozen
class Says:
    verdict: Verdict
    longest: int

    def __call__(self, peeked: Peeked) -> Verdict:
        return self.verdict if len(peeked) >= self.longest else NEED_MORE


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


class AnswerTests(SynchronousTestCase):
    def test_who_is_answered(self) -> None:
        x, y = leads("x", Named(b"x")), leads("y", Named(b"y"))
        early, next_one = leads("early", Says(MATCH, 2)), leads("next", Says(MATCH, 4))
        late = leads("late", Says(NO, 5))
        dry = leads("x", Named(b"x"), dry_run=True)
        elsewhere = leads("x", Named(b"x"), clients=Clients(NetworkSet([])))
        both, last = [(5, "no"), (5, "yes")], leads("y", Says(MATCH, 5))
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
            ([leads("l", Says(NO, 3)), leads("sure", Says(MATCH, 1)), x], (b"a?", b"b"), ("sure", [])),
            # Dry runs and routes of other clients answer nobody.
            ([dry, last], (b"a?b?x",), ("y", [])), ([elsewhere, last], (b"a?b?x",), ("y", [])),
            ([late, dry, elsewhere, leads("y", Named(b"x"))], (b"a?b?x",), ("y", both)),
        ):  # fmt: skip
            self.assertEqual((pieces, run(routes, *pieces)), (pieces, expected))

    def test_raising_finder_has_none_answered(self) -> None:
        find = Mock(side_effect=ZeroDivisionError)
        routes = [leads("x", Named(b"x", exchanges=find)), leads("y", Says(MATCH, 5))]
        self.assertEqual(run(routes, b"a?", b"b?x"), ("x", []))

    @given(
        st.lists(st.integers(1, 4), max_size=4), st.sampled_from([b"x", b"y", b"z"]), st.booleans()
    )
    def test_cuts(self, cuts: list[int], name: bytes, early: bool) -> None:  # noqa: FBT001
        data = REQUESTS + name
        routes = [leads("x", Named(b"x")), leads("y", Named(b"y")), leads("any", Says(MATCH, 3))]
        routes = [routes[2], *routes[:2]] if early else routes
        pieces = [data[a:b] for a, b in itertools.pairwise([0, *sorted(set(cuts)), len(data)])]
        route, answers = run(routes, *pieces)
        expected, whole = run(routes, data)
        self.assertEqual((route, [text for _, text in answers]), (expected, [t for _, t in whole]))
