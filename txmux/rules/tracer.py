"""Traces the first bytes of clients through the routes of rules. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from txmux.detection.detector import Decision, Detector, cancels_apart
from txmux.detection.explain import Explanation, explain
from txmux.interfaces import Transport, Verdict
from txmux.rules.installed import STAGES, stages_in_use
from txmux.rules.model import (
    Backend,
    FoundCertificate,
    Handover,
    Listener,
    Outcome,
    Route,
    Rules,
    Silence,
)
from txmux.rules.tracing import Trace, TracedSample
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.hello.records import is_hello_alone
from txmux.wire.hello.second import NOT_ALONE, NOT_READ, is_not_read

_Explained = Callable[..., Explanation[Any]]


def inner_listener(listener: Listener, end: Route) -> Listener:
    """Return a listener for what is inside what a route opens: with that route's destination as default."""
    return attrs.evolve(
        listener,
        first="client",
        default=end.outcome or listener.default,
        silent=(Silence(end.outcome, route=None),) if end.outcome else listener.silent,
    )


class Tracer:
    """Traces clients by some rules; it keeps what it has made of the routes.

    Args:
        opening: The `txmux.client.configuration.HelloOpening` that opens inner hellos; ``None`` leaves them as they are.
        has_answers: Whether each route's answer is wanted; without, only the decision is found, which takes far less time.
    """

    def __init__(self, rules: Rules, opening: Any = None, *, has_answers: bool = True) -> None:
        self.rules, self._opening, self._has_answers = rules, opening, has_answers
        self._detectors: dict[tuple[str, bool, int], Detector[Route]] = {}
        self._apart: dict[int, list[Route]] = {}  # by the detector

    def trace(
        self,
        listener: Listener,
        sample: TracedSample,
        end: Route | None = None,
        certificate: FoundCertificate | None = None,
    ) -> Trace:
        """Trace a sample that a listener's routes see, or those under the route `end`, inside what that opens."""
        detector = self._detector(listener, end)

        def explained(received: bytes | Sequence[bytes]) -> Explanation[Any]:
            has_answers = self._has_answers or (
                isinstance(received, bytes)
                and bool(received)
                and detector.may_need_answers(received)
            )
            return explain(
                detector,
                received,
                sample.client,
                listener.peek_limit,
                sample.now,
                certificate,
                has_answers=has_answers,
            )

        if sample.datagrams is not None:
            return Trace(listener, explained(sample.datagrams))
        if self._opening is not None and end is None:
            verdicts = _by_inner_hello(self._opening, listener, sample.data, explained)
        else:
            verdicts = explained(sample.data)
        verdicts = _unread(listener, detector, sample.data, verdicts)
        if end is not None and end.terminate_tls is None:
            verdicts = _before_bytes(verdicts, detector, sample, certificate)
        route = verdicts.decision.route
        answered = sum(len(exchange.request) for exchange in verdicts.decision.answered)
        said = attrs.evolve(sample, data=sample.data[answered:])
        every = self._every(detector, listener, said, route, certificate)
        if every is not None:
            return Trace(listener, verdicts, before=sample.facts, every=every)
        stages = () if route is None else stages_in_use("route", route)
        seen = next((stage.seen for stage in stages if stage.seen), None)
        if route is None or seen is None:
            return Trace(listener, verdicts, before=sample.facts)
        facts, data = seen(route, sample.data, lambda head: explained(head).decision.route is route)
        verdicts.decision.facts.update(facts)
        if data is None:
            return Trace(listener, verdicts, before=sample.facts)
        inner = attrs.evolve(sample, data=data, stream=None)
        inside = self.trace(inner_listener(listener, route), inner, route, certificate)
        inside.found.decision.facts.update(facts)
        return Trace(listener, verdicts, (inner, inside), sample.facts)

    def _every(
        self,
        detector: Detector[Route],
        listener: Listener,
        sample: TracedSample,
        route: Route | None,
        certificate: FoundCertificate | None,
    ) -> Backend | None:
        """Return the servers of all routes by which a client may have come before, if they get what it says now."""
        asked = self._apart[id(detector)]
        if asked and route is not None:
            before = detector.routes[: detector.routes.index(route)]
            asked = [*filter(cancels_apart, before)]
        asked = [*asked, *([] if route is None else [route])]
        default = listener.default if route is None else None

        def inside(outer: Route) -> tuple[Sequence[Route], Outcome]:
            inner = self.rules.routes_over(outer, Transport.TCP)
            return inner, outer.outcome or listener.default

        found = (
            one.seen(asked, default, sample.data, inside, sample.client, sample.now, certificate)
            for one in STAGES["match"]
            if one.seen
        )
        return next(filter(None, found), None)

    def _detector(self, listener: Listener, end: Route | None) -> Detector[Route]:
        key = (end or listener).name, end is None, listener.peek_limit
        if key not in self._detectors:
            routes = self.rules.routes_over(end or listener, listener.transport)
            self._detectors[key] = made = Detector(routes, listener.peek_limit)
            self._apart[id(made)] = [*filter(cancels_apart, made.routes)]
        return self._detectors[key]


def _before_bytes(
    verdicts: Explanation[Route],
    detector: Detector[Route],
    sample: TracedSample,
    certificate: FoundCertificate | None,
) -> Explanation[Route]:
    """Return what decides where the client need not say anything inside what its route has opened."""
    detection = detector.start_detection(sample.client, sample.now, certificate)
    decision = detection.decide_before_bytes()
    return verdicts if decision is None else Explanation(verdicts.routes, 0, decision)


def _by_inner_hello(
    opening: Any, listener: Listener, data: bytes, explained: _Explained
) -> Explanation[Any]:
    """Return what decides by the inner hello, if there is one that opens."""
    inner = opening.reader(listener.peek_limit).read(data, last=True)
    assert inner is not None  # noqa: S101 - it is the last
    found, facts = explained(inner.stream), {**inner.facts}
    if inner.illegal is not None:
        return attrs.evolve(found, decided_at=len(data), decision=Decision(None, facts))
    route = found.decision.route
    if inner.second is not None and not inner.fits(route, listener.default):
        found, facts = explained(data), {**inner.outer}
    elif inner.second is not None:  # at the end of the hello that came
        found = attrs.evolve(found, decided_at=len(data) - len(inner.stream) + inner.end)
    decision = attrs.evolve(found.decision, facts={**facts, **found.decision.facts})
    return attrs.evolve(found, decision=decision)


def _unread(
    listener: Listener, detector: Detector[Route], data: bytes, found: Explanation[Any]
) -> Explanation[Any]:
    """Return what becomes of TLS whose hello cannot be read, where routes restrict names: no server gets it."""
    route = found.decision.route
    outcome = listener.default if route is None else route.outcome
    reader = parse_client_hello(data, None)
    may_follow = found.decided_at is not None and not reader.malformed
    restricting = [route for route in detector.hello_readers if route.is_restricted]
    is_passed_on = isinstance(outcome, (Backend, Handover)) and not (route and route.is_outer)
    is_unread = restricting and data and not may_follow and is_not_read(data)
    if restricting and data and detector.may_need_answers(data):
        asked = (one.answer for one in found.routes if one.route in restricting)
        is_cut = any(answer and answer.verdict is Verdict.NEED_MORE for answer in asked)
        is_unread = is_unread or (found.decided_at is None and is_cut)
    is_alone = not reader.hello or not restricting or is_hello_alone(data)
    if not is_passed_on or (is_alone and not is_unread):
        return found
    facts = {**found.decision.facts, "tls_error": NOT_READ if is_alone else NOT_ALONE}
    return attrs.evolve(found, decision=Decision(None, facts))
