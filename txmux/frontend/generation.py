"""What connections need of the rules under which they were accepted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from txmux.detection.detector import Detector
from txmux.rules.model import InProcess, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.backends.connect.dial import Dial
    from txmux.backends.upstream import Destination, Upstreams
    from txmux.frontend.engine import Engine
    from txmux.frontend.limits.admission import Admission
    from txmux.rules.model import Listener
    from txmux.tls.termination import Termination, Terminations

__all__ = ["Branch", "Generation", "Level"]


@attrs.frozen(eq=False)
class Branch(Route):
    """A route, with the backend and the TLS of this process that it names.

    Attributes:
        destination: Where it leads; ``None`` if it says nothing of that.
        termination: What ends its TLS.
    """

    destination: Destination | None = None
    termination: Termination | None = None


@attrs.frozen(eq=False)
class Level:
    """The routes that clients are told apart by, before any TLS is ended, or inside of TLS that a route has ended.

    Attributes:
        detector: Has them.
        silent: Where a client is led that says nothing.
        default: Where a client is led that none of them takes.
    """

    detector: Detector[Branch]
    silent: Destination
    default: Destination


@attrs.frozen(eq=False)
class Generation:
    """What one listener is under one version of the rules. A connection keeps the one it was accepted under.

    All look-ups are made when the generation is: upstreams and terminations are found by what the rules say of them,
    so that the next generation finds those that have not changed.

    Attributes:
        settings: The listener's.
        admission: Decides who may come in.
        dial: Connects to a server.
        top: Where detection begins.
        inside: Where it goes on inside of TLS, by the name of the route that has ended that.
    """

    settings: Listener
    admission: Admission
    dial: Dial
    top: Level
    inside: Mapping[str, Level]

    @classmethod
    def make(
        cls,
        routes: Iterable[Route],
        settings: Listener,
        admission: Admission,
        engine: Engine,
        upstreams: Upstreams,
        terminations: Terminations,
    ) -> Generation:
        """Make one.

        Args:
            routes: At least those that belong to the listener, and to routes of its own that end TLS, to any depth.
            settings: The listener's.
            admission: Decides who may come in.
            engine: Connects.
            upstreams: Has the backends.
            terminations: Ends TLS.

        Raises:
            MuxError: A backend cannot be used, or files for TLS.
        """
        known = tuple(routes)

        def branch(route: Route) -> Branch:
            words: dict[str, Any] = attrs.asdict(route, recurse=False)
            return Branch(
                **words,
                destination=None if route.outcome is None else upstreams.to(route.outcome),
                termination=terminations.of(route) if route.terminate_tls else None,
            )

        def detector(place: Listener | Route) -> Detector[Branch]:
            own = [branch(route) for route in known if route.stands_under(place)]
            return Detector(own, settings.peek_limit)

        silent, default = upstreams.to(settings.silent), upstreams.to(settings.default)
        top = Level(detector(settings), silent, default)
        inside: dict[str, Level] = {}
        waiting = [top]
        for level in waiting:
            for route in level.detector.routes:
                if route.termination is not None and route.name not in inside:
                    to = route.destination
                    inside[route.name] = Level(detector(route), to or silent, to or default)
                    waiting.append(inside[route.name])
        dial = partial(engine.dial, keepalive=settings.keepalive)
        return cls(settings, admission, dial, top, inside)

    @property
    def levels(self) -> list[Level]:
        """All levels that a client can come to, the first one first."""
        return [self.top, *self.inside.values()]

    @property
    def in_process(self) -> list[InProcess]:
        """What routes lead to that is in this process; each as often as it is led to."""
        to: list[object] = [
            route.outcome for level in self.levels for route in level.detector.routes
        ]
        to += [self.settings.silent, self.settings.default]
        return [outcome for outcome in to if isinstance(outcome, InProcess)]

    @property
    def dry_runs(self) -> list[tuple[str, int]]:
        """The routes that only tell what they would have taken, and how many connections that is."""
        return [found for level in self.levels for found in level.detector.would_have_taken.items()]
