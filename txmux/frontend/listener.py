"""What stands behind a listening port: who is let in, and the connections there are."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from txmux.detection.detector import Detector
from txmux.frontend.addresses import ip_address_of, text_of
from txmux.frontend.connection import MuxProtocol
from txmux.observe.record import ConnectionRecord
from txmux.rules.model import InProcess, Listener

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IAddress, IReactorTime

    from txmux.observe.access_log import AccessLog
    from txmux.observe.record import EndReason
    from txmux.proxyprotocol.header import Address
    from txmux.relay.ends import IRelayTransport
    from txmux.relay.interface import AbortReason
    from txmux.rules.model import Route

__all__ = ["MuxFactory", "Tally"]

_log = Logger()

_ids = (
    f"{prefix}-{number:x}" for prefix in [secrets.token_hex(4)] for number in itertools.count(1)
)


@attrs.define
class Tally:
    """How many connections there are, among listeners that share a limit.

    Attributes:
        limit: At most so many; 0 is no limit.
        count: So many there are.
    """

    limit: int = 0
    count: int = 0

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return bool(self.limit) and self.count >= self.limit


class MuxFactory(ServerFactory):
    """Tells apart what the clients of one port speak, and leads each to its backend.

    It can be given to any Twisted server endpoint. `txmux.MuxService` makes one for each ``[listen]`` section.

    Args:
        routes: In the order of their priority; `txmux.route` makes them in Python.
        settings: As in a ``[listen]`` section; its ``endpoints`` and ``backlog`` mean nothing here.
        access_log: Is told of each connection when it has ended.
        tally: Connections counted together with those of other listeners.
        reactor: Connects and tells the time; the process's own if not given.
    """

    noisy = False

    def __init__(
        self,
        routes: Iterable[Route],
        settings: Listener = Listener("mux"),  # noqa: B008 - it is frozen
        *,
        access_log: AccessLog | None = None,
        tally: Tally | None = None,
        reactor: Any = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it
        self.reactor = reactor
        self.clock: IReactorTime = reactor
        self.settings = settings
        self.detector = Detector(routes, settings.peek_limit)
        self.connections: set[MuxProtocol] = set()
        self._access_log = access_log
        self._tally = Tally() if tally is None else tally
        self._emptied: Deferred[None] | None = None

    def buildProtocol(  # type: ignore[override]  # `factory` is narrower than Twisted's
        self, addr: IAddress | None
    ) -> MuxProtocol:
        """Let a client in, or refuse it, which is logged."""
        assert addr is not None  # noqa: S101 - accepted connections have one
        record = ConnectionRecord(time.time(), next(_ids), self.settings.name, text_of(addr))
        return MuxProtocol(self, record, self._refuse(ip_address_of(addr)))

    def _refuse(self, client: Address | None) -> EndReason | None:
        settings = self.settings
        if client is not None and settings.deny is not None and client.host in settings.deny:
            return "denied"
        if settings.allow is not None and (client is None or client.host not in settings.allow):
            return "denied"
        if self._tally.full or 0 < settings.max_connections <= len(self.connections):
            return "limit"
        return None

    def prepare(self, transport: IRelayTransport) -> None:
        """Set the options of a socket, whether a client's or a server's; UNIX sockets have none."""
        if hasattr(transport, "setTcpNoDelay"):
            transport.setTcpNoDelay(enabled=True)
            transport.setTcpKeepAlive(self.settings.keepalive)

    def opened(self, connection: MuxProtocol) -> None:
        """Count a connection."""
        self.connections.add(connection)
        self._tally.count += 1

    def closed(self, connection: MuxProtocol) -> None:
        """Tell the access log of a connection, and forget it."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._tally.count -= 1
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
