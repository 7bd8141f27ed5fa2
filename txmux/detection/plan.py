"""Narrows the routes to ask, by the first byte and by the name that a client asks for."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from txmux.detection.name_index import NameIndex
from txmux.detection.ranked import Cut, ListChange, RanksByKey
from txmux.errors import PLUGIN_ERRORS

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from txmux.interfaces import Exchange, NameKey, Peeked, Predicate

_WORTH_AN_INDEX = 8


class AlternativeLike(Protocol):
    """A ``match =`` line as detection needs it; its text is for messages."""

    @property
    def text(self) -> str: ...

    @property
    def predicate(self) -> Predicate: ...

    @property
    def negated(self) -> bool: ...


class ClientsLike(Protocol):
    """A set of clients; the address is ``None`` for a client without one."""

    @property
    def limited(self) -> bool: ...

    def excludes(self, address: IPv4Address | IPv6Address | None, /) -> bool: ...

    def serves(self, address: IPv4Address | IPv6Address | None, /) -> bool: ...


class CertificatesLike(Protocol):
    """A set of client certificates; ``None`` is a client that was not asked for one."""

    def holds(self, found: Any, /) -> bool: ...


class ServingTimes(Protocol):
    """A set of moments, in seconds since 1970."""

    def covers(self, moment: float, /) -> bool: ...


class RouteLike(Protocol):
    """A route as detection needs it."""

    @property
    def name(self) -> str: ...

    @property
    def alternatives(self) -> Sequence[AlternativeLike]: ...

    @property
    def clients(self) -> ClientsLike: ...

    @property
    def client_cert(self) -> CertificatesLike | None: ...

    @property
    def during(self) -> Sequence[ServingTimes]: ...

    @property
    def dry_run(self) -> bool: ...


R = TypeVar("R", bound=RouteLike)
Learner: TypeAlias = "Callable[[Peeked], Mapping[object, object]]"
"""Returns the facts that a predicate sees."""
Finder: TypeAlias = "Callable[[Peeked], Sequence[Exchange]]"
"""Finds the requests that are to be answered."""
Reader: TypeAlias = "Callable[[Peeked], str | None]"
"""Reads the name that a client asks for."""
Beginnings: TypeAlias = "frozenset[frozenset[int]]"
"""The sets of first bytes, of those that predicates declare, that a byte is in; what lines can match follows from it."""


class Plan(Generic[R]):
    """The routes that streams with the same first byte can match, in their order.

    Attributes:
        routes: Those routes, and `ranks` has their ranks.
        dry_runs: The ranks of routes that only count clients, by whether these may be found by their names.
        conversing: Functions that find the requests which a route needs to have answered, by its rank.
        exchanges: All these functions.
        keyed: For each route, whether its names can rule it out before it is tried; see `named`. Only lines that can match a
            stream with that byte count: a route of one name often has a line for each protocol.
        plain: For each route its predicate, if that alone answers for it, whatever the client's address and the name
            that it asks for. Most routes are so, and take the fast path.
        unconditional: The same of routes with several predicates, one of which has to match.
    """

    def __init__(self, begins: Beginnings = frozenset()) -> None:
        self._begins = begins
        self.ranks: list[int] = []
        self.routes: list[R] = []
        self.dry_runs: RanksByKey[bool] = RanksByKey()
        self.conversing: dict[int, list[Finder]] = {}
        self.exchanges: dict[Finder, int] = {}  # with the number of the routes that need it
        self.keyed = bytearray()
        self.unconditional: list[list[Predicate] | None] = []
        self.plain: list[Predicate | None] = []
        self.learners_by_winner: dict[int, tuple[Learner, ...]] = {}
        self._learners: dict[object, Learner] = {}  # by the kind of a predicate
        self._ranks_by_kind: RanksByKey[object] = RanksByKey()
        self._by_name = 0  # the number of routes that go by names alone
        self._indexes: dict[Reader, NameIndex[Conditions]] = {}

    def changed(self, change: ListChange[R], begins: Beginnings) -> Generator[None, None, Plan[R]]:
        """Make the plan of changed routes in steps."""
        made = self._copy(begins)
        yield
        cuts = yield from change.cuts(self.ranks)
        for start, stop, _ in cuts:
            for position in range(start, stop):
                rank, route = self.ranks[position], self.routes[position]
                made._forget(rank, route, has_names=bool(self._keys(route)))
                yield
        for rank, route in change.new:
            made._add(rank, route)
            yield
        made._ranks_by_kind.finish()
        made.dry_runs.finish()
        for start, stop, new in cuts:
            made.ranks[start:stop] = [rank for rank, _ in new]
            made.routes[start:stop] = [route for _, route in new]
        yield
        if made.has_index is self.has_index:
            indexes = self._indexes.items()
            made._indexes = {read: NameIndex(index.key, index) for read, index in indexes}
            yield from made._enter_instead(self, cuts)
        else:
            yield from made._enter(0, 0, [*zip(made.ranks, made.routes, strict=True)])
        for read, index in [*made._indexes.items()]:
            if not index.finish():
                del made._indexes[read]
        return made

    def _copy(self, begins: Beginnings) -> Plan[R]:
        made: Plan[R] = Plan(begins)
        made.ranks, made.routes = self.ranks.copy(), self.routes.copy()
        made.dry_runs, made.conversing = RanksByKey(self.dry_runs), self.conversing.copy()
        made.exchanges, made._by_name = self.exchanges.copy(), self._by_name
        made._learners, made._ranks_by_kind = self._learners.copy(), RanksByKey(self._ranks_by_kind)
        return made

    def _add(self, rank: int, route: R) -> None:
        has_names = bool(self._keys(route))
        self._by_name += has_names
        if route.dry_run:
            self.dry_runs.add(has_names, rank)
        for kind, learnt in _learners_of(route):
            self._learners.setdefault(kind, learnt)
            self._ranks_by_kind.add(kind, rank)
        if finders := _exchanges(route):
            self.conversing[rank] = finders
            for find in {*finders}:
                self.exchanges[find] = self.exchanges.get(find, 0) + 1

    def _forget(self, rank: int, route: R, *, has_names: bool) -> None:
        self._by_name -= has_names
        if route.dry_run:
            self.dry_runs.remove(has_names, rank)
        for kind, _ in _learners_of(route):
            self._ranks_by_kind.remove(kind, rank)
            if not self._ranks_by_kind.get(kind):
                self._learners.pop(kind, None)
        for find in {*self.conversing.pop(rank, ())}:
            _decrease(self.exchanges, find)

    def _keys(self, route: R) -> list[NameKey]:
        """Return the names by which a route may match; none if it may match without one."""
        keys: list[NameKey] = []
        for alternative in _possible(route, self._begins):
            key: NameKey | None = optional_attribute(alternative.predicate, "key")
            if alternative.negated or key is None:
                return []
            keys.append(key)
        return keys

    def _enter_instead(
        self, before: Plan[R], cuts: Iterable[Cut[R]]
    ) -> Generator[None, None, None]:
        self.keyed, self.plain = before.keyed[:], before.plain.copy()
        self.unconditional = before.unconditional.copy()
        for start, stop, new in cuts:
            for position in range(start, stop):
                if before.keyed[position]:
                    route = before.routes[position]
                    for key in before._keys(route):
                        index = self._indexes[key.read]
                        index.remove(before.ranks[position], key, conditions_of(route))
                    yield
            yield from self._enter(start, stop, new)

    def _enter(
        self, start: int, stop: int, new: Sequence[tuple[int, R]]
    ) -> Generator[None, None, None]:
        keyed, unconditional = bytearray(), []
        for rank, route in new:
            keys = self._keys(route) if self.has_index else []
            for key in keys:
                index = self._indexes.setdefault(key.read, NameIndex(key))
                index.add(rank, key, conditions_of(route))
            keyed.append(bool(keys))
            unconditional.append(None if keys else self._unconditional_predicates(route))
            yield
        self.keyed[start:stop] = keyed
        self.unconditional[start:stop] = unconditional
        self.plain[start:stop] = [
            predicates[0] if predicates and len(predicates) == 1 else None
            for predicates in unconditional
        ]

    def learners_for(self, decided: int) -> tuple[Learner, ...]:
        """Return the functions for the facts of the routes up to the deciding one, whose own come last: what it was decided by counts."""
        found = self.learners_by_winner.get(decided)
        if found is None:
            own = {
                kind
                for route in self.routes[decided : decided + 1]
                for kind, _ in _learners_of(route)
            }
            rank = self.rank_at(decided)
            firsts = {
                kind: ranks[0]
                for kind, ranks in self._ranks_by_kind.lists.items()
                if ranks[0] <= rank
            }
            places = {
                kind: (first, place)
                for first in {*firsts.values()}
                for place, (kind, _) in enumerate(
                    _learners_of(self.routes[self.position_of(first)])
                )
                if firsts.get(kind) == first
            }
            ordered = sorted(
                firsts, key=lambda kind: (kind in own, places.get(kind, (firsts[kind], 0)))
            )
            found = tuple(self._learners[kind] for kind in ordered)
            self.learners_by_winner[decided] = found
        return found

    def position_of(self, rank: int) -> int:
        return bisect_left(self.ranks, rank)

    def rank_at(self, position: int) -> float:
        return self.ranks[position] if position < len(self.ranks) else inf

    @property
    def has_index(self) -> bool:
        return self._by_name >= _WORTH_AN_INDEX

    def named(
        self,
        peeked: Peeked,
        serves: Callable[[Conditions], bool] | None,
        *,
        by_beginnings: bool = False,
    ) -> list[Sequence[int]]:
        """Return lists of the ranks of the `keyed` routes that names in these bytes leave.

        Of those that go by a name which is not known yet, these are the ones whose conditions hold, by `serves`; none if that is
        ``None``, as no more bytes come. With `by_beginnings`, what is known of a name rules some out.
        """
        found: list[Sequence[int]] = []
        for index in self._indexes.values():
            found += index.named(peeked, serves, by_beginnings)
        return found

    def next(self, position: int, named: Iterable[Sequence[int]]) -> int:
        """Return the next position worth trying from a `keyed` route on, if all before it are NO; `named` are those that names leave."""
        end = self.keyed.find(0, position)
        if end < 0:
            end = len(self.keyed)
        rank = self.ranks[position]
        for ranks in named:
            at = bisect_left(ranks, rank)
            if at < len(ranks):
                end = min(end, bisect_left(self.ranks, ranks[at], position))
        return end

    def _unconditional_predicates(self, route: R) -> list[Predicate] | None:
        lines = [*_possible(route, self._begins)]
        if conditions_of(route) or any(line.negated for line in lines):
            return None
        return [line.predicate for line in lines]


class Conditions(NamedTuple):
    """What a route asks of a client beside its bytes."""

    clients: ClientsLike
    client_cert: CertificatesLike | None
    during: Sequence[ServingTimes]
    dry_run: bool


def conditions_of(route: RouteLike) -> Conditions | None:
    if route.clients.limited or route.client_cert or route.during or route.dry_run:
        return Conditions(route.clients, route.client_cert, route.during, route.dry_run)
    return None


def tried_one_by_one(routes: Iterable[RouteLike]) -> int:
    """Return how many of these routes no name finds, for the first byte with the most of them."""
    counts: Counter[frozenset[int] | None] = Counter()
    for route in routes:
        beginnings: list[frozenset[int] | None] = [
            None if line.negated else optional_attribute(line.predicate, "first_bytes")
            for line in route.alternatives
            if line.negated or optional_attribute(line.predicate, "key") is None
        ]
        if beginnings:
            known = [some for some in beginnings if some is not None]
            counts[frozenset().union(*known) if len(known) == len(beginnings) else None] += 1
    for_any = counts.pop(None, 0)
    by_byte = Counter[int]()
    for some, count in counts.items():
        by_byte.update(dict.fromkeys(some or (), count))
    return for_any + max(by_byte.values(), default=0)


def beginnings(route: RouteLike) -> Iterator[frozenset[int]]:
    """Yield the sets of first bytes that lines of a route declare, other than negated ones."""
    for alternative in route.alternatives:
        first: frozenset[int] | None = optional_attribute(alternative.predicate, "first_bytes")
        if first is not None and not alternative.negated:
            yield first


def can_begin(route: RouteLike, begins: Beginnings) -> bool:
    """Return whether a stream may match a route; `begins` are those of the `beginnings` of all routes that have its first byte."""
    return next(_possible(route, begins), None) is not None


def _possible(route: RouteLike, begins: Beginnings) -> Iterator[AlternativeLike]:
    for alternative in route.alternatives:
        first: frozenset[int] | None = optional_attribute(alternative.predicate, "first_bytes")
        if alternative.negated or first is None or first in begins:
            yield alternative


def _learners_of(route: RouteLike) -> Iterator[tuple[object, Learner]]:
    for alternative in route.alternatives:
        learnt = optional_attribute(alternative.predicate, "learnt")
        if learnt is None:
            continue
        # A method is one kind for each class; matchers may share a class but differ in a function.
        function = getattr(learnt, "__func__", None)
        # A predicate that looks for a name may learn more.
        named = optional_attribute(alternative.predicate, "named")
        yield (type(learnt.__self__), function, named) if function else _identity(learnt), learnt


def _identity(function: Learner) -> object:
    try:
        hash(function)
    except TypeError:
        return "unhashable", id(function)
    return function


def _exchanges(route: RouteLike) -> list[Finder]:
    if route.dry_run:
        return []
    declared = [
        optional_attribute(alternative.predicate, "exchanges") for alternative in route.alternatives
    ]
    return [find for find in declared if find is not None]


def declared_functions(route: RouteLike, name: str) -> Iterator[Callable[..., Any]]:
    """Yield the functions of a name that the predicates of a route declare."""
    for alternative in route.alternatives:
        function = optional_attribute(alternative.predicate, name)
        if function is not None:
            yield function


def _decrease(counts: dict[Any, int], key: object) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def optional_attribute(predicate: Predicate, name: str) -> Any:
    """Return an optional attribute of a predicate; ``None`` also if a plugin raises."""
    try:
        return getattr(predicate, name, None)
    except PLUGIN_ERRORS:  # no plugin may cost other routes their clients
        return None
