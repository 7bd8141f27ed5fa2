"""Narrows the routes to ask, by the first byte and by the name that a client asks for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from txmux.interfaces import Exchange, Key, Peeked, Predicate

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


class Plan(Generic[R]):
    """The routes that streams with the same first byte can match, in their order.

    Attributes:
        learners: Functions for the facts of each kind of predicate, each after the position of its first route.
        conversing: Functions that find the requests which a route needs to have answered, by its position.
        keyed: For each route, whether its names can rule it out before it is tried; see `named`.
        plain: For each route its predicate, if that alone answers for it, whatever the client's address and the name
            that it asks for. Most routes are so, and take the fast path.
        unconditional: The same of routes with several predicates, one of which has to match.
    """

    def __init__(self, routes: Iterable[R]) -> None:
        self.routes = tuple(routes)
        self._learners = tuple(_learners(self.routes))
        self.learners = tuple((position, learnt) for position, _, learnt in self._learners)
        self.learners_by_winner: dict[int, tuple[Learner, ...]] = {}
        self.dry_runs = [n for n, route in enumerate(self.routes) if route.dry_run]
        self.conversing = _conversing(self.routes)
        self.exchanges = {*chain.from_iterable(self.conversing.values())}
        self._index = index = _index_of(self.routes)
        self.keyed = [False] * len(self.routes) if index is None else index.keyed
        self._next_other = [] if index is None else _next_false(index.keyed)
        self.unconditional = [
            None if keyed else _unconditional_predicates(route)
            for route, keyed in zip(self.routes, self.keyed, strict=True)
        ]
        self.plain = [
            predicates[0] if predicates and len(predicates) == 1 else None
            for predicates in self.unconditional
        ]

    def learners_for(self, decided: int) -> tuple[Learner, ...]:
        """Return the functions for the facts of the routes up to the deciding one, whose own come last: what it was decided by counts."""
        found = self.learners_by_winner.get(decided)
        if found is None:
            own = {
                kind for route in self.routes[decided : decided + 1] for kind, _ in _kinds(route)
            }
            before = [one for one in self._learners if one[0] <= decided]
            ordered = sorted(before, key=lambda one: one[1] in own)
            found = self.learners_by_winner[decided] = tuple(learnt for _, _, learnt in ordered)
        return found

    def named(self, peeked: Peeked) -> Collection[int] | None:
        """Return the positions of the `keyed` routes that the name in these bytes leaves; ``None`` while it is not known."""
        try:
            return None if self._index is None else self._index.named(peeked)
        except Exception:  # noqa: BLE001 - a plugin's reader that raises rules out no route
            return None

    def next(self, position: int, named: Collection[int]) -> int:
        """Return the next position worth trying from a `keyed` route on, if all before it are NO; `named` are those that the name leaves."""
        end = self._next_other[position]
        if not named:
            return end
        return next((other for other in named if position <= other < end), end)


class _KeyIndex:
    """Finds, among many routes that differ by a name, those that a name may match."""

    def __init__(self, routes: Sequence[RouteLike], read: Callable[[Peeked], str | None]) -> None:
        self._read = read
        self.keyed = [True] * len(routes)
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._under: dict[str, list[int]] = defaultdict(list)
        for position, route in enumerate(routes):
            keys = _keys(route)
            if not keys or any(key.read is not read for key in keys):
                self.keyed[position] = False
                continue
            for key in keys:
                for name in key.exact:
                    self._exact[name].append(position)
                for name in key.under:
                    self._under[name].append(position)
        self._longest = max(map(len, self._under), default=0)

    def named(self, peeked: Peeked) -> Collection[int] | None:
        name = self._read(peeked)
        if name is None:
            return None
        positions = self._exact.get(name, [])
        if self._under:
            # A client may send a name of many thousand labels, of which only the last can be known.
            at = name.find(".", max(0, len(name) - self._longest - 1))
            while at >= 0:
                parent = name[at + 1 :]
                if parent in self._under:
                    positions = sorted({*positions, *self._under[parent]})
                at = name.find(".", at + 1)
        return positions


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


def _keys(route: RouteLike) -> list[Key]:
    keys = []
    for alternative in route.alternatives:
        key: Key | None = _declared(alternative.predicate, "key")
        if alternative.negated or key is None:
            return []
        keys.append(key)
    return keys


def _index_of(routes: Sequence[RouteLike]) -> _KeyIndex | None:
    readers = [key.read for route in routes for key in _keys(route)]
    if len(readers) < _WORTH_AN_INDEX:
        return None
    [(read, count)] = Counter(readers).most_common(1)
    return _KeyIndex(routes, read) if count >= _WORTH_AN_INDEX else None


def _next_false(flags: Sequence[bool]) -> list[int]:
    """Return for each position the first one, at it or after it, whose flag is not set, or the number of flags."""
    positions, following = [0] * len(flags), len(flags)
    for position in reversed(range(len(flags))):
        if not flags[position]:
            following = position
        positions[position] = following
    return positions


def _learners(routes: Iterable[RouteLike]) -> Iterator[tuple[int, object, Learner]]:
    kinds: dict[object, object] = {}
    for position, route in enumerate(routes):
        for kind, learnt in _kinds(route):
            if kind not in kinds:
                kinds[kind] = learnt  # referenced, so that no other gets its id
                yield position, kind, learnt


def _kinds(route: RouteLike) -> Iterator[tuple[object, Learner]]:
    for alternative in route.alternatives:
        learnt = _declared(alternative.predicate, "learnt")
        if learnt is None:
            continue
        # A method is one kind for each class; matchers may share a class but differ in a function.
        function = getattr(learnt, "__func__", None)
        # A predicate that looks for a name may learn more.
        named = _declared(alternative.predicate, "named")
        yield (type(learnt.__self__), function, named) if function else id(learnt), learnt


def declared_functions(
    routes: Iterable[RouteLike], name: str
) -> Iterator[tuple[int, Callable[..., Any]]]:
    """Yield the functions that predicates declare, each once, after the position of its first route."""
    found = set()
    for position, route in enumerate(routes):
        for alternative in route.alternatives:
            function = _declared(alternative.predicate, name)
            if function is not None and function not in found:
                found.add(function)
                yield position, function


def _conversing(
    routes: Iterable[RouteLike],
) -> dict[int, list[Callable[[Peeked], Sequence[Exchange]]]]:
    conversing = {}
    for position, route in enumerate(routes):
        declared = [
            _declared(alternative.predicate, "exchanges") for alternative in route.alternatives
        ]
        exchanges = [find for find in declared if find is not None]
        if exchanges and not route.dry_run:
            conversing[position] = exchanges
    return conversing


def _declared(predicate: Predicate, name: str) -> Any:
    """Return an optional attribute of a predicate; ``None`` also if a plugin raises."""
    try:
        return getattr(predicate, name, None)
    except Exception:  # noqa: BLE001 - no plugin may cost other routes their clients
        return None
