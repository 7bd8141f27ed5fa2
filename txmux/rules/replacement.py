"""Rules that take the place of others in a running process: what it has to make, and what it may drop. Pure."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from heapq import merge
from operator import itemgetter

import attrs

from txmux.classes import frozen
from txmux.detection.ranked import ListChange, RankedList, RanksByKey
from txmux.rules.difference import Difference, rank
from txmux.rules.model import Backend, Listener, Route, Rules

_ANYWHERE = ""
"""Stands for what a route without ``under`` is under."""


@frozen(eq=False)
class RouteTable:
    """The routes of rules by their ranks, which they keep from one version of the rules to the next, and by what they are under."""

    routes: RankedList[Route] = attrs.field(factory=RankedList)
    _under: RanksByKey[str] = attrs.field(factory=RanksByKey)

    def changed(
        self, change: ListChange[Route], removed: Iterable[Route]
    ) -> Generator[None, None, RouteTable]:
        """Make the table of changed routes, in steps; `removed` are the routes of those ranks."""
        under = RanksByKey(self._under)
        for at, route in zip(change.gone, removed, strict=True):
            for name in route.under or (_ANYWHERE,):
                under.remove(name, at)
            yield
        for at, route in change.new:
            for name in route.under or (_ANYWHERE,):
                under.add(name, at)
            yield
        under.finish()
        return RouteTable((yield from self.routes.changed(change)), under)

    @staticmethod
    def of(routes: Iterable[Route]) -> Generator[None, None, RouteTable]:
        return RouteTable().changed(ListChange.to_all(routes), ())

    def belonging_to(self, owner: Listener | Route) -> Iterator[tuple[int, Route]]:
        """Yield the routes of a listener, or of a route that ends TLS, with their ranks, in their order."""
        names = (owner.name, _ANYWHERE) if isinstance(owner, Listener) else (owner.name,)
        for at in merge(*map(self._under.get, names)):
            route = self.routes.at(at)
            if route.stands_under(owner):
                yield at, route


@frozen(eq=False)
class Replacement:
    """Rules for a process that has others.

    Attributes:
        rules: The newer ones.
        table: Their routes.
        routes: What goes, and what comes; `gone_routes` are the routes of the ranks that go.
        listeners: Those that are new or changed, `gone_listeners` their predecessors and those that go; in the same way `backends`.
        is_whole: Whether all parts go and come, those that are the same too.
    """

    rules: Rules
    table: RouteTable
    routes: ListChange[Route]
    gone_routes: Sequence[Route]
    listeners: Sequence[Listener]
    gone_listeners: Sequence[Listener]
    backends: Sequence[Backend]
    gone_backends: Sequence[Backend]
    is_whole: bool = False

    @property
    def new_routes(self) -> list[Route]:
        return [*map(itemgetter(1), self.routes.new)]

    def used(self) -> list[Backend]:
        return backends_in(self.backends, self.new_routes, self.listeners)

    def dropped(self) -> list[Backend]:
        return backends_in(self.gone_backends, self.gone_routes, self.gone_listeners)


def replace_all(new: Rules, old: Rules | None = None) -> Generator[None, None, Replacement]:
    """Return, in steps, how all of the rules take the place of all of the older ones, or of none."""
    table = yield from RouteTable.of(new.routes)
    change = ListChange((), [*zip(table.routes.ranks, new.routes, strict=True)])
    gone: tuple[Sequence[Route], Sequence[Listener], Sequence[Backend]] = (
        ((), (), ()) if old is None else (old.routes, old.listeners, [*old.backends.values()])
    )
    backends = [*new.backends.values()]
    return Replacement(
        new, table, change, gone[0], new.listeners, gone[1], backends, gone[2], is_whole=True
    )


def replace_part(
    old: Rules, table: RouteTable, difference: Difference
) -> Generator[None, None, Replacement]:
    """Return, in steps, how newer rules take the place of others, of which `table` has the routes."""
    new = difference.apply(old)
    yield
    ranked = rank(old.routes, table.routes.ranks, difference.routes)
    if ranked is None:
        return (yield from replace_all(new, old))
    _, change, gone = ranked
    yield
    names = (*difference.backends, *difference.gone_backends)
    return Replacement(
        new,
        (yield from table.changed(change, gone)),
        change,
        gone,
        [one for splice in difference.listeners for one in splice.items],
        [one for some in difference.listeners for one in old.listeners[some.start : some.stop]],
        [*difference.backends.values()],
        [old.backends[name] for name in names if name in old.backends],
    )


def all_backends_in(rules: Rules) -> list[Backend]:
    return backends_in(rules.backends.values(), rules.routes, rules.listeners)


def owners_of_backends(rules: Rules) -> dict[str, Backend | Listener | Route]:
    """Return what has each backend, by its name: itself, or in short form the first route or listener that names it."""
    found: dict[str, Backend | Listener | Route] = {}
    outcomes: list[tuple[object, Backend | Listener | Route]] = [
        *((backend, backend) for backend in rules.backends.values()),
        *((route.outcome, route) for route in rules.routes),
        *((one, listener) for listener in rules.listeners for one in listener.outcomes),
    ]
    for first, owner in outcomes:
        outcome = first
        while isinstance(outcome, Backend):
            found.setdefault(outcome.name, owner)
            outcome = outcome.fallback
    return found


def backends_in(
    backends: Iterable[Backend], routes: Iterable[Route], listeners: Iterable[Listener]
) -> list[Backend]:
    """Return the backends that these name, once for each time; not the fallbacks of backends."""
    outcomes: list[object] = [*backends, *[route.outcome for route in routes]]
    for listener in listeners:
        outcomes += listener.outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Backend)]
