"""Decides which route a client belongs to, from its first bytes; sans I/O.

The promise (see the rules reference): the first route in file order that is not ``NO`` decides, and while it is
undecided the client waits. So the same bytes lead to the same route however the network cut them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import compress
from typing import Generic

import attrs
from twisted.logger import Logger

from txmux.detection.plan import AlternativeLike, Plan, R, RouteLike, first_bytes
from txmux.interfaces import MOST_DATAGRAMS, Datagrams, Exchange, Peeked, Verdict


@attrs.frozen
class Decision(Generic[R]):
    """The result of detection.

    Attributes:
        route: ``None`` if every route was ``NO``.
        facts: For the access log.
        answered: The requests at the beginning of the stream that the client has an answer to.
    """

    route: R | None
    facts: dict[str, str]
    answered: tuple[Exchange, ...] = ()


class Detector(Generic[R]):
    """The routes of one listener, compiled. One detector serves all connections.

    Args:
        routes: In the order of their priority.
        peek_limit: The most bytes that matchers see.
        would_take: Called with each dry-run route that would have taken a client.
    """

    _log = Logger()

    def __init__(
        self,
        routes: Iterable[R],
        peek_limit: int = 32 * 1024,
        would_take: Callable[[R], object] = lambda _: None,
    ) -> None:
        self.would_take = would_take
        self.routes = tuple(routes)
        self.peek_limit = peek_limit
        self.depends_on_client = any(route.clients.limited for route in self.routes)
        # Whether some route can take clients from anywhere, at any time.
        self.decides_always = any(
            not (route.dry_run or route.clients.limited or route.client_cert or route.during)
            for route in self.routes
        )
        self.would_have_taken = {route.name: 0 for route in self.routes if route.dry_run}
        self._plans: dict[int | None, Plan[R]] = {}
        self._plans_by_routes: dict[bytes, Plan[R]] = {}
        self._first_bytes: list[frozenset[int] | None] | None = None
        self._reported: set[str] = set()

    def start_detection(
        self,
        client: IPv4Address | IPv6Address | None = None,
        now: float | None = None,
        certificate: object = None,
    ) -> Detection[R]:
        """Start with a new client; without an address it is in no network, and without a time it matches no ``during``."""
        return Detection(self, client, now, certificate)

    def converses(self, data: bytes) -> bool:
        """Return whether requests at the beginning of a stream may have to be answered before it is decided."""
        return bool(self.plan(data[0]).exchanges)

    def start_flow_detection(
        self,
        client: IPv4Address | IPv6Address | None = None,
        now: float | None = None,
        peeked: Datagrams | None = None,
    ) -> FlowDetection[R]:
        """The same for a flow; `peeked` has what was read in its first datagram already."""
        return FlowDetection(self, client, now, peeked=peeked)

    def decide_at_once(self, peeked: Peeked) -> Decision[R] | None:
        """Decide by the first bytes or datagram alone, as a detection would; ``None`` if that is needed.

        This is enough for most clients.
        """
        data = peeked.data
        plan = (self._plans.get(data[0]) or self.plan(data[0])) if data else None
        if plan is None or plan.dry_runs or plan.exchanges or len(data) >= self.peek_limit:
            return None
        for position, predicates in enumerate(plan.unconditional):
            if predicates is None:
                return None
            for predicate in predicates:
                try:
                    verdict = predicate(peeked)
                except Exception:  # noqa: BLE001 - a plugin's, to be reported by the one that takes more
                    return None
                if verdict is _NEED_MORE:
                    return None
                if verdict is _MATCH:
                    return Decision(plan.routes[position], _learnt(plan.learners, position, peeked))
        return None

    def plan(self, first_byte: int | None) -> Plan[R]:
        # `None` is an empty datagram.
        plan = self._plans.get(first_byte)
        if plan is None:
            if self._first_bytes is None:
                self._first_bytes = [first_bytes(route) for route in self.routes]
            # Most first bytes leave the same routes, of which there may be thousands.
            which = bytes([first is None or first_byte in first for first in self._first_bytes])
            plan = self._plans_by_routes.get(which)
            if plan is None:
                plan = self._plans_by_routes[which] = Plan(compress(self.routes, which))
            self._plans[first_byte] = plan
        return plan

    def report(self, route: R, alternative: AlternativeLike) -> None:
        if alternative.text in self._reported:  # a matcher may raise for every client
            return
        self._reported.add(alternative.text)
        self._log.failure(
            "route {route}: the matcher of {match!r} raised, which counts as a no; report this to its author",
            route=route.name,
            match=alternative.text,
        )


@attrs.define(eq=False)
class _RouteScan(Generic[R]):
    """Scans the routes for one client."""

    _detector: Detector[R]
    _client: IPv4Address | IPv6Address | None
    _now: float | None
    _certificate: object = None
    _peeked: Peeked | None = None
    _plan: Plan[R] | None = attrs.field(default=None, init=False)
    _position: int = attrs.field(default=0, init=False)  # all routes of the plan before it are NO
    # Alternatives, by id, whose matcher raised.
    _broken: set[int] = attrs.field(factory=set, init=False)
    # The requests that have to be answered before more bytes are fed.
    answered: tuple[Exchange, ...] = attrs.field(default=(), init=False)

    def can_decide(self) -> bool:
        return self._detector.decides_always or any(
            not route.dry_run and self._serves(route) for route in self._detector.routes
        )

    def has_routes_for_client(self) -> bool:
        return any(self._serves(route) for route in self._detector.routes)

    def finish(self) -> Decision[R]:
        """Decide now: undecided routes count as a no."""
        decision = None
        if self._plan is not None and self._peeked is not None:
            decision = self._resolve(self._plan, self._peeked, last=True)
        return decision or Decision(None, {})

    def _resolve(self, plan: Plan[R], peeked: Peeked, *, last: bool) -> Decision[R] | None:
        # A later route is not tried while an earlier one is undecided: it could not win yet, and its
        # answer to more bytes includes its answer to these.
        routes, plain, keyed = plan.routes, plan.plain, plan.keyed
        position, end = self._position, len(routes)
        named: Collection[int] | None = None
        while position < end:
            predicate = plain[position]
            if predicate is not None:
                try:
                    verdict = predicate(peeked)
                except Exception:  # noqa: BLE001 - a plugin's bug must not become this client's
                    self._give_up_on(routes[position], routes[position].alternatives[0])
                    verdict = _NO
            else:
                if keyed[position]:
                    named = plan.named(peeked) if named is None else named
                    worth_asking = position if named is None else plan.next(position, named)
                    if worth_asking != position:
                        position = worth_asking
                        continue
                route = routes[position]
                decides = not route.dry_run and self._serves(route)
                verdict = self._ask(route, peeked) if decides else _NO
            if verdict is _MATCH:
                facts = self._facts(plan, position, peeked)
                return Decision(routes[position], facts, self.answered)
            if verdict is _NEED_MORE and not last:
                self._position = position
                return None
            position += 1
        self._position = end
        return Decision(None, self._facts(plan, end, peeked), self.answered)

    def _facts(self, plan: Plan[R], decided: int, peeked: Peeked) -> dict[str, str]:
        """Collect the facts, and the dry-run route that would have been first."""
        # Facts of later routes are not read just for the log.
        facts = _learnt(plan.learners, decided, peeked)
        for position in plan.dry_runs:
            route = plan.routes[position]
            if position >= decided:
                break
            if self._serves(route) and self._ask(route, peeked) is Verdict.MATCH:
                self._detector.would_have_taken[route.name] += 1
                self._detector.would_take(route)
                facts["dry_run"] = route.name
                break
        return facts

    def _serves(self, route: R) -> bool:
        return (
            route.clients.serves(self._client)
            and (route.client_cert is None or route.client_cert.holds(self._certificate))
            and (not route.during or serves_at(route, self._now))
        )

    def _ask(self, route: R, peeked: Peeked) -> Verdict:
        result = _NO
        for alternative in route.alternatives:
            if id(alternative) in self._broken:
                continue
            try:
                verdict = alternative.predicate(peeked)
                if alternative.negated:
                    verdict = _NEGATED[verdict]
            except Exception:  # noqa: BLE001 - a plugin's bug must not become this client's
                self._give_up_on(route, alternative)
                continue
            if verdict is _MATCH:
                return verdict
            if verdict is _NEED_MORE:
                result = verdict
        return result

    def _give_up_on(self, route: R, alternative: AlternativeLike) -> None:
        self._broken.add(id(alternative))
        self._detector.report(route, alternative)


@attrs.define(eq=False)
class Detection(_RouteScan[R]):
    """Scans the routes for one client of TCP."""

    def feed(self, data: bytes) -> Decision[R] | None:
        """Decide by all bytes so far, at least one; ``None`` if more are needed."""
        limit = self._detector.peek_limit
        if self._plan is None:
            self._plan = self._detector.plan(data[0])
        if self._plan.exchanges:
            decision = self._resolve_exchanges(self._plan, data[:limit])
            if decision is not None:
                return decision
        self._peeked = Peeked(data[:limit], self._peeked)
        return self._resolve(self._plan, self._peeked, last=len(data) >= limit)

    def _resolve_exchanges(self, plan: Plan[R], data: bytes) -> Decision[R] | None:
        """Find which requests have to be answered, each as if no byte had come after it."""
        seen = len(self._peeked) if self._peeked is not None else 0
        ends: set[int] = set()
        whole = Peeked(data, self._peeked)
        for find in plan.exchanges:
            with contextlib.suppress(Exception):  # without its requests, none is answered
                ends.update(itertools.accumulate(len(exchange.request) for exchange in find(whole)))
        for end in sorted(ends):
            if seen < end <= len(data):
                self._peeked = Peeked(data[:end], self._peeked)
                decision = self._resolve(plan, self._peeked, last=False)
                if decision is not None:
                    return decision
                self._answer(plan, self._peeked)
        return None

    def _answer(self, plan: Plan[R], peeked: Peeked) -> None:
        """Record an answer, if a route wants it that can still win, before any that matches."""
        count = len(self.answered)
        for position in range(self._position, len(plan.routes)):
            route = plan.routes[position]
            if route.dry_run or not self._serves(route):
                continue
            verdict = self._ask(route, peeked)
            if verdict is _MATCH:
                return
            if verdict is _NEED_MORE:
                for find in plan.conversing.get(position, ()):
                    exchanges = tuple(find(peeked))
                    if len(exchanges) == count + 1 and exchanges[:count] == self.answered:
                        self.answered = exchanges
                        return


@attrs.define(eq=False)
class FlowDetection(_RouteScan[R]):
    """Scans the routes for one client of UDP, whose first datagrams are held until there is a decision."""

    _seen: int = attrs.field(default=0, init=False)
    ignored: int = attrs.field(default=0, init=False)  # keepalives, which do not count

    def feed(self, datagrams: Sequence[bytes]) -> Decision[R] | None:
        """Look at what the client has sent, one datagram after the other, however many have come at once.

        An empty first datagram leads to a route that takes anything (RFC 867 and 868 require it). If no route takes the
        datagrams by which a client keeps its address open, the next datagram counts as the first. Otherwise, with
        `MOST_DATAGRAMS`, or with as many bytes as the limit, there is a decision.
        """
        for count in range(self._seen + 1, len(datagrams) + 1):
            self._seen = count
            received = tuple(datagrams[self.ignored : count])
            decision = self._feed_all(received)
            if decision is None:
                continue
            if (
                decision.route is not None
                or not is_keepalive_only(received)
                or not self.has_routes_for_client()
            ):
                return decision
            self.ignored, self._plan, self._peeked, self._position = count, None, None, 0
        return None

    def _feed_all(self, datagrams: tuple[bytes, ...]) -> Decision[R] | None:
        if self._plan is None:
            self._plan = self._detector.plan(datagrams[0][0] if datagrams[0] else None)
        earlier = self._peeked
        assert earlier is None or isinstance(earlier, Datagrams)  # noqa: S101
        self._peeked = peeked = Datagrams(datagrams, earlier)
        last = is_limit_reached(datagrams, self._detector.peek_limit)
        return self._resolve(self._plan, peeked, last=last)


def is_limit_reached(datagrams: Sequence[bytes], peek_limit: int) -> bool:
    return len(datagrams) >= MOST_DATAGRAMS or sum(map(len, datagrams)) >= peek_limit


def is_keepalive_only(datagrams: Iterable[bytes]) -> bool:
    # SIP phones keep their address open by CR and LF, others by NUL or nothing.
    return not any(datagram.strip(b"\r\n\0") for datagram in datagrams)


_MATCH, _NO, _NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE
_FACT = re.compile(r"[^A-Za-z0-9_.-]")  # not allowed in the name of a fact
_fact_name = functools.lru_cache(maxsize=256)(functools.partial(_FACT.sub, "_"))
_NEGATED = {_MATCH: _NO, _NO: _MATCH, _NEED_MORE: _NEED_MORE}


def serves_at(route: RouteLike, now: float | None) -> bool:
    if not route.during:
        return True
    return now is not None and any(period.covers(now) for period in route.during)


def _learnt(
    learners: Iterable[tuple[int, Callable[[Peeked], Mapping[object, object]]]],
    decided: int,
    peeked: Peeked,
) -> dict[str, str]:
    """Collect the facts that predicates see, up to the position of the route that won."""
    facts: dict[str, str] = {}
    for position, learnt in learners:
        if position > decided:
            break
        try:
            for name, value in learnt(peeked).items():
                facts[_fact_name(str(name))] = str(value)
        except Exception:  # nosec B110  # noqa: BLE001, S110 - facts are worth no connection
            pass
    return facts
