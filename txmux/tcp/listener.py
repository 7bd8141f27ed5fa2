"""A listener: the rules for its next client, and its connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from txmux.access.admission import Admission
from txmux.backends.upstreams import Upstreams
from txmux.client.configuration import Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.recording import new_id
from txmux.client.served import Served
from txmux.net.addresses import text_of
from txmux.net.tls.terminations import Terminations
from txmux.rules.model import NOWHERE, Listener, Route
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.fast_path import FastPath
from txmux.tcp.moving import MovedConnection, SlotRelease, Sockets
from txmux.tcp.socket_connection import SocketConnection
from txmux.tcp.stage import OVER
from txmux.tcp.sweep import Sweep
from txmux.telemetry.access_log import AccessLog, should_log
from txmux.telemetry.reasons import AbortReason
from txmux.telemetry.record import ConnectionRecord

if TYPE_CHECKING:
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream

_log = Logger()


class MuxFactory(ServerFactory):
    """Detects what each client of a listener speaks, and connects it to its backend.

    It can be given to any Twisted server endpoint. `txmux.MuxService` makes one for each ``[listen]`` section.

    Args:
        routes: In the order of their priority; `txmux.route` makes them in Python. Those ``under`` others are there too.
        settings: As in a ``[listen]`` section; its ``endpoints`` and ``backlog`` mean nothing here.
        access_log: Records each connection when it ends.
        admission: Decides which clients are let in; made from the settings if not given.
        runtime: The process's; one for this listener alone if not given.
        upstreams: The backends of this process; those of this listener alone if not given.
        terminations: The TLS that this process ends; that of this listener alone if not given.
        reactor: The reactor of such a runtime; the process's own if not given.

    Raises:
        MuxError: A backend cannot be used, or files for TLS: one is missing, say.

    Attributes:
        configuration: The configuration under which the next clients are accepted.
        runtime: As above.
        upstreams: As above.
        connections: The connections and flows that are not over.
        flows: The flows, if the listener is for UDP.
    """

    noisy = False

    def __init__(
        self,
        routes: Iterable[Route],
        settings: Listener = Listener("mux"),  # noqa: B008 - it is frozen
        *,
        access_log: AccessLog | None = None,
        admission: Admission | None = None,
        runtime: IORuntime | None = None,
        upstreams: Upstreams | None = None,
        terminations: Terminations | None = None,
        reactor: Any = None,
    ) -> None:
        if not isinstance(settings, Listener) or settings.section is NOWHERE:
            # Not of a rules file, whose values are read already: a worker does not load what reads them.
            from txmux.rules.embedding import from_python  # noqa: PLC0415

            routes, settings = from_python(routes, settings)
        if runtime is None:
            if reactor is None:
                from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
            runtime = IORuntime(reactor)
        self.runtime = runtime
        self.upstreams = upstreams or Upstreams(
            runtime.reactor,
            runtime.clock,
            runtime.dial,
            counters=runtime.counters,
            leads_here=runtime.loop_detector.leads_here,
        )
        self.configuration = Configuration.make(
            routes,
            settings,
            admission or Admission(settings, runtime.clock.seconds),
            runtime,
            self.upstreams,
            terminations or Terminations(runtime.reactor),
        )
        self.connections: set[Any] = set()
        self._fast_path: FastPath | None = None
        self.sweep = Sweep(runtime.clock, self.connections)
        self.flows: object = None
        self._access_log = access_log
        self._left: list[tuple[Configuration, int]] = []
        self._emptied: Deferred[None] | None = None
        self._stopping: Deferred[None] = succeed(None)

    def buildProtocol(self, addr: IAddress | None) -> MuxProtocol:
        """Make the end of a client's connection, which lets it in or refuses it."""
        assert addr is not None  # noqa: S101 - accepted connections have one
        self.runtime.descriptors.client_accepted()
        configuration = self.configuration
        name = configuration.settings.name
        record = ConnectionRecord(time.time(), new_id(), name, text_of(addr))
        return MuxProtocol(self, configuration, self.runtime, record)

    def serve(self, client: socket.socket, name: Any, host: IAddress | None) -> None:
        """Serve a client of plain TCP that has been accepted.

        Args:
            client: A socket that does not block.
            name: The client's address, as ``accept()`` returns it.
            host: The address that it has connected to; ``None`` if only its socket knows.

        Raises:
            OSError: The socket cannot be watched. The connection has ended.
        """
        path = self._fast_path
        if path is None or path.configuration is not self.configuration:
            path = self._fast_path = FastPath(self, self.configuration)
        path.trouble = None  # of an earlier one
        connection = SocketConnection(path, client, name, host)
        self.runtime.descriptors.client_accepted()
        if path.is_open:
            connection.begin()
        else:
            connection.begin_with_transport()
        if path.trouble is not None:
            raise path.trouble

    def change(self, configuration: Configuration) -> None:
        """Accept the next clients under other rules; existing connections keep theirs."""
        before, self.configuration = self.configuration, configuration
        if self.numPorts:
            # In this order, so that a factory which both have is not stopped in between.
            for outcome in configuration.in_process:
                outcome.factory.doStart()
            self._leave(before)

    def _leave(self, configuration: Configuration) -> None:
        """Stop the destinations of a configuration when its last connection has ended."""
        if not configuration.in_process:
            return
        left = sum(one.configuration is configuration for one in self.connections)
        if left:
            self._left.append((configuration, left))
        else:
            _stop(configuration)

    def _ended(self, ended: Configuration) -> None:
        """Record the end of a connection while some configurations wait for their last ones."""
        waiting, self._left = self._left, []
        for configuration, left in waiting:
            if configuration is not ended:
                self._left.append((configuration, left))
            elif left > 1:
                self._left.append((configuration, left - 1))
            else:
                _stop(configuration)

    def log_to(self, access_log: AccessLog | None) -> None:
        self._access_log = access_log

    def adopt(
        self, moved: MovedConnection, sockets: Sockets, release_elsewhere: SlotRelease | None = None
    ) -> None:
        """Take over a connection of another process, which is relayed there, or waits for a server.

        Raises:
            MuxError: It cannot be taken over here; the sockets are still the caller's, as with any other error.
            LookupError: It waits for a server of a backend that is not in these rules.
        """
        self.runtime.check_adopting()
        record, configuration = moved.record, self.configuration
        here: tuple[Upstream, Member | None] | None
        if moved.waited is None:
            here = self.upstreams.adopt(record.backend or "", record.server or "")
        else:
            here = self.upstreams.find(record.backend or ""), None
        if 0 < moved.version < configuration.version:
            configuration = attrs.evolve(configuration, version=moved.version)
        connection = MuxProtocol(self, configuration, self.runtime, record)
        try:
            connection.adopt(moved, sockets, here, release_elsewhere)
        except BaseException:
            if here is not None and here[1] is not None and connection.stage is OVER:
                here[0].pool.released(here[1])
            connection.over("error")  # so that its end is logged
            raise

    def listen(self, opened: socket.socket) -> IListeningPort:
        """Accept the clients of a socket, of which a duplicate is taken."""
        return self.runtime.listen(opened, self, self.configuration.options)

    def opened(self, connection: Served) -> None:
        self.connections.add(connection)
        if self.runtime.events.has_listener:
            self.runtime.events.begun(connection.record)

    def closed(self, connection: Served) -> None:
        """Log a connection, and forget it."""
        if connection in self.connections:
            self.connections.discard(connection)
            if self._left:
                self._ended(connection.configuration)
            if not self.connections and not self.numPorts:
                self.drop_idle_timers()
        self.runtime.descriptors.connection_ended()
        if connection.admitted:
            connection.configuration.admission.leave(connection.permit)
        record, logged = connection.record, connection.logged
        is_logged = logged is True or should_log(record, logged)
        if self.runtime.events.has_listener and is_logged:
            self.runtime.events.ended(record)
        if is_logged and record.reason != "done" and not record.is_clean:
            self.runtime.bad_ends.add(record, connection.unrecognised)
        if self._access_log is not None and is_logged:
            try:
                self._access_log.write(record)
            except Exception:  # noqa: BLE001 - a log of the embedding program must not keep the service from ending
                _log.failure("the access log raised; the line is lost")
        if self._emptied is not None and not self.connections:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    def emptied(self) -> Deferred[None]:
        """Wait until there are no connections."""
        if not self.connections:
            return succeed(None)
        if self._emptied is None:
            self._emptied = Deferred()
        return self._emptied

    def abort(self, reason: AbortReason) -> None:
        """End every connection."""
        for connection in list(self.connections):
            connection.end(reason)

    def startFactory(self) -> None:
        """Start the protocols of this process that routes name."""
        self.upstreams.start()
        for outcome in self.configuration.in_process:
            outcome.factory.doStart()

    def stopFactory(self) -> None:
        """Stop it again, and the backends, when the last connection has ended."""
        self._leave(self.configuration)
        if not self.connections:
            self.drop_idle_timers()
        # Until then, clients may wait for a name, or for a server that a check has to find up.
        self._stopping = self.emptied().addCallback(lambda _: self.upstreams.stop())

    def drop_idle_timers(self) -> None:
        """Cancel the timers that no connection waits for; while clients may come, the next one soon needs them."""
        self.sweep.stop()
        self.runtime.clock.drop_idle()

    def stopped(self) -> Deferred[None]:
        return self._stopping


def _stop(configuration: Configuration) -> None:
    for outcome in configuration.in_process:
        outcome.factory.doStop()
