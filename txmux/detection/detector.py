"""Chooses the route of a client by its first bytes; sans I/O.

The first route in file order that is not ``NO`` decides, and the client waits while that route needs more bytes. So the same
bytes always match the same route, however the network segments them; see "The promise" in the rules reference.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from itertools import chain
from math import inf
from operator import itemgetter
from typing import Any, Generic

import attrs
from twisted.logger import Logger

from txmux.classes import define
from txmux.detection.plan import (
    AlternativeLike,
    Beginnings,
    Conditions,
    Plan,
    R,
    RouteLike,
    beginnings,
    can_begin,
    conditions_of,
    declared_functions,
)
from txmux.detection.ranked import Cut, ListChange, RankedList, RanksByKey, filtered, finish
from txmux.errors import PLUGIN_ERRORS
from txmux.interfaces import Datagrams, Exchange, Peeked, Verdict


@define  # frozen ones take three times as long to make
class Decision(Generic[R]):
    """The result of detection.

    Attributes:
        route: ``None`` if every route was ``NO``.
        facts: For the access log.
        answered: The requests at the beginning of the stream that have been answered during detection.
    """

    route: R | None
    facts: dict[str, str]
    answered: tuple[Exchange, ...] = ()


class Detector(Generic[R]):
    """The compiled routes of one listener, for all its connections.

    Args:
        routes: In the order of the rules file.
        peek_limit: The most bytes that matchers see.
        on_would_take: Called for each client that a dry-run route would have taken, with the route.

    Attributes:
        guards: Functions that make what judges the later datagrams of a flow, each after the rank of its first route.
        hello_readers: Those that go by what a ClientHello says, so that a second one must not say something else.
    """

    _log = Logger()

    def __init__(
        self,
        routes: Iterable[R],
        peek_limit: int = 32 * 1024,
        on_would_take: Callable[[R], object] = lambda _: None,
    ) -> None:
        self.on_would_take = on_would_take
        self.peek_limit = peek_limit
        self._list: RankedList[R] = RankedList()
        self._hello_readers: RankedList[R] = RankedList()
        # With the number of routes that have them, dry runs among them.
        self.conditions: Counter[Conditions | None] = Counter()
        self._declared: dict[str, RanksByKey[Any]] = {
            name: RanksByKey() for name in ("drops", "guard")
        }
        self._dry_runs: RankedList[R] = RankedList()
        self._plans: dict[int | None, Plan[R]] = {}
        self._plans_by_beginnings: dict[Beginnings, Plan[R]] = {}
        # With the number of lines that have it; they are looked at when there is the first client.
        self._beginnings: Counter[frozenset[int]] | None = None
        self._reported: set[str] = set()
        for _ in self._change(self, ListChange.to_all(routes)):
            pass

    def changed(
        self, change: ListChange[R], peek_limit: int, on_would_take: Callable[[R], object]
    ) -> Generator[None, None, Detector[R]]:
        """Make the detector of changed routes, in steps, with the plans that there are already."""
        made: Detector[R] = Detector((), peek_limit, on_would_take)
        yield from made._change(self, change)
        return made

    def _change(self, before: Detector[R], change: ListChange[R]) -> Generator[None, None, None]:
        ranks, items = before._list.ranks, before._list.items
        cuts = yield from change.cuts(ranks)
        gone = [
            (ranks[position], items[position])
            for start, stop, _ in cuts
            for position in range(start, stop)
        ]
        conditions = Counter(before.conditions)
        declared = {name: RanksByKey(ranks) for name, ranks in before._declared.items()}
        for sign, some in ((-1, gone), (1, change.new)):
            for rank, route in some:
                yield
                conditions[conditions_of(route)] += sign
                for name, its in declared.items():
                    for function in declared_functions(route, name):
                        (its.add if sign > 0 else its.remove)(function, rank)
        for its in declared.values():
            its.finish()
        self.conditions, self._declared = +conditions, declared
        self._list = before._list.cut(cuts)
        yield
        reading = ListChange(change.gone, (yield from filtered(change.new, reads_hello)))
        self._hello_readers = yield from before._hello_readers.changed(reading)
        dry = ListChange(change.gone, [one for one in change.new if one[1].dry_run])
        self._dry_runs = yield from before._dry_runs.changed(dry)
        self._use_lists()
        yield
        yield from self._change_plans(before, cuts, change)

    def _use_lists(self) -> None:
        self.routes, self.ranks = tuple(self._list.items), self._list.ranks
        self.hello_readers = self._hello_readers.items
        self.depends_on_client = any(its and its.clients.limited for its in self.conditions)
        self.takes_any_client = self.conditions[None] > 0
        self.would_have_taken = {route.name: 0 for route in self._dry_runs.items}
        self._drops = tuple(self._declared["drops"].lists)
        guards = self._declared["guard"].lists.items()
        self.guards = sorted(((ranks[0], guard) for guard, ranks in guards), key=itemgetter(0))

    def _change_plans(
        self, before: Detector[R], cuts: Sequence[Cut[R]], change: ListChange[R]
    ) -> Generator[None, None, None]:
        """Make the plans that there were: those that clients have needed."""
        if before._beginnings is None:
            return
        self._beginnings = before._beginnings.copy()
        for _, route in change.new:
            self._beginnings.update(beginnings(route))
            yield
        for start, stop, _ in cuts:
            for route in before._list.items[start:stop]:
                self._beginnings.subtract(beginnings(route))
                yield
        self._beginnings = +self._beginnings
        for byte, plan in [*before._plans.items()]:  # clients need others meanwhile
            yield
            begins = self._beginnings_with(byte)
            if begins not in self._plans_by_beginnings:
                may_begin = functools.partial(can_begin, begins=begins)
                new = yield from filtered(change.new, may_begin)
                own = ListChange[R](change.gone, new)
                yield
                has_changed = new or (yield from own.cuts(plan.ranks))
                self._plans_by_beginnings[begins] = (
                    (yield from plan.changed(own, begins)) if has_changed else plan
                )
            self._plans[byte] = self._plans_by_beginnings[begins]

    def _beginnings_with(self, first_byte: int | None) -> Beginnings:
        return frozenset(some for some in self._beginnings or () if first_byte in some)

    @functools.cached_property
    def _rank_by_name(self) -> Mapping[str, int]:
        names = (route.name for route in self.routes)
        return dict(zip(names, self.ranks, strict=True))

    def route_called(self, name: str) -> R | None:
        rank = self._rank_by_name.get(name)
        return None if rank is None else self._list.at(rank)

    def start_detection(
        self,
        client: IPv4Address | IPv6Address | None = None,
        now: float | None = None,
        certificate: object = None,
    ) -> Detection[R]:
        """Start detection for a client. Without `client` it is in no network, and without `now` no ``during`` holds."""
        return Detection(self, client, now, certificate)

    def may_need_answers(self, data: bytes) -> bool:
        """Return whether a client whose stream begins so may wait for an answer (such as PostgreSQL's to a request for TLS)."""
        return bool(self.plan(data[0]).exchanges)

    def decide_at_once(self, peeked: Peeked) -> Decision[R] | None:
        """Decide by the first bytes or datagram without a `Detection`, which most clients do not need; ``None`` if it is needed."""
        data = peeked.data
        plan = (self._plans.get(data[0]) or self.plan(data[0])) if data else None
        if plan is None or plan.dry_runs.lists or plan.exchanges or len(data) >= self.peek_limit:
            return None
        for position, predicates in enumerate(plan.unconditional):
            if predicates is None:
                return None
            for predicate in predicates:
                try:
                    verdict = predicate(peeked)
                except PLUGIN_ERRORS:  # the `Detection` reports it
                    return None
                if verdict is _MATCH:
                    learners = plan.learners_by_winner.get(position) or plan.learners_for(position)
                    return Decision(plan.routes[position], _collect_facts(learners, peeked))
                if verdict is not _NO:
                    return None
        return None

    def drops_last(self, peeked: Datagrams) -> bool:
        """Return whether servers drop the last of these datagrams, so that it counts as if it had not come."""
        for drops in self._drops:
            with contextlib.suppress(Exception):  # a plugin's error drops nothing
                if drops(peeked):
                    return True
        return False

    def guard(self, route: R | None, peeked: Datagrams | None) -> Any:
        """Return what judges the later datagrams of a flow that a route has taken; ``None`` if nothing that it was decided by may come again, changed."""
        decided = inf if route is None else self._rank_by_name[route.name]
        for rank, guard in self.guards:
            if rank <= decided and peeked is not None:
                with contextlib.suppress(Exception):  # a plugin's error
                    return guard(peeked)
        return None

    def plan(self, first_byte: int | None) -> Plan[R]:
        # `None` is an empty datagram.
        plan = self._plans.get(first_byte)
        if plan is None:
            if self._beginnings is None:
                self._beginnings = Counter(chain.from_iterable(map(beginnings, self.routes)))
            # There may be thousands of routes, and most first bytes have the same candidates.
            begins = self._beginnings_with(first_byte)
            plan = self._plans_by_beginnings.get(begins)
            if plan is None:
                ranked = zip(self.ranks, self.routes, strict=True)
                own = ListChange((), [one for one in ranked if can_begin(one[1], begins)])
                plan = finish(Plan[R]().changed(own, begins))
                self._plans_by_beginnings[begins] = plan
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


@define(eq=False)
class RouteScan(Generic[R]):
    """Scans the routes for one client."""

    _detector: Detector[R]
    _client: IPv4Address | IPv6Address | None = None
    _now: float | None = None
    _certificate: object = None
    _peeked: Peeked | None = None
    _plan: Plan[R] | None = attrs.field(default=None, init=False)
    _position: int = attrs.field(default=0, init=False)  # all routes of the plan before it are NO
    # Alternatives, by id, whose matcher raised, or gave no verdict.
    _broken: set[int] = attrs.field(factory=set, init=False)
    # The requests to answer before the next `feed`.
    answered: tuple[Exchange, ...] = attrs.field(default=(), init=False)

    def serves(self, route: R) -> bool:
        return self._serves(route)

    def can_decide(self) -> bool:
        return any(map(self._may_decide, self._detector.conditions))

    def has_routes_for_client(self) -> bool:
        return any(one is None or self._serves(one) for one in self._detector.conditions)

    def needs_more(self, routes: Iterable[R]) -> bool:
        """Return whether one of these routes could still take the client."""
        peeked = self._peeked
        return peeked is not None and any(
            self._serves(route) and self._evaluate(route, peeked) is _NEED_MORE for route in routes
        )

    def decide_before_bytes(self) -> Decision[R] | None:
        """Decide if no byte of the client can change the decision; ``None`` if one can."""
        for route in self._detector.routes:
            if not route.dry_run and self._serves(route):
                is_for_all = any(
                    one.text == "any" and not one.negated for one in route.alternatives
                )
                return Decision(route, {}) if is_for_all else None
        return Decision(None, {})

    def finish(self) -> Decision[R]:
        """Decide now; undecided routes count as ``NO``."""
        decision = None
        if self._plan is not None and self._peeked is not None:
            decision = self._resolve(self._plan, self._peeked, last=True)
        return decision or Decision(None, {})

    def _resolve(self, plan: Plan[R], peeked: Peeked, *, last: bool) -> Decision[R] | None:  # noqa: C901 - each client would pay for another call
        # Later routes are not evaluated while an earlier one is undecided: they could not win yet, and
        # will be evaluated with all bytes anyway.
        routes, plain, keyed = plan.routes, plan.plain, plan.keyed
        position, end = self._position, len(routes)
        named: Sequence[Sequence[int]] | None = None
        by_beginnings = False
        while position < end:
            predicate = plain[position]
            if predicate is not None:
                try:
                    verdict = predicate(peeked)
                    if verdict not in _VERDICTS:
                        raise TypeError(f"{verdict!r} is no Verdict")
                except PLUGIN_ERRORS:  # a plugin's bug must not end the connection
                    self._disable(routes[position], routes[position].alternatives[0])
                    verdict = _NO
            else:
                if keyed[position]:
                    if named is None:
                        named = plan.named(peeked, None if last else self._may_decide)
                    candidate = plan.next(position, named)
                    if candidate != position:
                        position = candidate
                        continue
                route = routes[position]
                decides = not route.dry_run and self._serves(route)
                verdict = self._evaluate(route, peeked) if decides else _NO
                if verdict is _NO and keyed[position] and not (last or by_beginnings):
                    named = plan.named(peeked, self._may_decide, by_beginnings=True)
                    by_beginnings = True
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
        """Collect the facts of the routes up to the decided one, and the dry-run route that would have won."""
        # Facts of later routes are left out: parsing for the log alone would cost too much.
        facts = _collect_facts(plan.learners_for(decided), peeked)
        for rank in (
            self._dry_runs(plan, peeked, plan.rank_at(decided)) if plan.dry_runs.lists else ()
        ):
            route = plan.routes[plan.position_of(rank)]
            if self._serves(route) and self._evaluate(route, peeked) is Verdict.MATCH:
                self._detector.would_have_taken[route.name] += 1
                self._detector.on_would_take(route)
                facts["dry_run"] = route.name
                break
        return facts

    def _dry_runs(self, plan: Plan[R], peeked: Peeked, before: float) -> list[int]:
        """Return the ranks of dry runs that these bytes may match, before the one that decides."""
        found = [*plan.dry_runs.get(False)]
        if not plan.has_index:
            found += plan.dry_runs.get(True)
        elif plan.dry_runs.get(True):
            its = {rank for ranks in plan.named(peeked, None) for rank in ranks}
            found += (rank for rank in its if plan.routes[plan.position_of(rank)].dry_run)
        return sorted(rank for rank in found if rank < before)

    def _may_decide(self, conditions: Conditions | None) -> bool:
        return conditions is None or (not conditions.dry_run and self._serves(conditions))

    def _serves(self, route: R | Conditions) -> bool:
        return (
            route.clients.serves(self._client)
            and (route.client_cert is None or route.client_cert.holds(self._certificate))
            and (not route.during or serves_at(route, self._now))
        )

    def _evaluate(self, route: R, peeked: Peeked) -> Verdict:
        result = _NO
        for alternative in route.alternatives:
            if id(alternative) in self._broken:
                continue
            try:
                verdict = alternative.predicate(peeked)
                if verdict not in _VERDICTS:
                    raise TypeError(f"{verdict!r} is no Verdict")
                if alternative.negated:
                    verdict = _NEGATED[verdict]
            except PLUGIN_ERRORS:  # a plugin's bug must not end the connection
                self._disable(route, alternative)
                continue
            if verdict is _MATCH:
                return verdict
            if verdict is _NEED_MORE:
                result = verdict
        return result

    def _disable(self, route: R, alternative: AlternativeLike) -> None:
        self._broken.add(id(alternative))
        self._detector.report(route, alternative)


@define(eq=False)
class Detection(RouteScan[R]):
    """Scans the routes for one TCP client."""

    def feed(self, data: bytes) -> Decision[R] | None:
        """Decide by all bytes so far (at least one, not just the new ones); ``None`` if more are needed."""
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
        """Find the requests to answer. Each is evaluated without the bytes after it, so that segmentation does not matter."""
        seen = len(self._peeked) if self._peeked is not None else 0
        ends: set[int] = set()
        whole = Peeked(data, self._peeked)
        for find in plan.exchanges:
            with contextlib.suppress(Exception):  # a plugin's error; its requests get no answer
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
        """Record an answer that an undecided route declares, unless an earlier route matches."""
        count = len(self.answered)
        named = plan.named(peeked, self._may_decide)
        position = self._position
        while position < len(plan.routes):
            if plan.keyed[position] and (candidate := plan.next(position, named)) != position:
                position = candidate
                continue
            route = plan.routes[position]
            decides = not route.dry_run and self._serves(route)
            verdict = self._evaluate(route, peeked) if decides else _NO
            if verdict is _MATCH:
                return
            if verdict is _NEED_MORE:
                for find in plan.conversing.get(plan.ranks[position], ()):
                    exchanges = tuple(find(peeked))
                    if len(exchanges) == count + 1 and exchanges[:count] == self.answered:
                        self.answered = exchanges
                        return
            position += 1


def reads_hello(route: RouteLike) -> bool:
    """Return whether a route goes by what a ClientHello says, so that a second one must not say something else."""
    return not route.dry_run and any(
        getattr(one.predicate, "reads_hello", False) for one in route.alternatives
    )


def cancels_apart(route: RouteLike) -> bool:
    """Return whether clients of a route cancel by connections of their own, which do not say what the route goes by."""
    return any(
        getattr(one.predicate, "cancels_apart", False) and not one.negated
        for one in route.alternatives
    )


_VERDICTS = _MATCH, _NO, _NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE
_FACT = re.compile(r"[^A-Za-z0-9_.-]")  # not allowed in the name of a fact
_fact_name = functools.lru_cache(maxsize=256)(functools.partial(_FACT.sub, "_"))
_NEGATED = {_MATCH: _NO, _NO: _MATCH, _NEED_MORE: _NEED_MORE}


def serves_at(route: RouteLike | Conditions, now: float | None) -> bool:
    if not route.during:
        return True
    return now is not None and any(period.covers(now) for period in route.during)


def _collect_facts(
    learners: Iterable[Callable[[Peeked], Mapping[object, object]]], peeked: Peeked
) -> dict[str, str]:
    """Collect the facts that predicates see; of one name, the last counts."""
    facts: dict[str, str] = {}
    for learnt in learners:
        try:
            for name, value in learnt(peeked).items():
                facts[_fact_name(str(name))] = str(value)
        except PLUGIN_ERRORS:  # nosec B110
            pass
    return facts
