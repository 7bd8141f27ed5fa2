"""Explains how listeners decide on given bytes, and the decision on a live connection, as far as it is known.

The bytes of an undecided one are explained as those of a sample. Afterwards they are not kept; what is left is which route took it, after
how many bytes at most, and in which order routes were asked, from which it follows what those before it said.
"""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

from txmux.client.configuration import CompiledRoute, Configuration, RuleLayer
from txmux.client.session import ClientSession
from txmux.detection.explain import ExcludingKey, RouteAnswer, excluded_by, explain
from txmux.interfaces import Transport
from txmux.net.turns import in_thread
from txmux.rules.model import SHORT_FORM, Rules
from txmux.rules.tracer import Tracer
from txmux.rules.tracing import Trace, TracedSample, as_json, route_json, seen_by, trace_json
from txmux.telemetry.documents import Decider, DecisionDocument, InnerAnswer, Says


async def explain_bytes(
    rules: Rules, data: bytes, listener: str | None, client: IPv4Address | IPv6Address | None
) -> list[dict[str, Any]]:
    """Explain how one listener, or all, route the first bytes of a client: the streams of an `ExplanationDocument`."""
    now, tracer = time.time(), Tracer(rules)
    traced: list[tuple[TracedSample, list[Trace]]] = []
    # The same bytes mean different things as the beginning of a stream and as a datagram.
    for over, datagrams in ((Transport.TCP, None), (Transport.UDP, (data,))):
        sample = TracedSample(data, client, now=now, datagrams=datagrams)
        chosen = [
            one for one in rules.listeners if one.transport is over and listener in {None, one.name}
        ]
        for seen, group in seen_by(chosen, sample):
            traces = [await in_thread(tracer.trace, one, seen) for one in group]
            traced.append((seen, traces))
    streams: list[dict[str, Any]] = as_json(str(rules.path), traced)["streams"]
    return streams


def explain_connection(one: ClientSession) -> DecisionDocument:
    record = one.record
    if one.state == "peeking":
        return _undecided(one, one.layer or one.configuration.top)
    is_moved = one.was_moved_here
    is_known = record.detect_ms is not None and not is_moved
    return {
        "listener": record.listener,
        "from": str(client) if (client := _client(one)) else None,
        "bytes": None if is_moved else one.decided_after,
        "by": _by(one),
        "route": record.route,
        "facts": dict(record.facts),
        "routes": [*_answers(one)] if is_known else [],
    }


def _undecided(one: ClientSession, layer: RuleLayer) -> DecisionDocument:
    listener, record = one.configuration.settings, one.record
    client = _client(one)
    sample = TracedSample(one.received, client, now=record.time)
    verdicts = explain(
        layer.detector.routes,
        one.received,
        client,
        listener.peek_limit,
        record.time,
        _certificate(one),
    )
    traced = trace_json(sample, Trace(listener, verdicts))
    levels = one.configuration.inside.items()
    inside = next((name for name, level in levels if level is layer), None)
    return {
        "listener": record.listener,
        "from": traced["from"],
        "bytes": len(one.received),
        "by": None,
        "route": None,
        "facts": {**record.facts, **traced["facts"]},
        "routes": [cast("InnerAnswer", {**row, "inside": inside}) for row in traced["routes"]],
    }


def _client(one: ClientSession) -> IPv4Address | IPv6Address | None:
    return one.address.host if one.address else None


def _certificate(one: ClientSession) -> object:
    return None if one.agreed_tls is None else one.agreed_tls.found


def _by(one: ClientSession) -> Decider | None:
    """Return what decided the connection, in the words of ``txmux explain``."""
    record = one.record
    if record.detect_ms is None:
        return None
    if record.route is not None and (record.route, one.refusal_reason) != (SHORT_FORM, "silent"):
        return "route"
    return "silent" if one.refusal_reason == "silent" else "default"


def _answers(one: ClientSession) -> Iterator[InnerAnswer]:
    record, configuration = one.record, one.configuration
    client = _client(one)
    levels = [(None, configuration.top), *configuration.inside.items()]
    for inside, level in levels:
        names = [route.name for route in level.detector.routes]
        won = record.route if record.route in names else _outer(configuration, record.route, names)
        if won is None and inside is not None:
            continue
        is_asked = one.decided_after > 0
        for route in level.detector.routes:
            excluded = excluded_by(route, client, record.time, _certificate(one))
            yield _answer(route, excluded, inside, is_won=route.name == won, is_asked=is_asked)
            is_asked = is_asked and route.name != won


def _outer(configuration: Configuration, route: str | None, names: list[str]) -> str | None:
    """Find the route of a layer in whose TLS another one is, at any depth."""
    for name in names:
        level = configuration.inside.get(name)
        if level is not None:
            below = [inner.name for inner in level.detector.routes]
            if route in below or _outer(configuration, route, below):
                return name
    return None


def _answer(
    route: CompiledRoute,
    excluded: ExcludingKey | None,
    outer: str | None,
    *,
    is_won: bool,
    is_asked: bool,
) -> InnerAnswer:
    says: Says = "not asked"
    if is_won:
        says = "match"
    elif is_asked and excluded is None:
        says = "unknown" if route.dry_run else "no"
    row = route_json(RouteAnswer(route, excluded))
    lines = [{**line, "says": None} for line in row["lines"]]  # which is not known
    return cast("InnerAnswer", {**row, "says": says, "lines": lines, "inside": outer})
