"""The scopes of routes: listeners, and the insides of TLS that other routes end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.rules.lint.spans import NOBODY, PLACES, names_places, set_of

if TYPE_CHECKING:
    from txmux.rules.lint.spans import ClientSet
    from txmux.rules.model import Listener, Route, Rules


@attrs.frozen
class Scope:
    """What routes belong to.

    Attributes:
        owner: A listener, or a route that ends TLS.
        clients: Who may come to it.
        listeners: By which they come to it.
    """

    owner: Listener | Route
    clients: ClientSet
    listeners: tuple[Listener, ...]


def scopes(rules: Rules) -> tuple[Scope, ...]:
    """Return all scopes, each after those that it is inside of."""
    # Some of a place may be in whatever networks a listener lets in.
    places = PLACES if any(names_places(route.clients) for route in rules.routes) else NOBODY
    found = []
    for listener in rules.listeners:
        some = set_of(listener.clients)
        found.append(Scope(listener, some | places if some else some, (listener,)))
    inside = {route.name: route for route in rules.routes if route.terminate_tls}
    while inside:
        # No route is under itself, so that there always is one whose own scopes are known.
        for name, route in list(inside.items()):
            if inside.keys().isdisjoint(route.under):
                del inside[name]
                found.append(_inside(route, found))
    return tuple(found)


def _inside(route: Route, known: list[Scope]) -> Scope:
    outer = [scope for scope in known if route.stands_under(scope.owner)]
    some = NOBODY
    for scope in outer:
        some |= scope.clients & set_of(route.clients)
    listeners = {one.name: one for scope in outer for one in scope.listeners}
    return Scope(route, NOBODY if route.dry_run else some, tuple(listeners.values()))
