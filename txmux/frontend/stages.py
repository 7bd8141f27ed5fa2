"""The stages of a connection, in their order; `txmux.frontend.connection` tells how they follow each other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from txmux.backends.connect.connector import BackendConnector
from txmux.frontend.announcement import AwaitingHello, header_for, lacks_hello
from txmux.frontend.closing import Closing, refuse
from txmux.frontend.handshaking import Handshaking
from txmux.frontend.inprocess import HandedOver
from txmux.frontend.reject import turn_away
from txmux.proxyprotocol.header import TlvType
from txmux.rules.model import InProcess, Refusal

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.connect.connector import ConnectFailure
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.detection.detector import Decision
    from txmux.frontend.connection import MuxProtocol
    from txmux.frontend.levels import Level
    from txmux.interfaces import Exchange
    from txmux.observe.record import EndReason
    from txmux.relay.interface import AbortReason, RelayResult
    from txmux.rules.model import Backend, Outcome, Route

__all__ = ["Closing", "Connecting", "Peeking", "Relaying", "refuse"]


class Peeking:
    """The client's first bytes are collected until they decide where it belongs.

    Args:
        connection: The client's.
        deadline: Calls `too_late`, or has run out; begins now if not given.
        level: Whose routes are asked; the listener's own if not given.
    """

    _answers = 0  # given to the client

    def __init__(
        self,
        connection: MuxProtocol,
        deadline: IDelayedCall | None = None,
        level: Level | None = None,
    ) -> None:
        self._connection = connection
        factory = connection.factory
        self._level = level = level or factory.level
        detector = level.detector
        client = connection.client if detector.asks_who else None
        self._detection = detector.begin(client.host if client else None, connection.record.time)
        self._bytes = b""
        self._deadline = deadline or factory.clock.callLater(
            factory.settings.detect_timeout, self.too_late
        )

    def data(self, data: bytes) -> None:
        """Ask the routes again."""
        self._connection.record.bytes_in += len(data)
        self._bytes += data
        decision = self._detection.feed(self._bytes)
        if self._detection.answered:
            self._answer(self._detection.answered)
        if decision is not None:
            self._decided(decision)

    def _answer(self, answered: tuple[Exchange, ...]) -> None:
        """Say what the client waits for, once."""
        for exchange in answered[self._answers :]:
            self._connection.record.bytes_out += len(exchange.answer)
            self._connection.transport.write(exchange.answer)
        self._answers = len(answered)

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

    def too_late(self) -> None:
        """Decide with what came until now."""
        if self._bytes:
            self._decided(self._detection.finish())
        else:
            _lead(self._connection, self._level.silent, "silent", b"")

    def _decided(self, decision: Decision[Route], *, client_finished: bool = False) -> None:
        self._stop_waiting()
        connection = self._connection
        route = decision.route
        record = connection.record
        record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
        if decision.answered:
            connection.asked = tuple(e for e in decision.answered if e.repeat)
            self._bytes = self._bytes[sum(len(e.request) for e in decision.answered) :]
        if route is None:
            default = self._level.default
            _lead(connection, default, "no-route", self._bytes, client_finished=client_finished)
            return
        connection.record.route = route.name
        connection.logged = route.log
        if route.terminate_tls is not None:
            end_tls(connection, route, self._bytes, client_finished=client_finished)
        elif route.outcome is not None:
            _lead(connection, route.outcome, "denied", self._bytes, client_finished=client_finished)


def end_tls(
    connection: MuxProtocol, route: Route, pending: bytes, *, client_finished: bool = False
) -> None:
    """Have a client shake hands, and find out what it speaks inside of TLS."""
    factory = connection.factory
    # Who asks for TLS first, as PostgreSQL does, has it now; the server is not asked again.
    connection.asked = ()

    def go_on() -> None:
        connection.enter(Peeking(connection, level=factory.levels.inside(route)))

    stage = Handshaking(connection, factory.terminations.of(route), go_on)
    stage.start(pending, client_finished=client_finished)


def _lead(
    connection: MuxProtocol,
    outcome: Outcome,
    refusal_reason: EndReason,
    pending: bytes,
    *,
    client_finished: bool = False,
) -> None:
    """Go where a decision leads, with the bytes that led there."""
    if connection.record.detect_ms is None:
        connection.record.detect_ms = connection.elapsed_ms()
    if connection.permit is not None:
        connection.permit.settle()
    if isinstance(outcome, Refusal):
        turn_away(connection, outcome, refusal_reason, pending, client_finished=client_finished)
        return
    connection.record.backend = outcome.name
    if isinstance(outcome, InProcess):
        connection.settle()
        HandedOver(connection, outcome).start(pending, client_finished=client_finished)
    elif outcome.proxy_tlvs and not client_finished and lacks_hello(connection, outcome, pending):
        AwaitingHello(connection, pending, partial(_connect, connection, outcome)).start()
    else:
        _connect(connection, outcome, pending, client_finished)


def _connect(
    connection: MuxProtocol,
    backend: Backend,
    pending: bytes,
    client_finished: bool,  # noqa: FBT001 - a callback's
) -> None:
    Connecting(connection, backend, pending, client_finished=client_finished).start()


class Connecting:
    """A server is being connected. What the client sends meanwhile is kept, up to the peek limit."""

    def __init__(
        self, connection: MuxProtocol, backend: Backend, pending: bytes, *, client_finished: bool
    ) -> None:
        factory = connection.factory
        self._connection = connection
        self._upstream = upstream = factory.upstreams.of(backend)
        self._pending = pending
        self._client_finished = client_finished
        header, client = b"", None
        if upstream.asks_who:
            client = connection.client
            if backend.proxy_protocol != "off":
                header = header_for(connection, backend, pending)
        self._connector = BackendConnector(
            upstream,
            factory.dial,
            factory.clock,
            header,
            client,
            eager=bool(pending),
            on_connected=self._connected,
            on_failed=self._failed,
        )
        if connection.asked:
            self._connector.requests = connection.asked
        if upstream.tls is not None:
            agreed = (tlv.value for tlv in connection.ended_tls if tlv.type == TlvType.ALPN)
            self._connector.alpn = tuple(agreed)

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

    def _connected(self, end: ProxyClient, member: Member) -> None:
        connection = self._connection
        record = connection.record
        record.server = member.target.text
        record.connect_ms = connection.elapsed_ms() - (record.detect_ms or 0.0)
        self._note_attempts()
        connection.factory.prepare(end.transport)
        pending, self._pending = self._pending, b""
        del self._connector
        relaying = Relaying(connection, self._upstream, member, end)
        relaying.start(pending, client_finished=self._client_finished)

    def _note_attempts(self) -> None:
        tried = self._connector.tried
        if tried:
            attempts = [f"{member.target.text} {cause}" for member, cause in tried.items()]
            facts = self._connection.record.facts
            before = [facts["tried"]] if "tried" in facts else []
            facts["tried"] = ", ".join(before + attempts)

    def _failed(self, cause: ConnectFailure) -> None:
        connection = self._connection
        self._note_attempts()
        tried = [*self._connector.tried]
        del self._connector
        fallback = self._upstream.backend.fallback
        finished = self._client_finished
        if isinstance(fallback, Refusal):
            if tried:
                connection.record.server = tried[-1].target.text
            turn_away(connection, fallback, cause, self._pending, client_finished=finished)
            return
        _lead(connection, fallback, cause, self._pending, client_finished=finished)


class Relaying:
    """Both ends stand, and a relay carries the bytes; it hears of both ends itself."""

    def __init__(
        self, connection: MuxProtocol, upstream: Upstream, member: Member, server: ProxyClient
    ) -> None:
        self._connection = connection
        self._pool = upstream.pool
        self._member = member
        self._server = server
        engine = connection.factory.engine
        self._relay = engine.relay(
            connection, server, upstream.timeouts, self._over, upstream.rates
        )

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
        self._pool.released(self._member)
        self._connection.over(result.reason)
