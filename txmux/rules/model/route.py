"""A route: which clients are led to which backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.rules.model.backend import Backend
from txmux.rules.model.clients import EVERY_CLIENT, Clients
from txmux.rules.model.handover import Handover
from txmux.rules.model.listener import Listener
from txmux.rules.model.section import NOWHERE
from txmux.transport import Transport

if TYPE_CHECKING:
    from txmux.interfaces import Predicate
    from txmux.rules.model.backend import Outcome
    from txmux.rules.model.logged import Logged
    from txmux.rules.model.period import Period
    from txmux.rules.model.section import Section
    from txmux.rules.model.tls import TlsEnd

__all__ = ["Alternative", "Route"]


@attrs.frozen
class Alternative:
    """One ``match =`` line: ``[not] MATCHER [option=value]…``.

    Attributes:
        text: The line as written.
        predicate: What the matcher made of it. If it is for UDP only, this is asked about datagrams.
        negated: Whether ``not`` comes before it.
        datagrams: What is asked about datagrams; ``None`` if the matcher is not for UDP.
        streams: Whether the matcher is for TCP.
    """

    text: str
    predicate: Predicate
    negated: bool = False
    datagrams: Predicate | None = None
    streams: bool = True

    def over(self, transport: Transport) -> Alternative | None:
        """Return the line as it is asked under listeners of a transport; ``None`` if its matcher is not for that."""
        if transport is Transport.TCP:
            return self if self.streams else None
        if self.datagrams is None:
            return None
        return attrs.evolve(self, predicate=self.datagrams)


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
        log: Which of its connections get a line in the access log, unless the listener wants fewer.
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
    log: Logged = True
    dry_run: bool = False
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)

    def stands_under(self, place: Listener | Route) -> bool:
        """Return whether it belongs to a listener, or to a route that ends TLS."""
        # No listener has the name of such a route, if any route is under that name.
        if self.under:
            return place.name in self.under
        return isinstance(place, Listener) and self.transport in {None, place.transport}

    @property
    def transport(self) -> Transport | None:
        """What its clients come by, since TLS ends here or its servers are spoken to by that; ``None`` if it may be either."""
        if self.terminate_tls is not None or isinstance(self.outcome, Handover):
            return Transport.TCP
        return self.outcome.transport if isinstance(self.outcome, Backend) else None

    def over(self, transport: Transport) -> Route | None:
        """Return the route with the lines that are asked under listeners of a transport.

        Returns:
            The route itself, if that is all of them; ``None`` if there are none.
        """
        lines = tuple(filter(None, [one.over(transport) for one in self.alternatives]))
        if not lines:
            return None
        return self if lines == self.alternatives else attrs.evolve(self, alternatives=lines)
