"""A whole rules file with all that it includes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.rules.model.backend import Backend
from txmux.rules.model.files import OPTIONS, Files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from txmux.rules.model.backend import Outcome, Server
    from txmux.rules.model.listener import Listener
    from txmux.rules.model.route import Route
    from txmux.rules.model.settings import Settings
    from txmux.transport import Transport

__all__ = ["Rules"]


@attrs.frozen
class Rules:
    """A whole rules file with all that it includes, free of errors.

    Attributes:
        path: The file that was read first.
        routes: In the order of the file, which is their priority.
        backends: Those with a ``[backend]`` section, by name; short forms are only in the routes.
        files: What they were read from; nothing if they were made in Python.
    """

    path: Path
    settings: Settings
    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    backends: dict[str, Backend] = attrs.field(factory=dict)
    files: Files = attrs.field(factory=Files, eq=False, repr=False)

    @property
    def unreadable(self) -> str:
        """Why there is nothing that they could be read from again; nothing if there is."""
        if not self.files.texts:
            return "nothing changed: the rules were made in Python"
        if str(self.path) == OPTIONS:
            return "nothing to reload: the rules are the options that the service was started with, not a file"
        return ""

    def outcomes(self) -> Iterator[Outcome]:
        """Return what routes, listeners and the fallbacks of backends lead to; some of it several times."""
        found = [route.outcome for route in self.routes if route.outcome is not None]
        for listener in self.listeners:
            found += [*(line.outcome for line in listener.silent), listener.default]
        found += [backend.fallback for backend in self.backends.values()]
        return iter(found)

    def servers(self) -> Iterator[Server]:
        """Yield every server that a connection may be led to."""
        for outcome in (*self.backends.values(), *self.outcomes()):
            if isinstance(outcome, Backend):
                yield from outcome.servers

    def routes_of(self, place: Listener | Route) -> tuple[Route, ...]:
        """Return the routes that belong to a listener, or to a route that ends TLS, in their order."""
        return tuple(route for route in self.routes if route.stands_under(place))

    def asked_of(self, place: Listener | Route, transport: Transport) -> tuple[Route, ...]:
        """Return the routes of `routes_of` with the lines that can be asked over a transport; those without any are left out."""
        found = (route.over(transport) for route in self.routes_of(place))
        return tuple(route for route in found if route is not None)
