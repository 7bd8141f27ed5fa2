"""The compiled configuration of a listener: routes resolved to backends and certificates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

import attrs

from txmux.client.socket_options import socket_options
from txmux.detection.detector import Detector
from txmux.errors import MuxError
from txmux.net.sockets.plainsocket import SocketOption
from txmux.rules.model import InProcess, Listener, Route
from txmux.rules.model.networks import EVERY_CLIENT, Clients
from txmux.rules.reading.conflicts import has_handover, misplaced

if TYPE_CHECKING:
    from txmux.access.admission import Admission
    from txmux.backends.connect.dial import Dial
    from txmux.backends.upstream import Destination
    from txmux.backends.upstreams import Upstreams
    from txmux.client.io_runtime import IORuntime
    from txmux.client.tls.ech import EchKeys
    from txmux.client.tls.termination import Termination
    from txmux.client.tls.terminations import Terminations
    from txmux.client.tunnel_users import TunnelUsers
    from txmux.telemetry.counting.process_counters import ListenerCounts, RouteCounts


@attrs.frozen(eq=False)
class CompiledRoute(Route):
    """A route, with its destination and its TLS termination in this process."""

    destination: Destination | None = None
    termination: Termination | None = None
    users: TunnelUsers | None = None
    counts: RouteCounts = attrs.field(kw_only=True)


@attrs.frozen
class Silent:
    """A destination of clients that send nothing, and the time after which they count as silent."""

    destination: Destination
    clients: Clients = EVERY_CLIENT
    after: float | None = None  # seconds without a byte; ``None`` is ``detect_timeout``


@attrs.frozen(eq=False)
class RuleLayer:
    """The routes for the plain stream of clients, or for what is inside of the TLS or the tunnels of one route."""

    detector: Detector[CompiledRoute]
    silent: tuple[Silent, ...]  # the destinations of silent clients; the first that fits counts
    default: Destination  # for clients that match no route
    server_first: bool = False  # whether all clients go to `default`, without detection
    goes_by_hello: bool = attrs.field(init=False)  # whether routes look into hellos …
    restricting: tuple[CompiledRoute, ...] = attrs.field(init=False)  # … and do not take everyone
    depends_on_client: bool = attrs.field(init=False)

    @goes_by_hello.default
    def _goes_by_hello(self) -> bool:
        return bool(self.detector.hello_readers)

    @restricting.default
    def _restricting(self) -> tuple[CompiledRoute, ...]:
        return tuple(route for route in self.detector.hello_readers if route.is_restricted)

    @depends_on_client.default
    def _depends_on_client(self) -> bool:
        return self.detector.depends_on_client or any(one.clients.limited for one in self.silent)

    def silent_for(self, address: IPv4Address | IPv6Address | None) -> Silent | None:
        """Return the destination of a silent client; ``None`` if the rules do not say."""
        for silent in self.silent:
            if silent.clients.serves(address):
                return silent
        return None


@attrs.frozen(eq=False)
class Configuration:
    """A listener under one version of the rules. Each connection keeps the configuration that it was accepted under.

    Upstreams and terminations belong to the process, and are found by their settings. So configurations before and after a
    reload share those that have not changed.
    """

    settings: Listener
    admission: Admission
    options: Sequence[SocketOption]  # of the clients' sockets and of the servers'
    dial: Dial
    top: RuleLayer  # the layer in which detection begins
    inside: Mapping[str, RuleLayer]  # by the name of the route that they are under
    counts: ListenerCounts
    version: int = 1  # the version of the rules, counted from 1
    hands_over: bool = False  # whether sockets of clients may be handed over
    ech: EchKeys | None = None
    plain: Configuration | None = None  # the same without the routes for ACME challenges

    @classmethod
    def make(
        cls,
        routes: Iterable[Route],
        settings: Listener,
        admission: Admission,
        runtime: IORuntime,
        upstreams: Upstreams,
        terminations: Terminations,
        version: int = 1,
    ) -> Configuration:
        """Compile the routes of a listener, and those inside their TLS.

        Raises:
            MuxError: A backend or a certificate cannot be used.
        """
        known, counters = tuple(routes), runtime.counters
        admission.banned = runtime.banned
        if runtime.shared is not None and admission.per_source is not None:
            admission.per_source.shared = runtime.shared.leases_of(settings.name)

        def compiled(route: Route) -> CompiledRoute:
            fields: dict[str, Any] = attrs.asdict(route, recurse=False)
            return CompiledRoute(
                **fields,
                destination=None
                if route.outcome is None
                else upstreams.destination_of(route.outcome),
                termination=terminations.termination_of(route) if route.terminate_tls else None,
                users=_users_of(route),
                counts=counters.route(settings.name, route.name),
            )

        def detector(outer: Listener | Route) -> Detector[CompiledRoute]:
            under = (route for route in known if route.stands_under(outer))
            own = [
                compiled(found) for one in under if (found := one.for_transport(settings.transport))
            ]
            return Detector(
                own, settings.peek_limit, lambda route: route.counts.would_have_matched()
            )

        silent = tuple(
            Silent(upstreams.destination_of(line.outcome), line.clients, line.after)
            for line in settings.silent
        )
        default = upstreams.destination_of(settings.default)
        top = RuleLayer(detector(settings), silent, default, settings.first == "server")
        inside: dict[str, RuleLayer] = {}
        waiting = [top]
        for layer in waiting:
            for route in layer.detector.routes:
                if route.is_outer and route.name not in inside:
                    to = route.destination
                    inside[route.name] = RuleLayer(
                        detector(route), (Silent(to),) if to else silent, to or default
                    )
                    waiting.append(inside[route.name])
        options = socket_options(settings)
        dial = partial(runtime.dial, options=options)
        counts = counters.listener(settings.name)
        destinations = [top.default, *(line.destination for line in top.silent)]
        destinations += [route.destination for route in top.detector.routes if route.destination]
        hands_over = has_handover(destinations)
        if hands_over:
            runtime.check_handing_off()
            # The parser has not checked rules that were made in Python.
            for problem in misplaced([settings], known):
                raise MuxError(f"[{settings.name}] {problem.message}")
        made = settings, admission, options, dial, top, inside, counts, version, hands_over
        return cls(*made, ech=terminations.ech_of(settings))

    @property
    def layers(self) -> list[RuleLayer]:
        return [self.top, *self.inside.values()]

    @property
    def in_process(self) -> list[InProcess]:
        """The in-process protocols of all routes, with repetitions."""
        outcomes: list[object] = [
            route.outcome for layer in self.layers for route in layer.detector.routes
        ]
        outcomes += [line.outcome for line in self.settings.silent]
        outcomes.append(self.settings.default)
        return [outcome for outcome in outcomes if isinstance(outcome, InProcess)]

    @property
    def dry_runs(self) -> list[tuple[str, int]]:
        return [found for layer in self.layers for found in layer.detector.would_have_taken.items()]


def _users_of(route: Route) -> TunnelUsers | None:
    if route.tunnel_users is None:
        return None
    from txmux.client.tunnel_users import TunnelUsers  # noqa: PLC0415 - for few rules

    return TunnelUsers(route.name, route.tunnel_users)
