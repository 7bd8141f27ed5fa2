"""Handles requests about the connections and counters of a worker, and about how its listeners decide on bytes and connections.

The bytes of an undecided connection are explained as those of a sample. Afterwards they are not kept; what is left is which route took it, after
how many bytes at most, and in which order routes were asked, from which it follows what those before it said.
"""

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from heapq import nsmallest
from ipaddress import IPv4Address, IPv6Address, ip_address
from operator import itemgetter
from typing import Any, cast

from txmux.client.client_table import Row
from txmux.client.configuration import CompiledRoute, Configuration, RuleLayer
from txmux.client.session import ClientSession, has_ended
from txmux.control.documents import address_states, connection_document
from txmux.control.filters import Filters, connection_sort_key
from txmux.control.gauges import COUNT, measure
from txmux.detection.explain import ExcludingKey, RouteAnswer, excluded_by, explain
from txmux.detection.recognising import matcher_of
from txmux.interfaces import Transport
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.net.collecting import UNCOLLECTED
from txmux.net.turns import Turns, in_thread
from txmux.rules.model import SHORT_FORM, Rules
from txmux.rules.tracing import (
    Trace,
    TracedSample,
    Tracer,
    as_json,
    route_json,
    seen_by,
    trace_json,
)
from txmux.serving.serving import Serving
from txmux.telemetry.documents import (
    ConnectionDocument,
    Decider,
    DecisionDocument,
    InnerAnswer,
    ReportedAddress,
    Says,
)


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
    routes, certificate = layer.detector.routes, _certificate(one)
    verdicts = explain(routes, one.received, client, listener.peek_limit, record.time, certificate)
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


class WorkerAnswers:
    """Answers for the listeners of a worker."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None:
        events = self._serving.runtime.events
        events.listen(sink)
        self._serving.upstreams.tell = events.server

    @property
    def handlers(self) -> Mapping[Message, Callable[..., Any]]:
        """For the channel to the supervisor."""
        return {
            messages.CONNECTIONS: self.connections,
            messages.ADDRESSES: self.addresses,
            messages.CLOSE: self.close,
            messages.EXPLAIN_CONNECTION: self.explain_connection,
            messages.EXPLAIN: self.explain,
            messages.RECOGNISE: self.recognise,
            messages.CLOSE_SERVER: self.close_server,
            messages.APPLY_OVERRIDES: self._serving.apply_overrides,
            messages.BAN: self._serving.ban,
            messages.FEED: self._serving.feed,
            COUNT: self.count,
            messages.CLIENTS: self.clients,
        }

    async def connections(
        self,
        filters: Mapping[str, str],
        limit: int,
        after: str = "",
        id: str = "",  # noqa: A002
    ) -> list[ConnectionDocument]:
        """List at most `limit` connections after an ID, or the single one of an ID."""
        first = connection_sort_key(after)
        rows: list[ConnectionDocument] = []
        while True:
            keyed = [
                (sort_key, connection)
                async for connection in self._matching(Filters.read(filters))
                if (sort_key := connection_sort_key(connection.record.id)) > first
                and id in {"", connection.record.id}
            ]
            chosen = nsmallest(limit - len(rows), keyed, key=itemgetter(0))
            with UNCOLLECTED:
                live = Turns().each((connection for _, connection in chosen), has_ended)
                rows += [connection_document(connection) async for connection in live]
            if len(rows) == limit or len(chosen) == len(keyed):
                return rows
            first = chosen[-1][0]  # some have ended meanwhile, and others take their places

    async def addresses(self, backends: Collection[str] | None = None) -> list[ReportedAddress]:
        return await Turns().collect(address_states(self._serving.upstreams, backends))

    async def clients(self) -> list[Row]:
        serving = self._serving
        return await Turns().run(serving.runtime.clients.rows(serving.connections()))

    async def explain_connection(self, id: str) -> DecisionDocument | None:  # noqa: A002
        for connection in self._serving.connections():
            if connection.record.id == id:
                return explain_connection(connection)
        return None

    async def explain(
        self, data: str, listener: str | None, client: str | None
    ) -> list[dict[str, Any]]:
        host = None if client is None else ip_address(client)
        return await explain_bytes(self._serving.rules, bytes.fromhex(data), listener, host)

    def recognise(self, clients: Iterable[tuple[str, bool]]) -> list[str]:
        over = {False: Transport.TCP, True: Transport.UDP}
        return [matcher_of(bytes.fromhex(first), over[is_udp]) for first, is_udp in clients]

    async def close(self, filters: Mapping[str, str], id: str = "") -> int:  # noqa: A002
        chosen = [
            its async for its in self._matching(Filters.read(filters)) if id in {"", its.record.id}
        ]
        return await _end(chosen)

    async def close_server(self, backend: str, server: str) -> int:
        members = [
            member
            for upstream in self._serving.upstreams.all([backend])
            for member in upstream.pool.members
            if member.server.text == server
        ]

        def is_there(address: str) -> bool:
            return address == server or any(member.is_at(address) for member in members)

        of_backend = self._matching(Filters(backend=backend))
        return await _end([its async for its in of_backend if is_there(its.record.server or "")])

    async def count(self, *, gauges: bool = False) -> dict[str, Any]:
        """Count what connections have relayed until now, which they do not count themselves."""
        async for connection in Turns().each(self._serving.connections(), has_ended):
            connection.count_bytes()
        self._serving.count()
        return await measure(self._serving, everything=gauges)

    async def _matching(self, filters: Filters) -> AsyncIterator[ClientSession]:
        async for connection in Turns().each(self._serving.connections(), has_ended):
            if filters.fit(connection.record, connection.state, connection.elapsed_ms() / 1000):
                yield connection


async def _end(chosen: Iterable[ClientSession]) -> int:
    turns, count = Turns(), 0
    for connection in chosen:
        if not has_ended(connection):
            connection.end("killed")
            count += 1
        await turns.pause()
    return count
