"""What listeners do with given bytes: the first ones of clients are traced through the routes of rules, and told as JSON. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal

import attrs
from attrs.converters import optional

from txmux.classes import frozen
from txmux.detection.detector import Decision, Detector, cancels_apart
from txmux.detection.explain import Explanation, PredicateAnswer, RouteAnswer, explain
from txmux.interfaces import Transport, Verdict
from txmux.rules.installed import STAGES, stages_in_use
from txmux.rules.model import (
    Backend,
    FoundCertificate,
    Handover,
    InProcess,
    Listener,
    Opening,
    Outcome,
    Refusal,
    Route,
    Rules,
    Silence,
)
from txmux.transport import is_address, unmapped
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.hello.records import is_hello_alone
from txmux.wire.hello.second import NOT_ALONE, NOT_READ, is_not_read

_SHOWN_BYTES = 48
SAYS = {Verdict.MATCH: "match", Verdict.NO: "no", Verdict.NEED_MORE: "undecided"}


_Explained = Callable[..., Explanation[Any]]


@frozen
class TracedSample:
    """The first bytes or datagrams of a client.

    Attributes:
        data: The bytes; maybe none. Of a flow those of the first datagram.
        client: Its address. As in the service, IPv4 inside IPv6 is IPv4.
        stream: A `txmux.features.captures.reading.CapturedStream`, if they are from a capture.
        now: The time of its arrival, in seconds since 1970.
        datagrams: The first ones of a flow; ``None`` for a stream.
        refused: Of a client whom no route sees before a stage of a feature has let it pass, why its connection ends, empty while it may still pass; else ``None``.
        facts: What is learnt there.
    """

    data: bytes
    client: IPv4Address | IPv6Address | None = attrs.field(converter=optional(unmapped))
    stream: Any = None
    now: float = 0.0
    datagrams: tuple[bytes, ...] | None = None
    refused: str | None = None
    facts: Mapping[str, str] = attrs.field(factory=dict)


@frozen
class Trace:
    """What one listener makes of a sample; `inner` is what it makes of the bytes inside what its route opens."""

    listener: Listener
    found: Explanation[Any]
    inner: tuple[TracedSample, Trace] | None = None
    before: Mapping[str, str] = attrs.field(factory=dict)  # the facts of the sample
    every: Backend | None = None  # the servers of several routes, to which a feature sends it

    @property
    def facts(self) -> dict[str, str]:
        return {**self.before, **self.found.decision.facts}


def seen_by(
    listeners: Iterable[Listener], sample: TracedSample, *, is_inner: bool = False
) -> Iterator[tuple[TracedSample, list[Listener]]]:
    """Yield what the routes of listeners see of a client: what comes behind the stages of features, unless that is inside TLS."""

    def values_of(listener: Listener) -> list[str]:
        stages = () if is_inner else stages_in_use("listen", listener)
        return [f"{stage.key}={listener.more[stage.key]}" for stage in stages if stage.seen]

    for _, same in itertools.groupby(sorted(listeners, key=values_of), values_of):
        group, seen = [*same], sample
        for stage in () if is_inner else stages_in_use("listen", group[0]):
            if stage.seen:
                seen = stage.seen(group[0].more[stage.key], seen)
        yield seen, group


def as_json(rules: str, traces: Iterable[tuple[TracedSample, Iterable[Trace]]]) -> dict[str, Any]:
    """Return the document that ``--json`` writes; the reference of the commands has its keys."""
    return {
        "rules": rules,
        "streams": [
            {
                "client": _text(sample.stream.client if sample.stream else sample.client),
                "server": _text(sample.stream and sample.stream.server),
                "bytes": len(b"".join(sample.datagrams or (sample.data,))),
                "datagrams": sample.datagrams and [len(datagram) for datagram in sample.datagrams],
                "gap": bool(sample.stream and sample.stream.gap),
                "late": bool(sample.stream and sample.stream.is_late),
                "server_first": bool(sample.stream and sample.stream.server_first),
                "listeners": [trace_json(sample, trace) for trace in of_sample],
            }
            for sample, of_sample in traces
        ],
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


@frozen
class TracedOutcome:
    """The outcome for a client, and what decides it.

    Attributes:
        outcome: ``None`` if routes under that one decide.
        after: For one that says nothing: in how many seconds.
    """

    by: Literal["route", "default", "silent", "denied", "tls-failed", "cancel"]
    route: str | None
    outcome: Outcome | None
    facts: Mapping[str, str] = attrs.field(factory=dict)
    opens: Opening | None = None
    after: float | None = None

    def __str__(self) -> str:
        by = f"route {self.route}" if self.route else self.by
        if self.outcome is None:
            assert self.opens is not None  # noqa: S101 - routes under it decide
            if why := self.facts.get(self.opens.error):
                return f"{by}, which {self.opens.fails}: {why}"
            return f"{by}, which {self.opens.does}; the routes under it decide on what is inside"
        if isinstance(self.outcome, Refusal):
            return f"{by}, {self.outcome.value}"
        servers = ", ".join(self.servers)
        if isinstance(self.outcome, Handover):
            return f"{by}, to {self.outcome.name}"
        if servers == self.outcome.name or self.by == "cancel":
            return f"{by}, to {servers}"
        return f"{by}, to backend {self.outcome.name} ({servers}){self.requested_name}"

    @property
    def requested_name(self) -> str:
        """Which name the client asks for, if that chooses the server."""
        backend = self.outcome
        if not isinstance(backend, Backend) or not backend.names:
            return ""
        name = backend.servers[0].name_for(self.facts)
        if not name:
            return ": no-name"
        if not backend.allows(name):
            return f": {name}, name-denied"
        is_denied = is_address(name) and not backend.reaches(ip_address(name))
        return f": {name}, address-denied" if is_denied else f": {name}"

    @property
    def servers(self) -> list[str]:
        return [s.text for s in self.outcome.servers] if isinstance(self.outcome, Backend) else []

    def as_json(self, at: int | None, after: float | None = None) -> dict[str, Any]:
        to = self.outcome.value if isinstance(self.outcome, Refusal) else None
        if isinstance(self.outcome, (Backend, Handover, InProcess)):
            to = self.outcome.name
        return {
            "at": at,
            **({} if after is None else {"after": after if self.after is None else self.after}),
            "by": self.by,
            "route": self.route,
            "to": to,
            "servers": self.servers,
            "text": str(self),
        }


def traced_outcome(sample: TracedSample, trace: Trace) -> TracedOutcome:  # noqa: PLR0911 - one for each cause
    listener, client = trace.listener, sample.client
    is_denied = client is not None and not listener.clients.serves(client)
    if is_denied or sample.refused is not None:
        return TracedOutcome("denied" if is_denied else "tls-failed", None, Refusal.CLOSE)
    if trace.every is not None:
        return TracedOutcome("cancel", None, trace.every, trace.facts)
    silence = silence_of(sample, trace)
    is_open = trace.found.decided_at != 0
    if silence is None and is_open:
        return TracedOutcome("default", None, listener.default, trace.facts)
    if not sample.data and sample.datagrams is None and is_open and silence is not None:
        return attrs.evolve(silence, facts=trace.facts)
    route = trace.found.decision.route
    if route is None:
        is_undecided = trace.found.decided_at is None
        is_flow = is_undecided and sample.datagrams is not None
        is_illegal = "tls_error" in trace.found.decision.facts
        if is_illegal or (is_flow and trace.found.is_dropped):
            return TracedOutcome("tls-failed" if is_illegal else "silent", None, Refusal.CLOSE)
        return TracedOutcome("default", None, listener.default, trace.facts)
    outcome = None if route.is_outer else route.outcome
    return TracedOutcome("route", route.name, outcome, trace.facts, route.opens)


def silence_of(sample: TracedSample, trace: Trace) -> TracedOutcome | None:
    """Return what becomes of a client that says nothing; ``None`` if it goes to ``default`` before it can send anything."""
    listener = trace.listener
    usual = listener.detect_timeout
    if sample.datagrams is not None:
        return TracedOutcome("silent", None, Refusal.CLOSE, after=usual)
    candidates = [its.route for its in trace.found.routes if its.excluded_by is None]
    deciding = [route for route in candidates if not route.dry_run]
    fits = any(line.clients.serves(sample.client) for line in listener.silent)
    for route in deciding:
        if route.takes_silent and not (route.is_of_unit and fits):
            after = route.silent_after(listener)
            return TracedOutcome("route", route.name, route.outcome, after=after)
    may_decide = deciding or listener.routes_from
    otherwise = Refusal.CLOSE if may_decide else listener.default
    silence = TracedOutcome("silent", None, otherwise, after=usual)
    for line in listener.silent:
        if line.clients.serves(sample.client):
            silence = TracedOutcome("silent", line.route, line.outcome, after=line.after or usual)
            break
    is_same = silence.outcome == listener.default and not isinstance(listener.default, Refusal)
    at_once = listener.first == "server" or (is_same and not candidates and not may_decide)
    return None if at_once else silence


def trace_json(sample: TracedSample, trace: Trace) -> dict[str, Any]:
    listener, traced, silence = (
        trace.listener,
        traced_outcome(sample, trace),
        silence_of(sample, trace),
    )
    at, usual = trace.found.decided_at, trace.listener.detect_timeout
    if traced.by == "denied" or sample.refused or (sample.refused is None and silence is None):
        at = 0
    return {
        "listener": listener.name,
        "from": _text(sample.client),
        "during": any(its.route.during for its in trace.found.routes),
        "time": datetime.fromtimestamp(sample.now).astimezone().isoformat(timespec="seconds"),
        "bytes": len(sample.data),
        "first": sample.data[:_SHOWN_BYTES].hex(),
        "peek_limit": listener.peek_limit if sample.datagrams is None else None,
        "routes": [*map(route_json, trace.found.routes)],
        "decision": None if at is None else traced.as_json(at),
        "at_deadline": traced.as_json(None, usual) if at is None else None,
        "silence": None if silence is None else silence.as_json(None, usual),
        "answers": [repr(exchange.answer) for exchange in trace.found.decision.answered],
        "facts": {**trace.facts, **({"tls_error": sample.refused} if sample.refused else {})},
        **({} if trace.inner is None else {"inside": trace_json(*trace.inner)}),
    }


def route_json(found: RouteAnswer[Any]) -> dict[str, Any]:
    answered = itertools.zip_longest(found.route.alternatives, found.lines)
    return {
        "route": found.route.name,
        **_answer_json(found.answer),
        "excluded_by": found.excluded_by,
        "dry_run": found.route.dry_run,
        "lines": [{"match": line.text, **_answer_json(answer)} for line, answer in answered],
    }


def _answer_json(answer: PredicateAnswer | None) -> dict[str, Any]:
    if answer is None:
        return {"says": "not asked", "at": None, "needs_up_to": None, "error": None}
    return {
        "says": SAYS[answer.verdict],
        "at": answer.at,
        "needs_up_to": answer.needs if answer.at is None else None,
        "error": answer.error or None,
    }


def inner_listener(listener: Listener, end: Route) -> Listener:
    """Return a listener for what is inside what a route opens: with that route's destination as default."""
    default = end.outcome or listener.default
    silent = (Silence(end.outcome, route=None),) if end.outcome else listener.silent
    return attrs.evolve(listener, first="client", default=default, silent=silent)


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
