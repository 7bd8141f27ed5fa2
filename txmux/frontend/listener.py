"""What stands behind a listening port: who is let in, and the connections there are."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from txmux.detection.detector import Detector
from txmux.frontend.addresses import text_of
from txmux.frontend.admission import Admission, Tally
from txmux.frontend.connection import MuxProtocol
from txmux.frontend.engine import Engine
from txmux.observe.record import ConnectionRecord
from txmux.rules.model import InProcess, Listener
from txmux.sockets.transport import SocketTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime

    from txmux.observe.access_log import AccessLog
    from txmux.relay.ends import IRelayTransport
    from txmux.relay.interface import AbortReason
    from txmux.rules.model import Route, Server

__all__ = ["MuxFactory"]

_log = Logger()

_ids = (
    f"{prefix}-{number:x}" for prefix in [secrets.token_hex(4)] for number in itertools.count(1)
)


class MuxFactory(ServerFactory):
    """Tells apart what the clients of one port speak, and leads each to its backend.

    It can be given to any Twisted server endpoint. `txmux.MuxService` makes one for each ``[listen]`` section.

    Args:
        routes: In the order of their priority; `txmux.route` makes them in Python.
        settings: As in a ``[listen]`` section; its ``endpoints`` and ``backlog`` mean nothing here.
        access_log: Is told of each connection when it has ended.
        tally: Connections counted together with those of other listeners.
        own_tally: Connections of this listener, where other processes count with it.
        engine: Moves the bytes; one for this listener alone if not given.
        reactor: For that; the process's own if not given.

    Attributes:
        engine: The same.
    """

    noisy = False

    def __init__(
        self,
        routes: Iterable[Route],
        settings: Listener = Listener("mux"),  # noqa: B008 - it is frozen
        *,
        access_log: AccessLog | None = None,
        tally: Tally | None = None,
        own_tally: Tally | None = None,
        engine: Engine | None = None,
        reactor: Any = None,
    ) -> None:
        if engine is None:
            if reactor is None:
                from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
            engine = Engine(reactor)
        self.engine = engine
        self.clock: IReactorTime = engine.clock
        self.settings = settings
        self.detector = Detector(routes, settings.peek_limit)
        self.connections: set[MuxProtocol] = set()
        self._access_log = access_log
        self._admission = Admission(
            settings, tally or Tally(), own_tally or Tally(settings.max_connections)
        )
        self._emptied: Deferred[None] | None = None

    def buildProtocol(  # type: ignore[override]  # `factory` is narrower than Twisted's
        self, addr: IAddress | None
    ) -> MuxProtocol:
        """Let a client in, or refuse it, which is logged."""
        assert addr is not None  # noqa: S101 - accepted connections have one
        record = ConnectionRecord(time.time(), next(_ids), self.settings.name, text_of(addr))
        return MuxProtocol(self, record, self._admission.enter(addr))

    def listen(self, opened: socket.socket) -> IListeningPort:
        """Accept the clients of a socket, of which a duplicate is taken."""
        return self.engine.listen(opened, self, keepalive=self.settings.keepalive)

    def dial(
        self, server: Server, factory: Any, timeout: float, *, eager: bool
    ) -> Callable[[], None]:
        """Start to connect to a server; see `Engine.dial`."""
        keepalive = self.settings.keepalive
        return self.engine.dial(server, factory, timeout, keepalive=keepalive, eager=eager)

    def prepare(self, transport: IRelayTransport) -> None:
        """Set the options of a socket, whether a client's or a server's, that does not have them from its port."""
        if not isinstance(transport, SocketTransport) and hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(enabled=True)
            transport.setTcpKeepAlive(self.settings.keepalive)

    def opened(self, connection: MuxProtocol) -> None:
        """Note a connection that was let in."""
        self.connections.add(connection)
        self.engine.undecided += 1

    def closed(self, connection: MuxProtocol) -> None:
        """Tell the access log of a connection, and forget it."""
        if connection in self.connections:
            self.connections.discard(connection)
            if not self.connections:
                self.engine.clock.rest()
            self._admission.leave()
        if self._access_log is not None and connection.logged:
            try:
                self._access_log.write(connection.record)
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
            self._abort(connection, reason)

    def _abort(self, connection: MuxProtocol, reason: AbortReason) -> None:
        try:
            connection.stage.abort(reason)
        except Exception:  # noqa: BLE001 - one that cannot be ended must not save the others
            _log.failure("{id} could not be ended in good order", id=connection.record.id)
            connection.transport.abortConnection()
            connection.over("error")

    def startFactory(self) -> None:
        """Start the factories of this process that routes lead to."""
        for outcome in self._in_process():
            outcome.factory.doStart()

    def stopFactory(self) -> None:
        """Stop them again."""
        for outcome in self._in_process():
            outcome.factory.doStop()

    def _in_process(self) -> list[InProcess]:
        outcomes = [route.outcome for route in self.detector.routes]
        outcomes += [self.settings.silent, self.settings.default]
        return [outcome for outcome in outcomes if isinstance(outcome, InProcess)]
