"""The stages of a connection, in their order; `txmux.frontend.connection` tells how they follow each other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.interfaces import ISSLTransport

from txmux.backends.connect import BackendConnector, proxy_header
from txmux.frontend.inprocess import HandedOver
from txmux.relay.interface import Timeouts
from txmux.rules.model import InProcess, Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.backends.client import ProxyClient
    from txmux.backends.connect import ConnectFailure
    from txmux.detection.detector import Decision
    from txmux.frontend.connection import MuxProtocol
    from txmux.observe.record import EndReason
    from txmux.relay.interface import AbortReason, RelayResult
    from txmux.rules.model import Backend, Outcome, Route, Server

__all__ = ["Closing", "Connecting", "Peeking", "Relaying", "refuse"]

_GOODBYE = 5.0  # seconds


class Peeking:
    """The client's first bytes are collected until they decide where it belongs."""

    def __init__(self, connection: MuxProtocol) -> None:
        self._connection = connection
        factory = connection.factory
        detector = factory.detector
        client = connection.client if detector.asks_who else None
        self._detection = detector.begin(client.host if client else None)
        self._bytes = b""
        self._deadline = factory.clock.callLater(factory.settings.detect_timeout, self._too_late)

    def data(self, data: bytes) -> None:
        """Ask the routes again."""
        self._connection.record.bytes_in += len(data)
        self._bytes += data
        decision = self._detection.feed(self._bytes)
        if decision is not None:
            self._decided(decision)

    def finished(self) -> None:
        """Decide with what came; with nothing at all it was a port scan, which opens no backend connection."""
        if self._bytes:
            self._decided(self._detection.finish(), client_finished=True)
        else:
            self._stop_waiting()
            refuse(self._connection, Refusal.CLOSE, "client-gone")

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """The client went away without having become recognisable."""
        self._stop_waiting()
        self._connection.over("client-gone")

    def abort(self, reason: AbortReason) -> None:
        """Give up on the client."""
        self._stop_waiting()
        refuse(self._connection, Refusal.RESET, reason)

    def _stop_waiting(self) -> None:
        if self._deadline.active():
            self._deadline.cancel()

    def _too_late(self) -> None:
        if self._bytes:
            self._decided(self._detection.finish())
        else:
            _lead(self._connection, self._connection.factory.settings.silent, "silent", b"")

    def _decided(self, decision: Decision[Route], *, client_finished: bool = False) -> None:
        self._stop_waiting()
        connection = self._connection
        route = decision.route
        connection.record.facts = decision.facts
        if route is None:
            default = connection.factory.settings.default
            _lead(connection, default, "no-route", self._bytes, client_finished=client_finished)
        else:
            connection.record.route = route.name
            connection.logged = route.log
            _lead(connection, route.outcome, "denied", self._bytes, client_finished=client_finished)


def _lead(
    connection: MuxProtocol,
    outcome: Outcome,
    refusal_reason: EndReason,
    pending: bytes,
    *,
    client_finished: bool = False,
) -> None:
    """Go where a decision leads, with the bytes that led there."""
    connection.record.detect_ms = connection.elapsed_ms()
    if isinstance(outcome, Refusal):
        refuse(connection, outcome, refusal_reason)
        return
    connection.record.backend = outcome.name
    if isinstance(outcome, InProcess):
        connection.settle()
        HandedOver(connection, outcome).start(pending, client_finished=client_finished)
    else:
        Connecting(connection, outcome, pending, client_finished=client_finished).start()


class Connecting:
    """A server is being connected. What the client sends meanwhile is kept, up to the peek limit."""

    def __init__(
        self, connection: MuxProtocol, backend: Backend, pending: bytes, *, client_finished: bool
    ) -> None:
        self._connection = connection
        self._backend = backend
        self._pending = pending
        self._client_finished = client_finished
        header = b""
        if backend.proxy_protocol != "off":
            header = proxy_header(backend, connection.client, connection.local)
        self._connector = BackendConnector(
            connection.factory.clock,
            partial(connection.factory.dial, eager=bool(pending or header)),
            backend,
            header,
            self._connected,
            self._failed,
        )

    def start(self) -> None:
        """Connect."""
        # Reading goes on for as long as there is room, because a socket that is not read does not tell
        # that its peer is gone.
        self._connection.enter(self)
        self._pause_when_full()
        self._connector.start()

    def data(self, data: bytes) -> None:
        """Keep the bytes."""
        self._connection.record.bytes_in += len(data)
        self._pending += data
        self._pause_when_full()

    def _pause_when_full(self) -> None:
        if len(self._pending) >= self._connection.factory.settings.peek_limit:
            self._connection.transport.pauseProducing()

    def finished(self) -> None:
        """Note that the client has said all it had to say; it may still want to hear the answer."""
        self._client_finished = True

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """Give up: there is nobody left to connect for."""
        self._connector.cancel()
        self._connection.over("client-gone")

    def abort(self, reason: AbortReason) -> None:
        """Give up on the server and the client."""
        self._connector.cancel()
        refuse(self._connection, Refusal.RESET, reason)

    def _connected(self, end: ProxyClient, server: Server) -> None:
        connection = self._connection
        record = connection.record
        record.server = server.text
        record.connect_ms = connection.elapsed_ms() - (record.detect_ms or 0.0)
        connection.factory.prepare(end.transport)
        pending, self._pending = self._pending, b""
        del self._connector
        relaying = Relaying(connection, self._backend, end)
        relaying.start(pending, client_finished=self._client_finished)

    def _failed(self, cause: ConnectFailure, server: Server) -> None:
        self._connection.record.server = server.text
        del self._connector
        refuse(self._connection, Refusal.CLOSE, cause)


class Relaying:
    """Both ends stand, and a relay carries the bytes; it hears of both ends itself."""

    def __init__(self, connection: MuxProtocol, backend: Backend, server: ProxyClient) -> None:
        self._connection = connection
        self._server = server
        timeouts = Timeouts(backend.idle_timeout, backend.half_close_timeout, backend.max_duration)
        engine = connection.factory.engine
        self._relay = engine.relay(connection, server, timeouts, self._over)

    def start(self, pending: bytes, *, client_finished: bool) -> None:
        """Relay."""
        connection = self._connection
        connection.stage = self
        connection.settle()
        self._relay.start(connection, self._server, pending, client_finished=client_finished)

    def abort(self, reason: AbortReason) -> None:
        """End both connections."""
        self._relay.abort(reason)

    def _over(self, result: RelayResult) -> None:
        record = self._connection.record
        record.bytes_in += result.bytes_in
        record.bytes_out += result.bytes_out
        self._connection.over(result.reason)


class Closing:
    """The client is led nowhere and its connection is being closed."""

    def __init__(self, connection: MuxProtocol, reason: EndReason) -> None:
        self._connection = connection
        self._reason = reason
        self._deadline: IDelayedCall | None = None

    def wait(self) -> None:
        """Wait for the client to go, but not for ever."""
        clock = self._connection.factory.clock
        self._deadline = clock.callLater(_GOODBYE, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        self._connection.transport.abortConnection()

    def data(self, data: bytes) -> None:
        """Count what nobody will read."""
        self._connection.record.bytes_in += len(data)

    def finished(self) -> None:
        """Nothing more is to be done about it."""

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        """This was what we waited for."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._connection.over(self._reason)

    def abort(self, reason: AbortReason) -> None:  # noqa: ARG002
        """Wait no longer."""
        self._connection.transport.abortConnection()


def refuse(connection: MuxProtocol, how: Refusal, reason: EndReason) -> None:
    """Close a client's connection, which will be logged with this reason."""
    connection.settle()
    closing = Closing(connection, reason)
    connection.enter(closing)
    if how is Refusal.RESET:
        connection.transport.abortConnection()
        return
    connection.transport.loseConnection()
    if connection.stage is closing and ISSLTransport.providedBy(connection.transport):
        # TLS waits for the other side's goodbye.
        closing.wait()
