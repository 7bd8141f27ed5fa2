"""A listener for TCP: accepts clients, and takes connections of other processes over."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import ServerFactory
from typing_extensions import override

from txmux.access.admission import Admission
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import Upstreams
from txmux.client.active_listener import ActiveListener
from txmux.client.configuration import Configuration
from txmux.client.io_runtime import IORuntime
from txmux.client.session import new_id
from txmux.client.tls.terminators import TlsTerminators
from txmux.interfaces import Transport
from txmux.net.addresses import text_of
from txmux.rules.model import NOWHERE, Listener, Route
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.fast_path import FastPath
from txmux.tcp.moving import MovedConnection, SlotRelease, Sockets
from txmux.tcp.sweep import Sweep
from txmux.telemetry.access_log import AccessLog
from txmux.telemetry.record import ConnectionRecord


class MuxFactory(ServerFactory, ActiveListener):
    """Detects what each client of a listener speaks, and connects it to its backend.

    It can be given to any Twisted server endpoint. `txmux.MuxService` makes one for each ``[listen]`` section for TCP.

    Args:
        routes: In the order of their priority; `txmux.route` makes them in Python. Those ``under`` others are there too.
        settings: As in a ``[listen]`` section; its ``endpoints`` mean nothing here.
        access_log: Records each connection when it ends.
        admission: Decides which clients are let in; made from the settings if not given.
        runtime: The process's; one for this listener alone if not given.
        upstreams: The backends of this process; those of this listener alone if not given.
        terminators: The TLS that this process terminates; that of this listener alone if not given.
        reactor: The reactor of such a runtime; the process's own if not given.

    Raises:
        MuxError: A backend cannot be used, or files for TLS: one is missing, say.

    Attributes:
        configuration: The configuration under which the next clients are accepted.
        runtime: As above.
        upstreams: As above.
        connections: The connections that are not over.
    """

    noisy = False
    transport = Transport.TCP

    def __init__(
        self,
        routes: Iterable[Route],
        settings: Listener = Listener("mux"),  # noqa: B008 - it is frozen
        *,
        access_log: AccessLog | None = None,
        admission: Admission | None = None,
        runtime: IORuntime | None = None,
        upstreams: Upstreams | None = None,
        terminators: TlsTerminators | None = None,
        reactor: Any = None,
    ) -> None:
        if not isinstance(settings, Listener) or settings.section is NOWHERE:
            # Not of a rules file, whose values are read already: a worker does not load what reads them.
            from txmux.rules.embedding import for_streams  # noqa: PLC0415

            routes, settings = for_streams(routes, settings)
        if runtime is None:
            if reactor is None:
                from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
            runtime = IORuntime(reactor)
        upstreams = upstreams or Upstreams(
            runtime.reactor,
            runtime.clock,
            runtime.dialler,
            counters=runtime.counters,
            is_own_address=runtime.loop_detector.is_own_address,
        )
        configuration = Configuration.make(
            routes,
            settings,
            admission or Admission(settings, runtime.clock.seconds),
            runtime,
            upstreams,
            terminators or TlsTerminators(runtime.reactor),
        )
        super().__init__(configuration, runtime, upstreams, access_log)
        self._fast_path: FastPath | None = None
        self.sweep = Sweep(runtime.clock, self.connections, runtime.clock.drop_idle)

    def buildProtocol(self, addr: IAddress | None) -> MuxProtocol:
        """Make the end of a client's connection, which lets it in or refuses it."""
        assert addr is not None  # noqa: S101 - accepted connections have one
        self.runtime.descriptors.client_accepted()
        name = self.configuration.settings.name
        record = ConnectionRecord(time.time(), new_id(), name, text_of(addr))
        return MuxProtocol(self._path(), record)

    def _path(self) -> FastPath:
        path = self._fast_path
        if path is None or path.configuration is not self.configuration:
            path = self._fast_path = FastPath(self, self.configuration)
        return path

    def serve(
        self, client: socket.socket, name: Any, host: IAddress | None, *, is_gone: bool = False
    ) -> None:
        """Serve a client of plain TCP that has been accepted.

        Args:
            client: Its socket, made with SOCK_NONBLOCK, so that Python does not wait for it. The kernel would, without MSG_DONTWAIT.
            name: The client's address, as ``accept()`` returns it.
            host: The address that it has connected to; ``None`` if only its socket knows.
            is_gone: Whether it has left already, and is only counted and logged.

        Raises:
            OSError: The socket cannot be watched. The connection has ended.
        """
        path = self._fast_path
        if path is None or path.configuration is not self.configuration:
            path = self._path()
        path.watch_error = None  # of an earlier one
        connection = MuxProtocol.on_socket(path, client, name, host)
        if is_gone:
            self.configuration.counts.accepted()
            connection.finish("client-gone")
            return
        self.runtime.descriptors.client_accepted()
        if path.needs_transport:
            connection.make_transport(reading=True)
            connection.connectionMade()
        else:
            connection.begin()
        if path.watch_error is not None:
            raise path.watch_error

    def adopt(
        self, moved: MovedConnection, sockets: Sockets, release_elsewhere: SlotRelease | None = None
    ) -> None:
        """Take over a connection of another process, which is relayed there, or waits for a server.

        Raises:
            LookupError: It waits for a server of a backend that is not in these rules. The sockets are still the caller's, as with
                any other error.
        """
        record = moved.record
        here: tuple[Upstream, Member | None] | None
        if moved.waited is None:
            here = self.upstreams.adopt(record.backend or "", record.server or "")
        else:
            here = self.upstreams.find(record.backend or ""), None
        connection = MuxProtocol(self._path(), record)
        if 0 < moved.version < self.configuration.version:
            connection.configuration = attrs.evolve(self.configuration, version=moved.version)
        try:
            connection.adopt(moved, sockets, here, release_elsewhere)
        except BaseException:
            if here is not None and here[1] is not None and connection.stage is None:
                here[0].pool.released(here[1])
            connection.finish("error")  # so that its end is logged
            raise

    @override
    def listen(self, opened: socket.socket) -> IListeningPort:
        return self.runtime.listen(opened, self, self.configuration.options)

    def startFactory(self) -> None:
        self.start_destinations()

    def stopFactory(self) -> None:
        self.stop_destinations()

    @override
    def _rest(self) -> None:
        if not self._is_started or self.sweep.timer is None:
            self.drop_idle_timers()
        # Otherwise the sweep does that, unless another client comes within a second, who needs the timers.

    @override
    def drop_idle_timers(self) -> None:
        self.sweep.stop()
        super().drop_idle_timers()
