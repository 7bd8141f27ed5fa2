"""A listener at work: the configuration for its next clients, and its connections and flows that are not over."""

from __future__ import annotations

import socket
from typing import ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from txmux.backends.upstreams import Upstreams
from txmux.client.configuration import Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.served import Served
from txmux.interfaces import Transport
from txmux.telemetry.access_log import AccessLog, should_log
from txmux.telemetry.reasons import AbortReason

_log = Logger()


class ActiveListener:
    """A listener in this process, which logs and counts the end of its connections and flows.

    Attributes:
        configuration: The configuration under which the next clients are accepted.
        transport: Streams or datagrams.
        connections: The connections and flows that are not over.
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
        self.connections: set[Served] = set()
        self._access_log = access_log
        self._is_started = False
        self._left: list[tuple[Configuration, int]] = []
        self._emptied: Deferred[None] | None = None
        self._stopping: Deferred[None] = succeed(None)

    def listen(self, opened: socket.socket) -> IListeningPort:
        """Accept the clients of a socket, of which a duplicate is taken."""
        raise NotImplementedError

    def log_to(self, access_log: AccessLog | None) -> None:
        self._access_log = access_log

    def change(self, configuration: Configuration) -> None:
        """Accept the next clients under other rules; existing connections keep theirs."""
        before, self.configuration = self.configuration, configuration
        if self._is_started:
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
            if not self.connections:
                self._rest()
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

    def start_destinations(self) -> None:
        """Start the backends, and the protocols of this process that routes name; its first port is about to open."""
        self._is_started = True
        self.upstreams.start()
        for outcome in self.configuration.in_process:
            outcome.factory.doStart()

    def stop_destinations(self) -> None:
        """Stop them again when the last connection has ended, since no port is left."""
        self._is_started = False
        self._leave(self.configuration)
        if not self.connections:
            self.drop_idle_timers()
        # Until then, clients may wait for a name, or for a server that a check has to find up.
        self._stopping = self.emptied().addCallback(lambda _: self.upstreams.stop())

    def _rest(self) -> None:
        """Leave no timer behind the last connection."""
        self.drop_idle_timers()

    def drop_idle_timers(self) -> None:
        """Cancel the timers that no connection waits for."""
        self.runtime.clock.drop_idle()

    def stopped(self) -> Deferred[None]:
        return self._stopping


def _stop(configuration: Configuration) -> None:
    for outcome in configuration.in_process:
        outcome.factory.doStop()
