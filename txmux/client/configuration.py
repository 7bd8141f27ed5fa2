"""The compiled configuration of a listener: routes resolved to backends and certificates."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from txmux.classes import frozen
from txmux.client.socket_options import socket_options
from txmux.detection.detector import Detector, cancels_apart, reads_hello
from txmux.detection.ranked import ListChange, RankedList, filtered, finish
from txmux.errors import MuxError
from txmux.net.sockets.plainsocket import SocketOption
from txmux.rules.feature import StageMaker
from txmux.rules.installed import match_makers, stage_makers
from txmux.rules.model import SHORT_FORM, Handover, InProcess, Listener, Refusal, Route
from txmux.rules.model.networks import EVERY_CLIENT, Clients
from txmux.rules.reading.conflicts import has_handover, misplaced
from txmux.rules.replacement import Replacement, RouteTable

if TYPE_CHECKING:
    from txmux.access.admission import Admission
    from txmux.backends.connect.dial import Dialler
    from txmux.backends.upstream import Destination
    from txmux.backends.upstreams import Upstreams
    from txmux.client.io_runtime import IORuntime
    from txmux.client.tls.terminator import TlsTerminator
    from txmux.client.tls.terminators import TlsTerminators
    from txmux.telemetry.counting.counter_groups import ListenerCounts, RouteCounts
    from txmux.wire.preamble import HelloOpener


@frozen(eq=False)
class CompiledRoute(Route):
    """A route, with its destination and its TLS termination in this process."""

    destination: Destination | None = None
    terminator: TlsTerminator | None = None
    stages: Sequence[StageMaker] = ()  # of features, the first that its clients pass last
    counts: RouteCounts = attrs.field(kw_only=True)


@frozen
class Silent:
    """A destination of clients that send nothing, and the time after which they count as silent."""

    destination: Destination
    clients: Clients = EVERY_CLIENT
    after: float | None = None  # seconds without a byte; ``None`` is ``detect_timeout``
    route: CompiledRoute | None = attrs.field(default=None, eq=False)


@frozen(eq=False)
class RuleLayer:
    """The routes for the plain stream of clients, or for what is inside the TLS or the tunnels of one route."""

    detector: Detector[CompiledRoute]
    silent: tuple[Silent, ...]  # the destinations of silent clients; the first that fits counts
    default: Destination  # for clients that match no route
    server_first: bool = False  # whether all clients go to `default`, without detection
    awaits_bytes: bool = False  # whatever its routes are: further ones may come
    outer: RankedList[CompiledRoute] = attrs.field(factory=RankedList)  # may have routes inside
    hello_readers: RankedList[CompiledRoute] = attrs.field(factory=RankedList)  # restricted ones
    cancelling: RankedList[CompiledRoute] = attrs.field(factory=RankedList)  # see `cancels_apart`
    silent_routes: RankedList[CompiledRoute] = attrs.field(factory=RankedList)  # before `silent`
    stages: Sequence[StageMaker] = attrs.field(init=False)  # that clients pass, or do not, first
    goes_by_hello: bool = attrs.field(init=False)  # whether routes look into hellos
    depends_on_client: bool = attrs.field(init=False)

    @goes_by_hello.default
    def _goes_by_hello(self) -> bool:
        return bool(self.detector.hello_readers)

    @stages.default
    def _stages(self) -> Sequence[StageMaker]:
        return match_makers() if self.cancelling.items else ()

    @depends_on_client.default
    def _depends_on_client(self) -> bool:
        return self.detector.depends_on_client or any(one.clients.limited for one in self.silent)

    def inside(self, route: CompiledRoute, like: RuleLayer | None = None) -> RuleLayer:
        """Return the layer inside a route of this listener: without routes, or with those of another one."""
        to, like = route.destination, like or _NO_ROUTES
        return attrs.evolve(
            like, silent=(Silent(to),) if to else self.silent, default=to or self.default
        )

    def changed(
        self, change: ListChange[CompiledRoute], peek_limit: int
    ) -> Generator[None, None, RuleLayer]:
        """Make the layer of changed routes, in steps."""
        detector = yield from self.detector.changed(
            change, peek_limit, lambda route: route.counts.would_have_matched()
        )
        outer = yield from filtered(change.new, lambda route: route.is_outer)
        readers = yield from filtered(
            change.new, lambda route: reads_hello(route) and route.is_restricted
        )
        apart = yield from filtered(change.new, cancels_apart)
        silent = yield from filtered(change.new, lambda route: route.takes_silent)
        return attrs.evolve(
            self,
            detector=detector,
            cancelling=(yield from self.cancelling.changed(ListChange(change.gone, apart))),
            outer=(yield from self.outer.changed(ListChange(change.gone, outer))),
            hello_readers=(yield from self.hello_readers.changed(ListChange(change.gone, readers))),
            silent_routes=(yield from self.silent_routes.changed(ListChange(change.gone, silent))),
        )

    def silent_for(self, address: IPv4Address | IPv6Address | None) -> Silent | None:
        """Return the line of ``silent`` for a client that no route takes; ``None`` if there is none."""
        for silent in self.silent:
            if silent.clients.serves(address):
                return silent
        return None


_NO_ROUTES = RuleLayer(Detector([]), (), Refusal.CLOSE)


@frozen(eq=False)
class Compiler:
    """Compiles the routes of a listener, in steps."""

    settings: Listener
    runtime: IORuntime
    upstreams: Upstreams
    terminators: TlsTerminators

    def top(self) -> RuleLayer:
        """Return the layer in which detection begins, without routes."""
        settings, destination_of = self.settings, self.upstreams.destination_of
        silent = tuple(
            Silent(
                destination_of(line.outcome),
                line.clients,
                line.after,
                self._compiled(Route(SHORT_FORM, (), line.outcome)),
            )
            for line in settings.silent
        )
        default = destination_of(settings.default)
        return attrs.evolve(
            _NO_ROUTES,
            silent=silent,
            default=default,
            server_first=settings.first == "server",
            awaits_bytes=bool(settings.routes_from),
        )

    def enter(
        self, layer: RuleLayer, new: Iterable[tuple[int, Route]], removed: Sequence[int] = ()
    ) -> Generator[None, None, RuleLayer]:
        """Return a layer with these routes too, and without others."""
        made = []
        for rank, route in new:
            found = route.for_transport(self.settings.transport)
            if found is not None:
                made.append((rank, self._compiled(found)))
            yield
        return (yield from layer.changed(ListChange(removed, made), self.settings.peek_limit))

    def _compiled(self, route: Route) -> CompiledRoute:
        fields: dict[str, Any] = attrs.asdict(route, recurse=False)
        outcome = route.outcome
        return CompiledRoute(
            **fields,
            destination=None if outcome is None else self.upstreams.destination_of(outcome),
            terminator=self.terminators.terminator_of(route) if route.terminate_tls else None,
            stages=stage_makers("route", route),
            counts=self.runtime.counters.route(self.settings.name, route.name),
        )


class HelloOpening(Protocol):
    """What opens inner hellos of a listener's clients, by a key of its."""

    key: str

    def reader(self, limit: int, counts: ListenerCounts | None = None) -> HelloOpener:
        """Return what looks at the first bytes of a client, at most so many; `counts` are those of its listener."""


@frozen(eq=False)
class Configuration:
    """A listener under one version of the rules. Each connection keeps the configuration that it was accepted under.

    Upstreams and TLS terminators belong to the process, and are found by their settings. So configurations before and after a
    reload share those that have not changed.
    """

    settings: Listener
    admission: Admission
    options: Sequence[SocketOption]  # of the clients' sockets and of the servers'
    dialler: Dialler  # of connections to servers
    top: RuleLayer  # the layer in which detection begins
    inside: Mapping[str, RuleLayer]  # by the name of the route that they are under
    counts: ListenerCounts
    version: int = 1  # the version of the rules, counted from 1
    hands_over: bool = False  # whether sockets of clients may be handed over
    openings: tuple[HelloOpening, ...] = ()
    stages: Sequence[StageMaker] = ()  # as those of a route
    in_process: tuple[InProcess, ...] = ()  # the protocols of all routes, with repetitions
    plain: Configuration | None = None  # the same without the routes that a feature has put before

    @classmethod
    def make(
        cls,
        routes: Iterable[Route],
        settings: Listener,
        admission: Admission,
        runtime: IORuntime,
        upstreams: Upstreams,
        terminators: TlsTerminators,
        version: int = 1,
    ) -> Configuration:
        """Compile the routes of a listener, and those inside their TLS.

        Raises:
            MuxError: A backend or a certificate cannot be used.
        """
        known = tuple(routes)
        compiler = Compiler(settings, runtime, upstreams, terminators)
        table = finish(RouteTable.of(known))
        made = finish(cls.compiled(table, compiler, admission, version))
        if made.hands_over:
            # The parser has not checked rules that were made in Python.
            for problem in misplaced([settings], known):
                raise MuxError(f"[{settings.name}] {problem.message}")
        return made

    @classmethod
    def compiled(
        cls, table: RouteTable, compiler: Compiler, admission: Admission, version: int
    ) -> Generator[None, None, Configuration]:
        """Compile all routes, in steps."""
        settings, empty = compiler.settings, compiler.top()

        def inner(route: CompiledRoute) -> Generator[None, None, RuleLayer]:
            return compiler.enter(empty.inside(route), table.belonging_to(route))

        top = yield from compiler.enter(empty, table.belonging_to(settings))
        inside = yield from _inner_layers(top, inner)
        return cls._of(compiler, admission, top, inside, version)

    def changed(
        self, replacement: Replacement, compiler: Compiler, admission: Admission, version: int
    ) -> Generator[None, None, Configuration]:
        """Make the configuration of changed rules, in steps: of routes that are the same, all is taken over."""
        settings, empty, change = compiler.settings, compiler.top(), replacement.routes
        gone = [*zip(change.gone, replacement.gone_routes, strict=True)]

        def enter(
            layer: RuleLayer, is_its: Callable[[Route], bool]
        ) -> Generator[None, None, RuleLayer]:
            new = yield from filtered(change.new, is_its)
            left = yield from filtered(gone, is_its)
            return (yield from compiler.enter(layer, new, [rank for rank, _ in left]))

        before = self.plain or self
        was = before.top
        top = yield from enter(
            attrs.evolve(
                was,
                silent=empty.silent,
                default=empty.default,
                server_first=empty.server_first,
                awaits_bytes=empty.awaits_bytes,
            ),
            lambda route: route.stands_under(settings),
        )
        routes = [route for _, route in (*gone, *change.new)]
        touched = {name for route in routes for name in route.under}
        is_same = (settings.peek_limit, top.silent, top.default) == (
            before.settings.peek_limit,
            was.silent,
            was.default,
        )
        # Each version of the rules counts its dry runs itself.
        are_same = is_same and not before.dry_runs and not any(route.is_outer for route in routes)

        def inner(route: CompiledRoute) -> Generator[None, None, RuleLayer]:
            layer = before.inside.get(route.name)
            if layer is None:
                its = replacement.table.belonging_to(route)
                return (yield from compiler.enter(empty.inside(route), its))
            return (yield from enter(empty.inside(route, layer), _under(route.name)))

        if are_same:
            inside = {**before.inside}
            for name in touched.intersection(inside):
                inside[name] = yield from enter(inside[name], _under(name))
        else:
            inside = yield from _inner_layers(top, inner)
        return self._of(compiler, admission, top, inside, version, before, replacement)

    @classmethod
    def _of(
        cls,
        compiler: Compiler,
        admission: Admission,
        top: RuleLayer,
        inside: Mapping[str, RuleLayer],
        version: int,
        before: Configuration | None = None,
        replacement: Replacement | None = None,
    ) -> Configuration:
        settings, runtime = compiler.settings, compiler.runtime
        admission.banned = runtime.banned
        options = socket_options(settings)
        made = cls(
            settings,
            admission,
            options,
            attrs.evolve(runtime.dialler, options=options),
            top,
            inside,
            runtime.counters.listener(settings.name),
            version,
            openings=compiler.terminators.openings_of(settings),
            stages=stage_makers("listen", settings),
        )
        outcomes: list[object] = [*settings.outcomes]
        # Few rules have such outcomes, and thousands of routes are not asked again.
        if before is None or replacement is None or before.hands_over or before.in_process:
            layers = made.layers
        else:
            layers, outcomes = [], outcomes + [route.outcome for route in replacement.new_routes]
            if any(isinstance(outcome, Handover | InProcess) for outcome in outcomes):
                layers = made.layers
        destinations = [top.default, *(line.destination for line in top.silent)]
        if layers:
            destinations += [
                route.destination for route in top.detector.routes if route.destination
            ]
        hands_over = has_handover(destinations)
        if hands_over:
            runtime.check_handing_off()
        in_process = [route.outcome for layer in layers for route in layer.detector.routes]
        in_process += settings.outcomes
        return attrs.evolve(
            made,
            hands_over=hands_over,
            in_process=tuple(factory for factory in in_process if isinstance(factory, InProcess)),
        )

    @property
    def layers(self) -> list[RuleLayer]:
        return [self.top, *self.inside.values()]

    @property
    def dry_runs(self) -> list[tuple[str, int]]:
        return [found for layer in self.layers for found in layer.detector.would_have_taken.items()]


def _under(name: str) -> Callable[[Route], bool]:
    return lambda route: name in route.under


def _inner_layers(
    top: RuleLayer, inner: Callable[[CompiledRoute], Generator[None, None, RuleLayer]]
) -> Generator[None, None, dict[str, RuleLayer]]:
    """Make the layers inside routes, at any depth, by the names of these routes."""
    inside: dict[str, RuleLayer] = {}
    waiting = [top]
    for layer in waiting:
        for route in layer.outer.items:
            if route.name not in inside:
                inside[route.name] = made = yield from inner(route)
                if made.outer.items:
                    waiting.append(made)
                yield
    return inside
