"""One client's connection, from accept to its line in the access log: all that can follow what.

A connection is at one *stage* at a time, and goes from each to others by the methods here::

    accept ──┬────────────────────────> Peeking ─────> lead ──┬───────────────────> Connecting ──> Relaying ──> over
             └─> ReadingProxyHeader ──> ^    │          ^     ├─> AwaitingHello ──> ^   │
                                        │    v          │     ├─> ServingHere ──> over  │
                                      Handshaking       │     └─> HandingOff ──> over   │
                                                        └───────── fall back ───────────┘

    ReadingProxyHeader, Peeking, AwaitingHello, Connecting, HandingOff, lead: turn away ──> Closing or Rejecting ──> over
    any stage: the client is gone ──> over
    Relaying: suspend ──> let go, and Adopted in another process; or resume

A stage tells what it has found out, not where to go. What it waits for itself ends when it is left.

While a client has said nothing, Peeking may have a server connected already (a race). That one goes on to Connecting, or is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from typing_extensions import override

from txmux.access.admission import Refused
from txmux.access.loops import MOST_HOPS
from txmux.backends.connect.client import ProxyClient
from txmux.net.addresses import address_in, text_of
from txmux.net.sockets.memory import MEMORY, OutOfMemory
from txmux.net.sockets.transport import SocketTransport
from txmux.rules.model import Handover, InProcess, Refusal, fewer
from txmux.tcp.dialling import race_for
from txmux.tcp.movable import MovableEnd
from txmux.tcp.served import note_decision
from txmux.tcp.stage import OVER
from txmux.tcp.stages.awaiting_hello import AwaitingHello, lacks_hello
from txmux.tcp.stages.closing import Closing
from txmux.tcp.stages.connecting import Connecting
from txmux.tcp.stages.handing_off import HandingOff
from txmux.tcp.stages.handshaking import Handshaking
from txmux.tcp.stages.peeking import Peeking
from txmux.tcp.stages.reading_proxy_header import ReadingProxyHeader, is_sender
from txmux.tcp.stages.rejecting import Rejecting
from txmux.tcp.stages.relaying import Adopted, Relaying
from txmux.tcp.stages.serving_here import ServingHere
from txmux.telemetry.recent import CAPTURED
from txmux.wire.proxyprotocol.decode import LONGEST_HEADER

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.access.loops import Connection
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Destination, Upstream
    from txmux.net.tls.termination import Termination
    from txmux.tcp.configuration import CompiledRoute, Configuration, RuleLayer
    from txmux.tcp.io_runtime import IORuntime
    from txmux.tcp.moving import GiveBack, MovedConnection, Sockets
    from txmux.tcp.preconnection import Held
    from txmux.tcp.stage import Stage
    from txmux.telemetry.reasons import AbortReason, ConnectFailure, EndReason
    from txmux.telemetry.record import ConnectionRecord

__all__ = ["MuxProtocol", "Owner"]

_log = Logger()  # of the module: an event must not keep a connection's objects alive


class Owner(Protocol):
    """Whoever has the connections of a listener."""

    def opened(self, connection: MuxProtocol, /) -> None:
        """Record a connection that is going to be served, as far as is known."""

    def closed(self, connection: MuxProtocol, /) -> None:
        """Record that one is over, whether it was going to be served or not."""


class MuxProtocol(MovableEnd):
    """The client's end of a connection, and where it goes. Made by `MuxFactory` for each client.

    Args:
        owner: Is told of its beginning and its end.
        configuration: The rules under which the client was accepted.
        runtime: What it works with.
        record: What is known of it so far.

    Attributes:
        decided_after: The bytes that had come from the client when it was decided where it is led.
        led_for: What would be the reason, if it was led to a refusal.
        unrecognised: The first of them, if no route took it; empty if the listener forbids to keep them.
    """

    decided_after = 0
    led_for: EndReason | None = None
    unrecognised: bytes | None = None
    _settled = True
    _is_out_of_memory = False
    _hop = 0

    def __init__(
        self,
        owner: Owner,
        configuration: Configuration,
        runtime: IORuntime,
        record: ConnectionRecord,
    ) -> None:
        self._owner = owner
        self.configuration = configuration
        self.logged = configuration.settings.log
        self.runtime = runtime
        self.record = record
        self.counted = configuration.counts.unrouted
        self._accepted_at = runtime.clock.seconds()

    # The beginning.

    @override
    def connectionMade(self) -> None:
        transport, configuration = self.transport, self.configuration
        configuration.counts.accepted()
        host: Any = transport.getHost()
        self.record.local = text_of(host)
        self.runtime.hops.ports.add(getattr(host, "port", 0))
        if configuration.hands_over:
            self._look()
        senders = configuration.settings.accept_proxy_from
        if senders is not None and is_sender(transport.getPeer(), senders):
            # Before the header has come, nothing of it is the client's, and who is to be admitted is not known.
            self._opened()
            self.enter(ReadingProxyHeader(self))
        elif self.admit():
            self._opened()
            self.peek(configuration.top)

    @override
    def admit(self) -> bool:
        try:
            self.permit = self.configuration.admission.enter(self._source, self.transport.getPeer())
        except Refused as refused:
            if refused.limit is not None:
                self.configuration.counts.refused(refused.limit)
            self.turn_away(Refusal.CLOSE, refused.reason)
            return False
        self.admitted = True
        return True

    def _opened(self) -> None:
        self._settled = False
        self.runtime.descriptors.reserved += 1
        self.runtime.prepare(self.transport, self.configuration.options)
        self._owner.opened(self)

    def _settle(self) -> None:
        """Record that it needs no further socket."""
        if not self._settled:
            self._settled = True
            self.runtime.descriptors.reserved -= 1

    # From stage to stage.

    def _look(self) -> None:
        """Leave what the client says in its socket, which may be handed over."""
        transport, settings = self.transport, self.configuration.settings
        if isinstance(transport, SocketTransport):
            header = LONGEST_HEADER if settings.accept_proxy_from is not None else 0
            self.is_looked_at = transport.start_preview(
                settings.peek_limit + header, self._detection_over
            )

    def enter(self, stage: Stage) -> None:
        """Go on to the next stage."""
        self.stage.leave()
        if self.is_looked_at and not stage.only_looks:
            self.is_looked_at = False
            cast("SocketTransport", self.transport).stop_preview()
        self.stage = self.receiver = stage
        try:
            stage.begin()
        except Exception as problem:  # noqa: BLE001 - whatever it is, no connection may be left that nothing ends
            if isinstance(problem, MemoryError):
                MEMORY.lacks(ended=1)
            else:
                _log.failure("{id} could not go on", id=self.record.id)
            self.transport.abortConnection()
            self.over("error")

    @override
    def peek(self, level: RuleLayer, deadline: IDelayedCall | None = None) -> None:
        self.enter(Peeking(self, level, deadline))

    @override
    def detection_deadline(self) -> IDelayedCall:
        return self.runtime.clock.callLater(
            self.configuration.settings.detect_timeout, self._detection_over
        )

    def _detection_over(self) -> None:
        if isinstance(self.stage, Peeking):
            self.stage.too_late()

    @override
    def decided(self, level: RuleLayer, branch: CompiledRoute | None) -> None:
        if branch is None:
            if self.record.route is None:
                self.unrecognised = self.received[: CAPTURED * self.configuration.settings.capture]
            self.lead(level.default, "no-route")
            return
        if self.record.route is not None and self.counted is not None:  # which ends TLS
            self.counted.left()
        self.counted = branch.counts
        branch.counts.matched(self.record)
        self.record.route = branch.name
        self.logged = fewer(self.logged, branch.log)
        if branch.termination is not None:
            self.end_tls(branch.termination, self.configuration.inside[branch.name])
        elif branch.destination is not None:
            self.lead(branch.destination, "denied")

    def end_tls(self, termination: Termination, inside: RuleLayer) -> None:
        """Terminate the client's TLS, then detect what it speaks inside."""
        # Who asks for TLS first, as PostgreSQL does, has it now; the server is not asked again.
        self.asked = ()
        self.enter(Handshaking(self, termination, inside))

    @override
    def lead(self, destination: Destination, reason: EndReason) -> None:
        note_decision(self, self.record.bytes_in, reason)
        if isinstance(destination, Refusal):
            self.turn_away(destination, reason)
        elif isinstance(destination, InProcess):
            self.serve_here(destination)
        elif isinstance(destination, Handover):
            self.give(destination)
        elif destination.backend.proxy_tlvs and lacks_hello(self, destination):
            self.enter(AwaitingHello(self, destination))
        else:
            self.connect(destination)

    def serve_here(self, destination: InProcess) -> None:
        """Serve the connection by a protocol of this process."""
        self._settle()
        self.record.backend = destination.name
        self.enter(ServingHere(self, destination))

    def give(self, destination: Handover) -> None:
        """Hand the client's socket to another process."""
        self.record.backend = destination.name
        if self.is_looked_at:
            self.enter(HandingOff(self, destination))
            return
        _log.warn(
            "[{listener}] {client}: this connection is not one of TCP alone, so it is not handed over to {path}; "
            "lead such clients elsewhere",
            listener=self.record.listener,
            client=self.record.client,
            path=destination.path,
        )
        self.turn_away(Refusal.CLOSE, "error")

    @override
    def run_ahead(self, upstream: Upstream) -> None:
        if self.runtime.hops.of(self.transport) < MOST_HOPS:
            self.race = race_for(self, upstream)

    @override
    def connect(self, upstream: Upstream) -> None:
        self.record.backend = upstream.backend.name
        hops = self.runtime.hops.of(self.transport)
        if hops < MOST_HOPS:
            race = self.race
            if race is not None:  # what is never set takes no memory
                self.race = None
            self.enter(Connecting(self, upstream, race))
            return
        self.record.facts["hops"] = str(hops)
        _log.warn(
            "[{listener}] {client}: this connection has come back {hops} times, so it is not sent on to backend {backend}, "
            "which leads to this service",
            listener=self.record.listener,
            client=self.record.client,
            hops=hops,
            backend=self.record.backend,
        )
        self.turn_away(Refusal.RESET, "limit")

    @override
    def note_server(self, transport: Connection) -> None:
        if self._hop:
            self.runtime.hops.forget(self._hop)
        noted = self.runtime.hops.note(transport, self.transport)
        if noted != self._hop:
            self._hop = noted

    @override
    def fall_back(self, upstream: Upstream, cause: ConnectFailure) -> None:
        self.lead(upstream.fallback, cause)

    @override
    def relay(
        self, upstream: Upstream, member: Member, server: ProxyClient, held: Held | None = None
    ) -> None:
        self._settle()
        self.runtime.prepare(server.transport, self.configuration.options)
        self.enter(Relaying(self, self, server, upstream, member, held))

    # From another process; see `MovableEnd` for the way to one.

    def adopt(
        self,
        moved: MovedConnection,
        sockets: Sockets,
        led_to: tuple[Upstream, Member] | None,
        elsewhere: GiveBack | None = None,
    ) -> None:
        """Go on where another process stopped.

        Args:
            moved: What it has told.
            sockets: They belong to this connection from now on.
            led_to: The server among those that are known here.
            elsewhere: See `Adopted`.
        """
        runtime, record = self.runtime, self.record
        now = runtime.clock.seconds()
        self._accepted_at = now - moved.age_at(now)
        self.logged = moved.logged
        self.permit = self.configuration.admission.adopt(address_in(record.client))
        self.admitted = True
        self.counted = runtime.column.route(record.listener, record.route or "")
        self.configuration.counts.adopted(self.counted)
        # The other process has counted what was moved until now.
        self._counted_in = record.bytes_in + moved.relay.client.received
        self._counted_out = record.bytes_out + moved.relay.server.received
        server = ProxyClient()
        for end, connected in zip((self, server), sockets, strict=True):
            runtime.transport(connected).set_protocol(end)
        self._owner.opened(self)
        self.enter(Adopted(self, self, server, led_to, moved, elsewhere))

    # The end.

    def end(self, reason: AbortReason) -> None:
        """End it at once, whatever it is doing."""
        try:
            self.stage.abort(reason)
        except Exception:  # noqa: BLE001 - one that cannot be ended must not save the others
            _log.failure("{id} could not be ended cleanly", id=self.record.id)
            self.transport.abortConnection()
            self.over("error")

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.type is OutOfMemory:
            self._is_out_of_memory = True
        super().connectionLost(reason)

    @override
    def turn_away(self, how: Refusal, reason: EndReason) -> None:
        self._settle()
        if how is Refusal.REJECT and self.received:
            self.enter(Rejecting(self, reason))
        else:
            self.enter(Closing(self, how, reason))

    @override
    def over(self, reason: EndReason) -> None:
        record = self.record
        if record.reason is not None:
            return
        record.reason = reason = "error" if self._is_out_of_memory else reason
        record.duration_ms = self.elapsed_ms()
        counted, self.counted = self.counted, None
        try:
            if counted is not None:
                moved_in = record.bytes_in - self._counted_in
                moved_out = record.bytes_out - self._counted_out
                self.configuration.counts.moved(counted, moved_in, moved_out)
                self.configuration.counts.over(counted, record, reason)
            self.runtime.hops.forget(self._hop)
            self.stage.leave()
        finally:  # if there is no memory for that, it must not count for ever
            self._settle()
            self.stage = self.receiver = OVER
            self.received = b""
            self._owner.closed(self)
