"""Where detection takes place: before any TLS is ended, and inside of TLS that a route has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.detection.detector import Detector
from txmux.rules.model import Listener

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.rules.model import Outcome, Route

__all__ = ["Level", "Levels"]


@attrs.frozen
class Level:
    """The routes that clients are told apart by at one place.

    Attributes:
        detector: Has them.
        silent: Where a client is led that says nothing.
        default: Where a client is led that none of them takes.
    """

    detector: Detector[Route]
    silent: Outcome
    default: Outcome


class Levels:
    """All levels of a listener.

    Args:
        routes: At least those that belong to the listener, and to routes of its own that end TLS, to any depth.
        settings: The listener's.

    Attributes:
        top: The first one.
    """

    def __init__(self, routes: Iterable[Route], settings: Listener) -> None:
        self._routes = tuple(routes)
        self._settings = settings
        self._inside: dict[str, Level] = {}
        self.top = Level(self._detector(settings), settings.silent, settings.default)

    def _detector(self, place: Listener | Route) -> Detector[Route]:
        everywhere = isinstance(place, Listener)
        own = [r for r in self._routes if place.name in r.under or (everywhere and not r.under)]
        return Detector(own, self._settings.peek_limit)

    def inside(self, route: Route) -> Level:
        """Give the level of a route that ends TLS; the same object each time."""
        level = self._inside.get(route.name)
        if level is None:
            top, outcome = self.top, route.outcome
            level = self._inside[route.name] = Level(
                self._detector(route),
                top.silent if outcome is None else outcome,
                top.default if outcome is None else outcome,
            )
        return level

    def all(self) -> list[Level]:
        """Give all levels that a client can come to, the first one first."""
        found, names = [self.top], set()
        for level in found:
            for route in level.detector.routes:
                if route.terminate_tls is not None and route.name not in names:
                    names.add(route.name)
                    found.append(self.inside(route))
        return found
