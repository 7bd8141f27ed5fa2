"""Narrows the routes to ask, by the first byte and by the name that a client asks for."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

from txmux.detection.ranked import Cut, ListChange, RanksByKey

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


class Plan(Generic[R]):
    """The routes that streams with the same first byte can match, in their order.

    Attributes:
        routes: Those routes, and `ranks` has their ranks.
        dry_runs: The ranks of routes that only count clients.
        conversing: Functions that find the requests which a route needs to have answered, by its rank.
        exchanges: All these functions.
        keyed: For each route, whether its names can rule it out before it is tried; see `named`.
        plain: For each route its predicate, if that alone answers for it, whatever the client's address and the name
            that it asks for. Most routes are so, and take the fast path.
        unconditional: The same of routes with several predicates, one of which has to match.
    """

    def __init__(self) -> None:
        self.ranks: list[int] = []
        self.routes: list[R] = []
        self.dry_runs: list[int] = []
        self.conversing: dict[int, list[Finder]] = {}
        self.exchanges: dict[Finder, int] = {}  # with the number of the routes that need it
        self.keyed = bytearray()
        self.unconditional: list[list[Predicate] | None] = []
        self.plain: list[Predicate | None] = []
        self.learners_by_winner: dict[int, tuple[Learner, ...]] = {}
        self._learners: dict[object, Learner] = {}  # by the kind of a predicate
        self._ranks_by_kind: RanksByKey[object] = RanksByKey()
        self._readers: dict[Reader, int] = {}  # with the number of the keys that are read so
        self._index: _KeyIndex | None = None

    def changed(self, change: ListChange[R]) -> Generator[None, None, Plan[R]]:
        """Make the plan of changed routes in steps."""
        made = self._copy()
        yield
        cuts = yield from change.cuts(self.ranks)
        for start, stop, _ in cuts:
            for position in range(start, stop):
                made._forget(self.ranks[position], self.routes[position])
                yield
        for rank, route in change.new:
            made._add(rank, route)
            yield
        made._ranks_by_kind.finish()
        for start, stop, new in cuts:
            made.ranks[start:stop] = [rank for rank, _ in new]
            made.routes[start:stop] = [route for _, route in new]
        yield
        before = None if self._index is None else self._index.read
        reader = made._choose_reader(before)
        if reader is not None:
            made._index = _KeyIndex(reader, self._index if reader is before else None)
        if reader is before:
            yield from made._enter_instead(self, cuts)
        else:
            yield from made._enter(0, 0, [*zip(made.ranks, made.routes, strict=True)])
        if made._index is not None:
            made._index.finish()
        return made

    def _copy(self) -> Plan[R]:
        made: Plan[R] = Plan()
        made.ranks, made.routes = self.ranks.copy(), self.routes.copy()
        made.dry_runs, made.conversing = self.dry_runs.copy(), self.conversing.copy()
        made.exchanges, made._readers = self.exchanges.copy(), self._readers.copy()
        made._learners, made._ranks_by_kind = self._learners.copy(), RanksByKey(self._ranks_by_kind)
        return made

    def _add(self, rank: int, route: R) -> None:
        if route.dry_run:
            insort(self.dry_runs, rank)
        for kind, learnt in _learners_of(route):
            self._learners.setdefault(kind, learnt)
            self._ranks_by_kind.add(kind, rank)
        if finders := _exchanges(route):
            self.conversing[rank] = finders
            for find in {*finders}:
                self.exchanges[find] = self.exchanges.get(find, 0) + 1
        for key in _keys(route):
            self._readers[key.read] = self._readers.get(key.read, 0) + 1

    def _forget(self, rank: int, route: R) -> None:
        if route.dry_run:
            self.dry_runs.remove(rank)
        for kind, _ in _learners_of(route):
            self._ranks_by_kind.remove(kind, rank)
            if not self._ranks_by_kind.get(kind):
                self._learners.pop(kind, None)
        for find in {*self.conversing.pop(rank, ())}:
            _decrease(self.exchanges, find)
        for key in _keys(route):
            _decrease(self._readers, key.read)

    def _choose_reader(self, before: Reader | None) -> Reader | None:
        """Return what reads the name by which most routes differ; None if these are few."""
        most = max(self._readers.values(), default=0)
        if most < _WORTH_AN_INDEX:
            return None
        if before is not None and self._readers.get(before) == most:
            return before
        return next(reader for reader, count in self._readers.items() if count == most)

    def _enter_instead(
        self, before: Plan[R], cuts: Iterable[Cut[R]]
    ) -> Generator[None, None, None]:
        self.keyed, self.plain = before.keyed[:], before.plain.copy()
        self.unconditional = before.unconditional.copy()
        for start, stop, new in cuts:
            for position in range(start, stop):
                if self._index is not None and before.keyed[position]:
                    self._index.remove(before.ranks[position], before.routes[position])
                    yield
            yield from self._enter(start, stop, new)

    def _enter(
        self, start: int, stop: int, new: Sequence[tuple[int, R]]
    ) -> Generator[None, None, None]:
        keyed, unconditional = bytearray(), []
        for rank, route in new:
            is_keyed = self._index is not None and self._index.add(rank, route)
            keyed.append(is_keyed)
            unconditional.append(None if is_keyed else _unconditional_predicates(route))
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

    def named(self, peeked: Peeked) -> Sequence[int] | None:
        """Return the ranks of the `keyed` routes that the name in these bytes leaves; ``None`` while it is not known."""
        try:
            return None if self._index is None else self._index.named(peeked)
        except Exception:  # noqa: BLE001 - a plugin's reader that raises rules out no route
            return None

    def next(self, position: int, named: Sequence[int]) -> int:
        """Return the next position worth trying from a `keyed` route on, if all before it are NO; `named` are those that the name leaves."""
        end = self.keyed.find(0, position)
        if end < 0:
            end = len(self.keyed)
        at = bisect_left(named, self.ranks[position])
        return end if at == len(named) else min(end, bisect_left(self.ranks, named[at]))


class _KeyIndex:
    """Finds, among many routes that differ by a name, those that a name may match."""

    def __init__(self, read: Reader, before: _KeyIndex | None = None) -> None:
        self.read = read
        self._exact: RanksByKey[str] = RanksByKey(None if before is None else before._exact)
        self._under: RanksByKey[str] = RanksByKey(None if before is None else before._under)
        # That there ever was.
        self._longest: int = 0 if before is None else before._longest

    def add(self, rank: int, route: RouteLike) -> bool:
        """Enter a route; return whether it goes by such a name."""
        keys = _keys(route)
        if not keys or any(key.read is not self.read for key in keys):
            return False
        for key in keys:
            for name in key.exact:
                self._exact.add(name, rank)
            for name in key.under:
                self._under.add(name, rank)
                self._longest = max(self._longest, len(name))
        return True

    def remove(self, rank: int, route: RouteLike) -> None:
        for key in _keys(route):
            for name in key.exact:
                self._exact.remove(name, rank)
            for name in key.under:
                self._under.remove(name, rank)

    def finish(self) -> None:
        self._exact.finish()
        self._under.finish()

    def named(self, peeked: Peeked) -> Sequence[int] | None:
        name = self.read(peeked)
        if name is None:
            return None
        ranks = self._exact.get(name)
        if self._under:
            # A client may send a name of many thousand labels, of which only the last can be known.
            at = name.find(".", max(0, len(name) - self._longest - 1))
            while at >= 0:
                below = self._under.get(name[at + 1 :])
                if below:
                    ranks = sorted({*ranks, *below})
                at = name.find(".", at + 1)
        return ranks


def first_bytes(route: RouteLike) -> frozenset[int] | None:
    """Return the bytes that a stream which matches a route can begin with; ``None`` is any."""
    allowed: frozenset[int] = frozenset()
    for alternative in route.alternatives:
        first: frozenset[int] | None = _declared(alternative.predicate, "first_bytes")
        if alternative.negated or first is None:
            return None
        allowed |= first
    return allowed


def _unconditional_predicates(route: RouteLike) -> list[Predicate] | None:
    limited = route.clients.limited or route.client_cert or route.during or route.dry_run
    if limited or any(alternative.negated for alternative in route.alternatives):
        return None
    return [alternative.predicate for alternative in route.alternatives]


def _keys(route: RouteLike) -> list[NameKey]:
    keys = []
    for alternative in route.alternatives:
        key: NameKey | None = _declared(alternative.predicate, "key")
        if alternative.negated or key is None:
            return []
        keys.append(key)
    return keys


def _learners_of(route: RouteLike) -> Iterator[tuple[object, Learner]]:
    for alternative in route.alternatives:
        learnt = _declared(alternative.predicate, "learnt")
        if learnt is None:
            continue
        # A method is one kind for each class; matchers may share a class but differ in a function.
        function = getattr(learnt, "__func__", None)
        # A predicate that looks for a name may learn more.
        named = _declared(alternative.predicate, "named")
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
    declared = [_declared(alternative.predicate, "exchanges") for alternative in route.alternatives]
    return [find for find in declared if find is not None]


def declared_functions(route: RouteLike, name: str) -> Iterator[Callable[..., Any]]:
    """Yield the functions of a name that the predicates of a route declare."""
    for alternative in route.alternatives:
        function = _declared(alternative.predicate, name)
        if function is not None:
            yield function


def _decrease(counts: dict[Any, int], key: object) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]


def _declared(predicate: Predicate, name: str) -> Any:
    """Return an optional attribute of a predicate; ``None`` also if a plugin raises."""
    try:
        return getattr(predicate, name, None)
    except Exception:  # noqa: BLE001 - no plugin may cost other routes their clients
        return None
