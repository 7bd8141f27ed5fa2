"""A running listener: the configuration for its next clients, and its live connections and flows."""

import socket
from typing import ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from txmux.backends.upstreams import Upstreams
from txmux.client.configuration import Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.session import ClientSession
from txmux.interfaces import Transport
from txmux.telemetry.access_log import AccessLog, should_log
from txmux.telemetry.reasons import AbortReason

_log = Logger()


class ActiveListener:
    """A listener in this process; logs and counts the end of each of its connections and flows.

    Attributes:
        configuration: The configuration for the next clients.
        transport: TCP or UDP.
        connections: The live connections and flows.
    """

    transport: ClassVar[Transport]

    def __init__(
        self,
        configuration: Configuration,
        runtime: IORuntime,
        upstreams: Upstreams,
        access_log: AccessLog | None = None,
    ) -> None:
        self.configuration = configuration
        self.runtime = runtime
        self.upstreams = upstreams
        self.connections: set[ClientSession] = set()
        self._access_log = access_log
        self._is_started = False
        self._retired: list[tuple[Configuration, int]] = []
        self._emptied: Deferred[None] | None = None
        self._stopping: Deferred[None] = succeed(None)

    def listen(self, opened: socket.socket) -> IListeningPort:
        """Accept clients from a duplicate of the socket."""
        raise NotImplementedError

    def log_to(self, access_log: AccessLog | None) -> None:
        self._access_log = access_log

    def change(self, configuration: Configuration) -> None:
        """Accept the next clients under another configuration; existing connections keep theirs."""
        before, self.configuration = self.configuration, configuration
        if self._is_started:
            # Start before stop, so that a factory in both configurations keeps running.
            for outcome in configuration.in_process:
                outcome.factory.doStart()
            self._retire(before)

    def _retire(self, configuration: Configuration) -> None:
        """Stop the in-process factories of a replaced configuration, once its last connection has ended."""
        if not configuration.in_process:
            return
        remaining = sum(
            connection.configuration is configuration for connection in self.connections
        )
        if remaining:
            self._retired.append((configuration, remaining))
        else:
            _stop_factories(configuration)

    def _count_retired(self, ended: Configuration) -> None:
        """Record the end of a connection of a configuration that may have been replaced."""
        waiting, self._retired = self._retired, []
        for configuration, remaining in waiting:
            if configuration is not ended:
                self._retired.append((configuration, remaining))
            elif remaining > 1:
                self._retired.append((configuration, remaining - 1))
            else:
                _stop_factories(configuration)

    def opened(self, connection: ClientSession) -> None:
        self.connections.add(connection)
        if self.runtime.events.has_listener:
            self.runtime.events.begun(connection.record)

    def closed(self, connection: ClientSession) -> None:  # noqa: C901 - each would pay for calls
        """Log an ended connection, and remove it."""
        if connection in self.connections:
            self.connections.discard(connection)
            if self._retired:
                self._count_retired(connection.configuration)
            if not self.connections:
                self._rest()
        if self.runtime.descriptors.to_call:
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
            except Exception:  # noqa: BLE001 - the embedding program's log must not stop the clean-up
                _log.failure("the access log raised; the line is lost")
        if self._emptied is not None and not self.connections:
            emptied, self._emptied = self._emptied, None
            emptied.callback(None)

    def emptied(self) -> Deferred[None]:
        """Fire once there are no connections."""
        if not self.connections:
            return succeed(None)
        if self._emptied is None:
            self._emptied = Deferred()
        return self._emptied

    def abort(self, reason: AbortReason) -> None:
        """End every connection."""
        for connection in list(self.connections):
            connection.end(reason)

    def start_destinations(self) -> None:
        """Start the backends and the in-process protocols of the routes, before the first port opens."""
        self._is_started = True
        self.upstreams.start()
        for outcome in self.configuration.in_process:
            outcome.factory.doStart()

    def stop_destinations(self) -> None:
        """Stop what `start_destinations` has started, once the last connection has ended; no port is open."""
        self._is_started = False
        self._retire(self.configuration)
        if not self.connections:
            self.drop_idle_timers()
        # Not earlier: clients may still wait for a look-up, or for a health check to find a server up.
        self._stopping = self.emptied().addCallback(lambda _: self.upstreams.stop())

    def _rest(self) -> None:
        self.runtime.clock.drop_idle()  # none is left behind the last connection

    def drop_idle_timers(self) -> None:
        self.runtime.clock.drop_idle()

    def stopped(self) -> Deferred[None]:
        return self._stopping


def _stop_factories(configuration: Configuration) -> None:
    for outcome in configuration.in_process:
        outcome.factory.doStop()
