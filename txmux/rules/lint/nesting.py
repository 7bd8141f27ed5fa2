"""The places where routes stand: listeners, and the insides of TLS that other routes end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.rules.lint.spans import NOBODY, clients

if TYPE_CHECKING:
    from txmux.rules.lint.spans import Clients
    from txmux.rules.model import Listener, Route, Rules

__all__ = ["Place", "admitted", "places"]


@attrs.frozen
class Place:
    """Where routes stand.

    Attributes:
        owner: A listener, or a route that ends TLS.
        clients: Who may come there.
        listeners: By which they come there.
    """

    owner: Listener | Route
    clients: Clients
    listeners: tuple[Listener, ...]


def admitted(listener: Listener) -> Clients:
    """Give the clients that a listener lets in."""
    return clients(listener.allow, listener.deny)


def places(rules: Rules) -> tuple[Place, ...]:
    """Give all places, each after those that it is inside of."""
    found = [Place(listener, admitted(listener), (listener,)) for listener in rules.listeners]
    inside = {route.name: route for route in rules.routes if route.terminate_tls}
    while inside:
        # No route stands under itself, so that there always is one whose own places are known.
        for name, route in list(inside.items()):
            if inside.keys().isdisjoint(route.under):
                del inside[name]
                found.append(_inside(route, found))
    return tuple(found)


def _inside(route: Route, known: list[Place]) -> Place:
    outer = [place for place in known if route.stands_under(place.owner)]
    some = NOBODY
    for place in outer:
        some |= place.clients & clients(route.allowed, route.excluded)
    listeners = {one.name: one for place in outer for one in place.listeners}
    return Place(route, NOBODY if route.dry_run else some, tuple(listeners.values()))
