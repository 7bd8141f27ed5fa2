"""A route: which clients are led to which backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.rules.model.clients import EVERY_CLIENT, Clients
from txmux.rules.model.listener import Listener
from txmux.rules.model.section import NOWHERE

if TYPE_CHECKING:
    from txmux.interfaces import Predicate
    from txmux.rules.model.backend import Outcome
    from txmux.rules.model.period import Period
    from txmux.rules.model.section import Section
    from txmux.rules.model.tls import TlsEnd

__all__ = ["Alternative", "Route"]


@attrs.frozen
class Alternative:
    """One ``match =`` line: ``[not] MATCHER [option=value]…``.

    Attributes:
        text: The line as written.
        predicate: What the matcher made of it.
        negated: Whether ``not`` stands before it.
    """

    text: str
    predicate: Predicate
    negated: bool = False


@attrs.frozen
class Route:
    """What leads a client to a backend. Any alternative that matches is enough.

    Attributes:
        name: Its name in the file.
        alternatives: The ``match =`` lines, at least one.
        outcome: Where it leads. If it ends TLS, only those that no route under it takes, or that say nothing inside
            of TLS; ``None`` is then where the listener leads such clients.
        clients: ``from =`` and ``not_from =``: whom it serves.
        during: The only times at which it serves anyone, of which one is enough; empty is always.
        terminate_tls: The TLS that it ends; ``None`` is none. What the routes under it are asked of is inside.
        under: Names of the listeners, and of routes that end TLS, that it belongs to; empty is every listener.
        log: Whether its connections get a line in the access log.
        dry_run: Whether it only tells what it would have taken.
        section: Its section of a file; `NOWHERE` if it was made in Python.
    """

    name: str
    alternatives: tuple[Alternative, ...]
    outcome: Outcome | None
    clients: Clients = EVERY_CLIENT
    during: tuple[Period, ...] = ()
    terminate_tls: TlsEnd | None = None
    under: tuple[str, ...] = ()
    log: bool = True
    dry_run: bool = False
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)

    def stands_under(self, place: Listener | Route) -> bool:
        """Tell whether it belongs to a listener, or to a route that ends TLS."""
        # No listener has the name of such a route, if any route is under that name.
        return place.name in self.under or (not self.under and isinstance(place, Listener))
