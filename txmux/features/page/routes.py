"""Chooses the routes that the page shows, of which there may be very many. Pure."""

from bisect import bisect
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Any

import attrs

from txmux.classes import define
from txmux.control.rules_index import RulesIndex
from txmux.features.page.map import MOST_ROUTES, TROUBLE, RouteFlow
from txmux.features.page.query import PageQuery
from txmux.rules.model import Route
from txmux.telemetry.counting.counter_groups import RouteTotals
from txmux.telemetry.presentation import Health

_SAMPLES_APART = 2.0  # seconds between two samples
_MEASURED = 30.0  # seconds that a rate covers
_MOST_AT_ALL = 500  # routes of the map on request: more could not be read


@define
class RouteUse:
    """What a route has done, on all listeners together."""

    matches: int = 0
    dry_run_matches: int = 0
    weight: float = 0  # connections now, and bytes a second


@define
class RouteTraffic:
    """Computes the byte rates of routes from earlier totals."""

    started: float
    _samples: deque[tuple[float, Mapping[tuple[str, str], int]]] = attrs.field(
        factory=deque, init=False
    )

    def now(
        self, time: float, used: Iterable[RouteTotals]
    ) -> Generator[None, None, dict[str, dict[str, float]]]:
        """Return the bytes a second of each route by listener, both ways: over the last half minute, or since the last look before it."""
        while len(self._samples) > 1 and self._samples[1][0] <= time - _MEASURED:
            self._samples.popleft()
        before, then = self._samples[0] if self._samples else (self.started, {})
        seconds = max(time - before, 1.0)
        moved: dict[tuple[str, str], int] = {}
        rates: dict[str, dict[str, float]] = {}
        for totals in used:
            key, count = (totals.route, totals.listener), totals.bytes_in + totals.bytes_out
            moved[key] = count
            rates.setdefault(totals.route, {})[totals.listener] = (
                max(count - then.get(key, 0), 0) / seconds
            )
            yield
        if not self._samples or self._samples[-1][0] <= time - _SAMPLES_APART:
            self._samples.append((time, moved))
        return rates


def uses(
    used: Iterable[RouteTotals], traffic: Mapping[str, Mapping[str, float]]
) -> Generator[None, None, tuple[dict[str, RouteUse], dict[str, RouteFlow]]]:
    """Add up what routes have done, by their name; and what they do now, by listener."""
    by_route: dict[str, RouteUse] = {}
    by_listener: dict[str, RouteFlow] = {}
    for totals in used:
        rate, active = traffic[totals.route][totals.listener], totals.active
        of_route = by_route.setdefault(totals.route, RouteUse())
        of_route.matches += totals.matches
        of_route.dry_run_matches += totals.dry_run_matches
        of_route.weight += rate + active
        before = by_listener.get(totals.listener, RouteFlow())
        by_listener[totals.listener] = RouteFlow(before.active + active, before.traffic + rate)
        yield
    return by_route, by_listener


def shown_routes(
    index: RulesIndex,
    by_route: Mapping[str, RouteUse],
    healths: Mapping[str, Health],
    query: PageQuery,
) -> list[Route | dict[str, Any]]:
    """Return the routes of which the page shows something, in their order, and rows for those left out between them.

    They are the first, the busiest, those to a backend with trouble, and those beside the one that the page is about.
    """
    routes, places = index.rules.routes, index.positions
    most = _MOST_AT_ALL if query["map"] == "all" else MOST_ROUTES
    if len(routes) <= most:
        return [*routes]

    def busy(name: str) -> tuple[float, int, int]:
        use = by_route.get(name, RouteUse())
        return use.weight, use.matches, -places[name]

    names = {route.name for route in routes[:most]}
    names.update(nlargest(MOST_ROUTES, by_route, key=busy))
    troubled: list[tuple[int, int, str]] = []
    for rank, health in enumerate(TROUBLE):
        to = [(name, of) for of in healths if healths[of] == health for name in index.routes_to(of)]
        names.update(nlargest(MOST_ROUTES, (name for name, _ in to), key=busy))
        troubled += ((places[name], rank, of) for name, of in to)
    if chosen := index.route(query["route"]):
        names |= {chosen.name, *index.routes_under(chosen.name)}
    names |= {owner for name in names for owner in routes[places[name]].under if owner in places}
    return [*_with_gaps(routes, sorted(places[name] for name in names), sorted(troubled))]


def _with_gaps(
    routes: Sequence[Route], shown: Sequence[int], troubled: Sequence[tuple[int, int, str]]
) -> Iterable[Route | dict[str, Any]]:
    after = 0
    for place in (*shown, len(routes)):
        if place > after:
            inside = troubled[bisect(troubled, (after,)) : bisect(troubled, (place,))]
            _, worst = min(((rank, of) for _, rank, of in inside), default=(0, None))
            yield {"name": "", "backend": worst, "left_out": place - after}
        if place < len(routes):
            yield routes[place]
        after = place + 1
