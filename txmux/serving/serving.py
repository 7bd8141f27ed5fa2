"""Runs the listeners of a configuration in one process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txmux.access.admission import Admission
from txmux.access.bans import Row
from txmux.access.loops import LoopDetector
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import no_server_up
from txmux.backends.upstreams import PreparedUpstreams, Upstreams
from txmux.classes import define
from txmux.client.active_listener import ActiveListener
from txmux.client.configuration import Compiler, Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.overrides import Overrides
from txmux.client.session import ClientSession
from txmux.client.tls.terminators import PreparedTerminators, TlsTerminators
from txmux.detection.ranked import finish
from txmux.errors import MuxError
from txmux.interfaces import Transport
from txmux.net.relay.kernel import SPLICED
from txmux.net.sockets.poller import after_turn
from txmux.net.sockets.port import TwistedPort
from txmux.net.turns import outcome_of_look
from txmux.rules.model import Backend, Listener, Rules, Settings
from txmux.rules.replacement import Replacement, RouteTable, replace_all
from txmux.serving import endpoints
from txmux.serving.ending import (
    RECHECK,
    DeniedClients,
    EndOnDown,
    GradualEnd,
    connections_of_removed,
    forget_restored,
)
from txmux.serving.listen_addresses import listen_addresses, socket_address
from txmux.serving.listening_ports import ListeningPort, ListeningPorts
from txmux.serving.state import TransferState, restore_sources, sources_of
from txmux.tcp.listener import MuxFactory
from txmux.telemetry.access_log import AccessLog, open_log
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.lines import AGAIN, LOST_LINES

if TYPE_CHECKING:
    from txmux.udp.listener import UDPListener

_WAIT = 0.5
"""Seconds that clients wait for the access log to be opened again; what takes longer is done in a thread."""
_LAST = 1.0
"""Seconds that a slow reader of the access log has at least, when the last connection has ended."""
_Added = TypeVar("_Added", bound=ActiveListener)


class Serving:
    """The listeners, backends and certificates of one process.

    Args:
        names: The addresses that the supervisor publishes; it also publishes the results of health checks, to `upstreams`. If
            ``None``, this process resolves names and checks servers itself.
        loop_detector: Shared with other processes that serve the same rules, if there are any.
        may_lack: Whether databases of places that cannot be read are no error, as for a process that replaces another one.

    Raises:
        MuxError: A backend or a file for TLS cannot be used.

    Attributes:
        rules: Those in force.
        listeners: The listeners of the rules, in their order.
        admission: Makes the admission of listeners that the rules no longer have.
        unopened: Why ports are not open that the rules name, a sentence each; only in a process that has replaced another one.
    """

    _log = Logger()

    def __init__(  # noqa: PLR0913 - by name, and few need more than the first
        self,
        rules: Rules,
        access_log: AccessLog | None,
        reactor: Any,
        *,
        names: NameResolver | None = None,
        accepting: bool = True,
        shared: bool = False,
        loop_detector: LoopDetector | None = None,
        counters: ProcessCounters | None = None,
        may_lack: bool = False,
    ) -> None:
        self.rules = rules
        self.table = finish(RouteTable.of(rules.routes))
        self._access_log = access_log
        self._closing_logs: set[Deferred[None]] = set()  # of earlier rules
        self._reactor = reactor
        has_others = shared and rules.settings.workers > 1
        self.runtime = runtime = IORuntime(
            reactor, rules.settings.relay, loop_detector, shared=has_others, counters=counters
        )
        self.upstreams = Upstreams(
            reactor,
            runtime.clock,
            runtime.dialler,
            checking=names is None,
            names=names,
            counters=runtime.counters,
            is_own_address=runtime.loop_detector.is_own_address,
        )
        self.upstreams.on_checked = self._schedule_ends_after_check
        self._shared = shared
        self._split_limits(rules)
        self.upstreams.add_backends(rules)
        runtime.context.serving = self
        runtime.prepare(rules, may_lack=may_lack)
        runtime.commit(rules)
        self._detect_loops_to_admin(rules)
        self._denied = DeniedClients(reactor, self._all_listeners)
        self.runtime.lists.on_change = self._denied.check_all
        self.terminators = TlsTerminators(reactor)
        self.terminators.prepare(rules).commit()
        self.listening_ports = ListeningPorts(accepting=accepting, datagrams=not shared)
        self._retiring: list[ActiveListener] = []
        self._gradual_end = GradualEnd(reactor, self.connections)
        self._end_on_down = EndOnDown(
            self._gradual_end, reactor.seconds, self.connections, self.upstreams
        )
        self._removed: dict[int, dict[str, Any]] = {}  # by version
        self.listeners: list[ActiveListener] = []
        self.version = 1
        self.admission: Callable[[Listener], Admission] | None = None
        self.unopened: list[str] = []
        self._is_log_overdue = False  # its reader is no longer waited for

    def _split_limits(self, rules: Rules) -> None:
        if self._shared:
            self.upstreams.known.share(rules.settings.workers)

    def _detect_loops_to_admin(self, rules: Rules) -> None:
        """Register the supervisor's endpoints, so that no client is connected to them."""
        for text in filter(None, (*rules.settings.admin, rules.settings.metrics)):
            where = socket_address(text, 0)
            if where is not None:
                self.runtime.loop_detector.add_address(where.host, where.port)

    def add(self, settings: Listener, admission: Admission) -> ActiveListener:
        return self._add(self._make(settings, admission))

    def _add(self, listener: _Added) -> _Added:
        listener.log_to(self._access_log)
        self.listeners.append(listener)
        return listener

    def _make(self, settings: Listener, admission: Admission) -> ActiveListener:
        make = self._make_udp if settings.transport is Transport.UDP else self._make_tcp
        return make(finish(self._compile(self.table, settings, admission, self.version)))

    def _make_tcp(self, configuration: Configuration) -> MuxFactory:
        factory = MuxFactory(
            (),
            configuration.settings,
            admission=configuration.admission,
            runtime=self.runtime,
            upstreams=self.upstreams,
            terminators=self.terminators,
        )
        factory.configuration = configuration
        return factory

    def _make_udp(self, configuration: Configuration) -> UDPListener:
        from txmux.udp.listener import UDPListener  # noqa: PLC0415 - most rules have no use for it

        return UDPListener(configuration, self.runtime, self.upstreams)

    def _compiler(self, settings: Listener) -> Compiler:
        return Compiler(settings, self.runtime, self.upstreams, self.terminators)

    def _compile(
        self, table: RouteTable, settings: Listener, admission: Admission, version: int
    ) -> Generator[None, None, Configuration]:
        return Configuration.compiled(table, self._compiler(settings), admission, version)

    def listen(self, listener: ActiveListener, key: str, opened: socket.socket) -> None:
        """Accept clients from a duplicate of the socket."""
        self.listening_ports.enter(
            key, self.listening_ports.returned(key, listener) or _open_port(opened, listener)
        )

    def listen_all(
        self,
        rules: Rules,
        sockets: Mapping[str, socket.socket],
        ports: endpoints.OpenedPorts,
        admission: Callable[[Listener], Admission],
    ) -> None:
        """Open all ports at the start; `sockets` and `ports` are keyed by listen address."""
        for listener in rules.listeners:
            active = self.add(listener, admission(listener))
            for address in listen_addresses(listener):
                if address.is_socket:
                    self.listen(active, address.key, sockets[address.key])
                elif address.key in ports:
                    self._enter(address.key, *ports[address.key], active)

    def _enter(
        self,
        key: str,
        port: IListeningPort,
        forwarding: endpoints.ForwardingFactory,
        listener: ActiveListener,
    ) -> None:
        forwarding.forward_to(listener)
        TwistedPort.take_over(self.runtime.poller, port, self.runtime.descriptors)
        self.listening_ports.enter(key, ListeningPort(port, listener, forwarding=forwarding))

    def factory_of(self, name: str) -> MuxFactory:
        return self._find(name, MuxFactory) or self._add(
            self._make_tcp(self._removed_listener(name))
        )

    def udp_listener_of(self, name: str) -> UDPListener:
        from txmux.udp.listener import UDPListener  # noqa: PLC0415 - as above

        return self._find(name, UDPListener) or self._add(
            self._make_udp(self._removed_listener(name))
        )

    def _find(self, name: str, kind: type[_Added]) -> _Added | None:
        for listener in self._all_listeners():
            if isinstance(listener, kind) and listener.configuration.settings.name == name:
                return listener
        return None

    def _removed_listener(self, name: str) -> Configuration:
        """Return the configuration of a listener that the rules no longer have, for connections or flows from another process."""
        settings, make = Listener(name), self.admission
        admission = make(settings) if make else Admission(settings, self._reactor.seconds)
        return finish(self._compile(self.table, settings, admission, self.version))

    def connections(self) -> list[ClientSession]:
        return [
            connection for listener in self._all_listeners() for connection in listener.connections
        ]

    def receive(self, feature: str, values: Any) -> Deferred[Any] | list[Any] | None:
        """Pass what the supervisor has sent to the feature's part in this process."""
        part = self.runtime.parts.get(feature)
        return None if part is None else part.receive(values)

    # Reloads.

    def prepare(
        self,
        rules: Rules,
        sockets: dict[str, socket.socket],
        admission: Callable[[Listener], Admission],
        *,
        rules_changed: bool = True,
    ) -> PreparedServing:
        """Prepare other rules; nothing changes before `commit`.

        `sockets` has the plain sockets of new listen addresses; duplicates of sockets whose ports must be replaced are added.
        Without `rules_changed`, only certificates and other files are read again.

        Raises:
            MuxError: The rules cannot be used; there is a line for each problem.
        """
        return finish(
            self.prepare_in_steps(
                finish(replace_all(rules)), sockets, admission, rules_changed=rules_changed
            )
        )

    def prepare_in_steps(
        self,
        replacement: Replacement,
        sockets: dict[str, socket.socket],
        admission: Callable[[Listener], Admission],
        *,
        rules_changed: bool = True,
    ) -> Generator[None, None, PreparedServing]:
        """Prepare as `prepare` does, in steps, between which clients are served."""
        rules, whole = replacement.rules, replacement.is_whole
        self.runtime.prepare(rules, replacement)
        self._detect_loops_to_admin(rules)
        yield
        upstreams = yield from self.upstreams.prepare_in_steps(
            rules, replacement.used(), None if whole else replacement.dropped()
        )
        try:
            terminators = yield from self.terminators.prepare_in_steps(
                rules, replacement.new_routes, None if whole else replacement.gone_routes
            )
        except BaseException:  # it is given up
            upstreams.abandon()
            raise
        version = self.version + rules_changed
        # Ranks are those of the configurations in use.
        table = replacement.table if rules_changed else self.table
        prepared = PreparedServing(rules, table, version, sockets, upstreams, terminators)
        problems = [*upstreams.problems, *map(str, terminators.problems)]
        if problems:
            self.abandon(prepared)
            raise MuxError("\n".join(problems))
        try:
            prepared.access_log = self._prepare_log(rules.settings)
            yield from self._compile_listeners(
                prepared, replacement if rules_changed else None, admission
            )
            self._prepare_ports(prepared)
        except BaseException as problem:
            self.abandon(prepared)
            if isinstance(problem, OSError):
                why = f"a socket cannot be handed on: {endpoints.why_not(problem)}"
                raise MuxError(why) from problem
            raise
        return prepared

    def _prepare_log(self, settings: Settings) -> AccessLog | None:
        if settings.log == self.rules.settings.log:
            return self._access_log  # not a new one, since this one counts its lost lines
        return open_access_log(settings, self._reactor, is_quiet=self._shared)

    def _compile_listeners(
        self,
        prepared: PreparedServing,
        replacement: Replacement | None,
        admission: Callable[[Listener], Admission],
    ) -> Generator[None, None, None]:
        known = {
            (active.configuration.settings.name, active.transport): active
            for active in self.listeners
        }
        table, version = prepared.table, prepared.version
        for listener in prepared.rules.listeners:
            active = known.get((listener.name, listener.transport))
            if active is None:
                configuration = yield from self._compile(
                    table, listener, admission(listener), version
                )
                is_udp = listener.transport is Transport.UDP
                active = (self._make_udp if is_udp else self._make_tcp)(configuration)
            elif replacement is not None:
                made = (
                    self._compile(table, listener, admission(listener), version)
                    if replacement.is_whole
                    else active.configuration.changed(
                        replacement, self._compiler(listener), admission(listener), version
                    )
                )
                prepared.configurations[active] = yield from made
            prepared.listeners.append(active)

    def _prepare_ports(self, prepared: PreparedServing) -> None:
        sockets = prepared.sockets
        for listener, active in zip(prepared.rules.listeners, prepared.listeners, strict=True):
            for address in listen_addresses(listener):
                prepared.by_key[address.key] = active
                port = self.listening_ports.get(address.key)
                if address.is_socket and not (port and port.can_serve(active, listener)):
                    if port and address.key not in sockets:
                        sockets[address.key] = port.duplicate()
                    # Reserved, so that `commit` cannot run out of descriptors when it opens the port.
                    if address.key in sockets:  # otherwise this process has just closed the port
                        prepared.reserved[address.key] = sockets[address.key].dup()

    def commit(
        self, prepared: PreparedServing, *, listening: bool = True, removed: Collection[str] = ()
    ) -> None:
        """Use the prepared rules for the next clients; without `listening`, close all ports.

        Before the port of a removed listener is closed, the clients in its accept queue are accepted; at the addresses of `removed`, the
        system refuses others from then on.
        """
        prepared.upstreams.commit()
        prepared.terminators.commit()
        self.rules, self.table, self.version = prepared.rules, prepared.table, prepared.version
        forget_restored(self._removed.values(), self.rules)
        self._split_limits(prepared.rules)
        for listener, configuration in prepared.configurations.items():
            self._log_dry_runs(listener, least=1)
            listener.change(configuration)
        current = {*prepared.listeners}
        gone = [listener for listener in self.listeners if listener not in current]
        self.listeners[:] = prepared.listeners
        self.runtime.commit(prepared.rules)
        self._retiring = [*filter(lambda listener: listener.connections, self._retiring), *gone]
        for listener in (*self.listeners, *self._retiring):
            listener.log_to(prepared.access_log)
        self.unopened.clear()  # all that could not be opened before are among these
        for key, (port, forwarding) in prepared.ports.items():
            self._enter(key, port, forwarding, prepared.by_key[key])
        self._change_ports(prepared, prepared.by_key if listening else {}, removed)
        for unused in prepared.reserved.values():
            unused.close()
        for listener in gone:
            self._log_dry_runs(listener)
        self._denied.check_all()
        access_log, self._access_log = self._access_log, prepared.access_log
        if access_log is prepared.access_log:
            self.reopen_log()
        elif access_log is not None:
            seconds = prepared.rules.settings.drain_timeout
            closing = Deferred.fromCoroutine(self._close_log(access_log, seconds))
            self._closing_logs.add(closing)
            closing.addBoth(lambda _: self._closing_logs.discard(closing))
        self._is_log_overdue = False

    async def _close_log(self, log: AccessLog, seconds: float) -> None:
        await self._write_rest(log, seconds)
        log.close()

    async def _write_rest(self, log: AccessLog | None, seconds: float) -> None:
        """Wait these seconds for a slow reader of the access log to take what is left."""
        until = self._reactor.seconds() + seconds
        while log is not None and not log.write_rest() and not self._is_log_overdue:
            if self._reactor.seconds() >= until:
                self._is_log_overdue = log is self._access_log
                return
            await deferLater(self._reactor, AGAIN)

    def count(self) -> None:
        """Count what this process has in common."""
        process = self.runtime.counters.process
        process.spliced(SPLICED.take_count())
        process.lost_lines(LOST_LINES.take_count())

    def _change_ports(
        self,
        prepared: PreparedServing,
        by_key: Mapping[str, ActiveListener],
        removed: Collection[str],
    ) -> None:
        before = self.listening_ports.take_all()
        for key, listener in by_key.items():
            port = before.get(key)
            if key in prepared.reserved:
                prepared.reserved.pop(key).close()
                self.listen(listener, key, prepared.sockets[key])
            elif port is not None:
                port.forward_to(listener)
                self.listening_ports.enter(key, before.pop(key))
        for key, port in before.items():
            if key not in by_key and self.listening_ports.accepting:
                accept_last = partial(endpoints.accept_last, for_good=True)
                port.empty_queue(accept_last if key in removed else endpoints.accept_waiting)
            self.listening_ports.close(key, port)

    def abandon(self, prepared: PreparedServing) -> None:
        if prepared.access_log is not None and prepared.access_log is not self._access_log:
            prepared.access_log.close()
        prepared.upstreams.abandon()
        prepared.terminators.abandon()
        for reserved in prepared.reserved.values():
            reserved.close()
        for port, _ in prepared.ports.values():
            endpoints.stop_listening(port)

    def older(self) -> list[ClientSession]:
        return [
            connection
            for connection in self.connections()
            if connection.configuration.version < self.version
        ]

    def end_removed(self, routes: Collection[str], backends: Collection[str]) -> None:
        """End the connections of removed routes and backends after ``drain_timeout``."""
        version = self.version
        self._removed[version] = {"routes": routes, "backends": backends}
        self._gradual_end.call_later(
            self.rules.settings.drain_timeout,
            lambda: self.end_removed_now(**self._removed.pop(version), version=version),
        )

    def end_removed_now(
        self, routes: Collection[str], backends: Collection[str], version: int
    ) -> None:
        connections = self.connections()
        for connection in connections_of_removed(
            connections, self.rules, version, routes, backends
        ):
            connection.end("drained")
        # By their older rules, these may yet go where the others were.
        if any(
            its.configuration.version < version and its.record.detect_ms is None
            for its in connections
        ):
            again = partial(self.end_removed_now, routes, backends, version)
            self._gradual_end.call_later(RECHECK, again)

    def _schedule_ends_after_check(self, backend: Backend, member: Member) -> None:
        if backend.end_on_down != "no":
            end = partial(self._end_on_down.look_for, backend, member)
            end()
            # A second time for connections that are now being made.
            self._gradual_end.call_later(backend.connect_timeout, end)

    # The end.

    def _all_listeners(self) -> list[ActiveListener]:
        return [*self.listeners, *self._retiring]

    def retire(self) -> Deferred[Any]:
        """Stop accepting; fires when all connections have ended, without a time limit, and have their lines."""
        for key, port in self.listening_ports.take_all().items():
            self.listening_ports.close(key, port, is_left=True)
        return Deferred.fromCoroutine(self._all_ended())

    async def _all_ended(self) -> None:
        await gatherResults([listener.emptied() for listener in self._all_listeners()])
        await self._write_rest(self._access_log, self.rules.settings.drain_timeout)
        await gatherResults([*self._closing_logs])

    async def status(self) -> dict[str, Any]:
        connections = self.connections()
        return {
            "generation": self.version,
            "active": len(connections),
            "undecided": sum(connection.record.detect_ms is None for connection in connections),
            "older": len(self.older()),
        }

    async def missing(self) -> list[str]:
        """Return the reasons why clients cannot be served, one line each."""
        accepted, held_up = self.listening_ports.accepted(), self.listening_ports.held_up()
        few = await self.runtime.clients.of_few(self.connections()) if held_up else ""
        closed = [
            f"[listen {listener.name}]: no client is accepted"
            if listener.name not in accepted
            else f"[listen {listener.name}]: cannot accept: {held_up[listener.name][0]}{few}"
            for listener in self.rules.listeners
            if listener.name not in accepted or listener.name in held_up
        ]
        without_server = self.upstreams.without_server(self.rules.used_backends)
        return [*closed, *map(no_server_up, without_server)]

    async def drain(
        self,
        longest_wait: int = 0,
        may_move: Callable[[ClientSession], bool] = lambda _: False,
        *,
        heeds_signals: bool = True,
    ) -> None:
        """Stop accepting, and end the connections that last longer than ``drain_timeout``; see `GradualEnd.end_all_within`.

        Those that `may_move` to another process are spared like those that wait for a server. Without `heeds_signals`, the log does not
        say what a second one does.
        """
        self._gradual_end.may_move = may_move
        seconds, began = self.rules.settings.drain_timeout, self._reactor.seconds()
        # Before the first `await`, which may take long itself.
        self._gradual_end.end_all_within(seconds, self._end_connections, longest_wait)
        await gatherResults(self.listening_ports.close_all())
        if count := len(self.connections()):
            self._log.info(
                "draining connections: {count}, for up to {seconds:g} s{more}",
                count=count,
                seconds=seconds,
                more="; a second signal closes them at once"
                if heeds_signals and not longest_wait
                else "",
            )
        await gatherResults([listener.emptied() for listener in self._all_listeners()])
        await gatherResults([listener.stopped() for listener in self._all_listeners()])
        self._gradual_end.cancel_calls()
        self._denied.stop_checks()
        await self.runtime.stop()
        for listener in self.listeners:
            self._log_dry_runs(listener)
        self.listeners.clear()
        self._retiring.clear()
        self.runtime.bad_ends.flush()
        if self._access_log is not None:
            left = began + seconds - self._reactor.seconds()
            await self._close_log(self._access_log, max(left, _LAST))
        await gatherResults([*self._closing_logs])
        self.count()

    def _log_dry_runs(self, listener: ActiveListener, *, least: int = 0) -> None:
        configuration = listener.configuration
        for name, count in configuration.dry_runs:
            if count >= least:
                self._log.info(
                    "[route {name}] would have taken {count} {noun} of [listen {listener}]",
                    name=name,
                    count=count,
                    noun="connection" if count == 1 else "connections",
                    listener=configuration.settings.name,
                )

    def end_all(self) -> None:
        """End all at once, also what a slow reader of the access log has not taken."""
        self._is_log_overdue = True
        self._end_connections()

    def _end_connections(self) -> None:
        for listener in self._all_listeners():
            listener.abort("drained")

    def stop_waiting(self) -> None:
        # Even if `drain` has a `longest_wait`.
        self._gradual_end.end_all_within(self.rules.settings.drain_timeout, self._end_connections)

    def give_up(self) -> None:
        self.listening_ports.close_all()
        self.listeners.clear()
        if self._access_log is not None:
            self._access_log.close()

    def restore(self, state: TransferState) -> None:
        """Apply the state of another process at an upgrade."""
        if "wanted" in state:
            self.apply_overrides(state["wanted"])
        self.feed(state.get("networks", {}))
        for feature, values in state.get("parts", {}).items():
            self.receive(feature, values)
        self.upstreams.restore(state.get("servers", ()))
        restore_sources(state, sources_of(self.listeners))

    def apply_overrides(self, overrides: Mapping[str, Any]) -> None:
        read = Overrides.read(overrides)
        self.upstreams.apply_overrides(read.servers, read.held)
        self.listening_ports.shut(read.shut)

    def ban(self, rows: Iterable[Row]) -> None:
        """Add and lift bans; see `Banned.change`."""
        if self.runtime.banned.change(rows):
            self.end_denied()

    def end_denied(self) -> None:
        self._denied.check_all()

    def feed(self, published: Mapping[str, Any]) -> None:
        self.runtime.lists.feed(published)

    def reopen_log(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()


def open_access_log(
    settings: Settings, reactor: Any, owner: tuple[int, int] | None = None, **more: bool
) -> AccessLog | None:
    """Open the access log of a process that serves, for whose clients it is opened again in a thread if that takes long; see `open_log`."""
    opens = partial(outcome_of_look, wait=_WAIT)
    return open_log(settings, after_turn(reactor), owner, reactor, opens=opens, **more)


def _open_port(opened: socket.socket, listener: ActiveListener) -> ListeningPort:
    if listener.transport is Transport.UDP:
        from txmux.serving.udp_listening_port import UDPListeningPort  # noqa: PLC0415 - most rules have no use for it

        return UDPListeningPort(listener.listen(opened), listener)
    return ListeningPort(listener.listen(opened), listener, listener.configuration.options)


@define
class PreparedServing:
    """Prepared rules, for `Serving.commit` or `Serving.abandon`.

    Attributes:
        listeners: In the order of the rules.
        configurations: The new configurations of existing listeners.
        by_key: The listener of each listen address.
        reserved: A descriptor for each port that is to be opened.
        ports: Ports of Twisted endpoints, which have no plain socket.
    """

    rules: Rules
    table: RouteTable
    version: int
    sockets: dict[str, socket.socket]
    upstreams: PreparedUpstreams
    terminators: PreparedTerminators
    access_log: AccessLog | None = attrs.field(default=None, init=False)
    listeners: list[ActiveListener] = attrs.field(factory=list, init=False)
    configurations: dict[ActiveListener, Configuration] = attrs.field(factory=dict, init=False)
    by_key: dict[str, ActiveListener] = attrs.field(factory=dict, init=False)
    reserved: dict[str, socket.socket] = attrs.field(factory=dict, init=False)
    ports: endpoints.OpenedPorts = attrs.field(factory=dict, init=False)
