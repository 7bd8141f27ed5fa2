"""Explains the decision on a live connection, as far as it is known.

The bytes of an undecided one are explained as those of a sample. Afterwards they are not kept; what is left is which route took it, after
how many bytes at most, and in which order routes were asked, from which it follows what those before it said.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from txmux.client.configuration import CompiledRoute, Configuration, RuleLayer
from txmux.client.served import Served
from txmux.detection.explain import ExcludingKey, excluded_by, explain
from txmux.rules.tracing import Trace, TracedSample, trace_json


def explain_connection(one: Served) -> dict[str, Any]:
    record = one.record
    if one.state == "peeking":
        return _undecided(one, one.layer or one.configuration.top)
    explanation: dict[str, Any] = {
        "listener": record.listener,
        "from": str(client) if (client := _client(one)) else None,
        "bytes": None if one.was_moved_here else one.decided_after,
        "by": _by(one),
        "route": record.route,
        "facts": dict(record.facts),
        "routes": [],
    }
    if record.detect_ms is not None and not one.was_moved_here:
        explanation["routes"] = list(_answers(one))
    return explanation


def _undecided(one: Served, layer: RuleLayer) -> dict[str, Any]:
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
        "routes": [{**answer, "inside": inside} for answer in traced["routes"]],
    }


def _client(one: Served) -> IPv4Address | IPv6Address | None:
    return one.address.host if one.address else None


def _certificate(one: Served) -> object:
    return None if one.agreed_tls is None else one.agreed_tls.found


def _by(one: Served) -> str | None:
    """Return what decided the connection, in the words of ``txmux explain``."""
    record = one.record
    if record.detect_ms is None:
        return None
    if record.route is not None:
        return "route"
    return "silent" if one.refusal_reason == "silent" else "default"


def _answers(one: Served) -> Iterator[dict[str, Any]]:
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
    inside: str | None,
    *,
    is_won: bool,
    is_asked: bool,
) -> dict[str, Any]:
    says = "not asked"
    if is_won:
        says = "match"
    elif is_asked and excluded is None:
        says = "unknown" if route.dry_run else "no"
    return {
        "route": route.name,
        "says": says,
        "at": None,
        "needs_up_to": None,
        "error": None,
        "excluded_by": excluded,
        "dry_run": route.dry_run,
        "lines": [
            {"match": line.text, "says": None, "at": None, "needs_up_to": None, "error": None}
            for line in route.alternatives
        ],
        "inside": inside,
    }
