"""The scopes of routes, which are listeners, terminated TLS and tunnels, and the clients of each as sets of addresses."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, reduce
from operator import itemgetter, or_
from zlib import crc32

from txmux.classes import frozen
from txmux.rules.installed import READ_BY_EACH
from txmux.rules.model import Clients, Listener, NetworkSet, Route, Rules

_Span = tuple[int, int]

# All clients on one line of numbers: those without an IP address, as on a UNIX socket; IPv4; IPv6; and for each place
# whose addresses are not known here, such as a country, a number that stands for them.
_START = {4: 0, 6: 1 << 32}
_PLACES = (1 << 32) + (1 << 128)
_FIRST, _END = -1, _PLACES + (1 << 32)


@frozen
class ClientSet:
    """A set of clients, as intervals without their ends: sorted, apart from each other, none empty."""

    spans: tuple[_Span, ...]

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __invert__(self) -> ClientSet:
        edges = [_FIRST, *(edge for span in self.spans for edge in span), _END]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return ClientSet(tuple(gap for gap in gaps if gap[0] < gap[1]))

    def __or__(self, other: ClientSet) -> ClientSet:
        if self is other or not other.spans:
            return self
        return ClientSet(tuple(_merged((*self.spans, *other.spans)))) if self.spans else other

    def __and__(self, other: ClientSet) -> ClientSet:
        if self is other or other is EVERYONE:
            return self
        if self is EVERYONE:
            return other
        # One of the two may be of a million networks, for each of as many routes as there are.
        few, many = sorted((self.spans, other.spans), key=len)
        both: list[_Span] = []
        for start, end in few:
            first = bisect_right(many, start, key=itemgetter(1))
            some = [*many[first : bisect_left(many, end, first, key=itemgetter(0))]]
            if some:
                some[0] = max(start, some[0][0]), some[0][1]
                some[-1] = some[-1][0], min(end, some[-1][1])
                both += some
        return ClientSet(tuple(both))

    def __sub__(self, other: ClientSet) -> ClientSet:
        if self is other:
            return NO_CLIENTS
        taken = self & other
        return self & ~taken if taken else self


@cache
def set_of(clients: Clients) -> ClientSet:
    """Return the clients that are served. Results are cached until `set_of.cache_clear()`."""
    some = EVERYONE
    if clients.allowed is not None:
        some = _of(clients.allowed) | ClientSet(tuple(_merged(_region_spans(clients.allowed))))
    # The addresses of an excluded region are not known here, so none are taken out.
    return some if clients.excluded is None else some - _of(clients.excluded)


def sure(clients: Clients) -> ClientSet:
    """Return the clients that are left to no other line: none if a place is taken out, for any of them may be there."""
    is_open = clients.excluded is not None and any(_region_spans(clients.excluded))
    return NO_CLIENTS if is_open else set_of(clients)


def _region_spans(networks: NetworkSet) -> Iterator[_Span]:
    for one in networks.dynamic:
        if one.kind in READ_BY_EACH:
            number = _PLACES + crc32(one.name.encode())
            yield number, number + 1


def _of(networks: NetworkSet) -> ClientSet:
    spans = tuple(
        _merged(
            (_START[version] + first, _START[version] + end)
            for version, first, end in networks.spans()
        )
    )
    # All addresses are those of all places.
    return WITH_ADDRESS if spans == ((0, _PLACES),) else ClientSet(spans)


def _merged(spans: Iterable[_Span]) -> Iterator[_Span]:
    """Join spans that overlap or touch."""
    ordered = sorted(spans)
    if not ordered:
        return
    start, end = ordered[0]
    for next_start, next_end in ordered[1:]:
        if next_start > end:
            yield start, end
            start, end = next_start, next_end
        else:
            end = max(end, next_end)
    yield start, end


PLACES = ClientSet(((_PLACES, _END),))
EVERYONE = ClientSet(((_FIRST, _END),))
NO_CLIENTS = ClientSet(())
WITH_ADDRESS = ClientSet(((0, _END),))


@frozen
class RouteScope:
    """What routes belong to: a listener, or a route that ends TLS or opens tunnels, and the clients that what is above lets in."""

    owner: Listener | Route
    above: ClientSet
    listeners: tuple[Listener, ...]

    @property
    def clients(self) -> ClientSet:
        # Not kept, since what thousands of routes leave of a million networks is too much.
        owner = self.owner
        if isinstance(owner, Listener):
            return self.above
        return NO_CLIENTS if owner.dry_run else self.above & set_of(owner.clients)


_Above = tuple[ClientSet, tuple[Listener, ...]]


def scopes(rules: Rules) -> tuple[RouteScope, ...]:
    """Return all scopes, each after those that it is inside."""
    allowed = [route.clients.allowed for route in rules.routes if route.clients.allowed is not None]
    # Some of a place may be in whatever networks a listener lets in.
    places = PLACES if any(any(_region_spans(one)) for one in allowed) else NO_CLIENTS
    layers = []
    for listener in rules.listeners:
        some = set_of(listener.clients)
        layers.append(RouteScope(listener, some | places if some else some, (listener,)))
    inside = {route.name: route for route in rules.routes if route.is_outer}
    outer: dict[str, list[RouteScope]] = {name: [] for name in inside}
    for layer in layers:
        _enter(layer, rules, outer)
    above: dict[tuple[str, ...], _Above] = {}  # thousands of routes are under the same ones
    while inside:
        # No route is under itself, so that there always is one whose own scopes are known.
        for name, route in list(inside.items()):
            if inside.keys().isdisjoint(route.under):
                del inside[name]
                names = tuple(scope.owner.name for scope in outer[name])
                if names not in above:
                    above[names] = _above(outer[name])
                layers.append(RouteScope(route, *above[names]))
                _enter(layers[-1], rules, outer)
    return tuple(layers)


def _enter(scope: RouteScope, rules: Rules, outer: Mapping[str, list[RouteScope]]) -> None:
    for route in rules.routes_of(scope.owner):
        if route.name in outer:
            outer[route.name].append(scope)


def _above(outer: list[RouteScope]) -> _Above:
    listeners = {listener.name: listener for scope in outer for listener in scope.listeners}
    clients = reduce(or_, (scope.clients for scope in outer), NO_CLIENTS)
    return clients, tuple(listeners.values())
