"""A flow: the datagrams between one client and the server that it was led to."""

from __future__ import annotations

from struct import error as StructError  # noqa: N812
from typing import TYPE_CHECKING, Any

from txmux.backends.upstream import Upstream
from txmux.detection.detector import says_nothing
from txmux.rules.model import fewer
from txmux.tcp.served import note_decision
from txmux.telemetry.recent import CAPTURED
from txmux.udp import ancillary, tunnels
from txmux.udp.moving import Movable, remembered_for
from txmux.udp.proxy_headers import behind_headers
from txmux.udp.server_socket import ServerSocket
from txmux.udp.shared_address import ACKNOWLEDGED
from txmux.wire.quic.header import LONG_HEADER, opens_connection

if TYPE_CHECKING:
    from txmux.access.per_source import Permit
    from txmux.backends.upstream import Destination
    from txmux.detection.detector import Decision, FlowDetection
    from txmux.rules.model import Logged
    from txmux.tcp.configuration import CompiledRoute, Configuration
    from txmux.telemetry.counting.counts import RouteCounts
    from txmux.telemetry.reasons import AbortReason, ConnectFailure, EndReason
    from txmux.telemetry.record import ConnectionRecord
    from txmux.telemetry.states import ConnectionState
    from txmux.udp.connection_ids import ConnectionIds
    from txmux.udp.flow_view import Owner
    from txmux.udp.following import Following
    from txmux.udp.port import DatagramPort, Key
    from txmux.udp.shared_address import SharedAddress
    from txmux.udp.table import TimeoutQueue
    from txmux.wire.proxyprotocol.header import Address, Header

MOST_HELD = 4
"""Datagrams that are held for a server that is not known yet, or that may be replaced by another one."""


class Flow(Movable):
    """The datagrams between one client and one server. To others it is what a connection is: see `txmux.tcp.served.Served`.

    Args:
        flows: Has it, and ends it when it was quiet for too long.
        port: Where the client's datagrams come in, and its answers go out.
        key: The flow's own among those of the port.
        configuration: The rules under which it began.
        record: What is known of it so far.
        client: The client's address.

    Attributes:
        state: What it is at.
        ids: The connection IDs of its client, if that speaks QUIC.
        beside: What it shares its address with others by, if there are any.
        proxy_header: The PROXY protocol header that it began with, if it came from a proxy.
        held: Its first datagrams, until a server has answered.
        heard_at: When a datagram last came, by the engine's clock.
    """

    __slots__ = ()

    queue: TimeoutQueue | None
    state: ConnectionState

    def __init__(
        self,
        flows: Owner,
        port: DatagramPort,
        key: Key,
        configuration: Configuration,
        record: ConnectionRecord,
        client: Address,
        permit: Permit | None,
    ) -> None:
        self._flows = flows
        self._port = port
        self._key = key
        self._client = client
        self.configuration = configuration
        self.record = record
        self.permit = permit
        self.admitted = True
        self.logged: Logged = configuration.settings.log
        self.state = "peeking"
        self.unrecognised: bytes | None = None
        self.led_for: EndReason | None = None
        self.bytes_in = self.bytes_out = self.datagrams_in = self.datagrams_out = 0
        self.decided_after = 0
        self.queue = None
        self._started_at = self.entered_at = self.heard_at = flows.seconds()
        self._counted: RouteCounts | None = configuration.counts.unrouted
        self._counted_before: tuple[int, ...] = (0, 0, 0, 0)
        self.proxy_header: Header | None = None
        self.ids: ConnectionIds | None = None
        self.beside: SharedAddress[Any] | None = None
        self.held: tuple[bytes, ...] = ()
        self._level = configuration.top
        detection = self._begin_detection()
        looks = detection.can_decide() or detection.can_look()
        self._detection: FlowDetection[CompiledRoute] | None = detection if looks else None
        self._nowhere: EndReason = "no-route"
        self._server_socket: ServerSocket | None = None
        self._following: Following | None = None
        self._is_stray = False
        self._still_in: TimeoutQueue | None = None
        self._late: EndReason | None = None

    # What the service's other parts ask of a connection.

    @property
    def stage(self) -> Flow:
        return self

    def count_bytes(self) -> None:
        """Count what was moved since the last time."""
        if self._counted is not None and self.record.detect_ms is not None:
            now = (self.bytes_in, self.bytes_out, self.datagrams_in, self.datagrams_out)
            before, self._counted_before = self._counted_before, now
            counts = self.configuration.counts
            counts.moved(self._counted, now[0] - before[0], now[1] - before[1])
            counts.datagrams(now[2] - before[2], now[3] - before[3])

    def suspend(self) -> None:
        """It cannot be moved as a connection is."""

    # From the client.

    def from_client(self, data: memoryview, size: int) -> bool:
        """Take datagrams from where the client is, if they are certainly its own.

        Args:
            data: Their bytes, with which a buffer begins.
            size: See `txmux.udp.ancillary.read`.
        """
        # Nearly all datagrams pass here.
        ids = self.ids
        if ids is not None:
            try:
                first, name = ids.read(data)
            except StructError:
                return False
            if name != ids.current or first >= LONG_HEADER:
                return False
            if size:
                # To take the first bytes from the buffer itself is five times as fast as from a view of it.
                buffer: Any = data.obj
                if not buffer[: len(data) : size].isascii():
                    return False
        elif self.proxy_header is not None:
            return self.take(data, size)
        elif data and data[0] >= LONG_HEADER and opens_connection(bytes(data)):
            return False
        return self._take(data, size)

    def may_open(self, datagram: bytes) -> bool:
        """Return whether a datagram that is not of this connection opens another one."""
        is_known = self.ids is None
        return self.proxy_header is None and opens_connection(datagram, is_known=is_known)

    def find(self, head: bytes) -> Flow | None:
        """Return itself, if a datagram has one of its connection IDs; see `txmux.udp.connection_ids.HEAD`."""
        return self if self.ids is not None and self.ids.take(head) else None

    def otherwise(self, head: bytes) -> Flow:
        """Return itself, since it is the only one at its address."""
        if self.ids is not None:
            self.ids.take(head, is_alone=True)
        return self

    @property
    def patience(self) -> float:
        return ACKNOWLEDGED + (self.record.connect_ms or 0.0) / 1000

    def take(self, data: memoryview, size: int, *, is_home: bool = True) -> bool:
        """Take datagrams of the client, from where it is or from elsewhere; see `txmux.udp.ancillary.read` for the size."""
        if self.proxy_header is None:
            return self._take(data, size, is_home=is_home)
        for part in behind_headers(self.proxy_header, data, size):
            if part is None:
                self.lost(1)
            elif not self._take(part, 0, is_home=is_home):
                return False
        return True

    def _take(self, data: memoryview, size: int, *, is_home: bool = True) -> bool:
        if self._is_stray and tunnels.begins(data, size):
            self.over(self._nowhere if self.state == "closing" else "done")
            return False
        server_socket, queue = self._server_socket, self.queue
        now = self._flows.seconds()
        if server_socket is None or queue is None or not server_socket.is_answered:
            return self._early(data, size, now)
        self.heard_at = now
        queue.flows.move_to_end(self)
        length = len(data)
        count = -(-length // size) if 0 < size < length else 1
        self.bytes_in += length
        self.datagrams_in += count
        if is_home and self._following is not None:
            path = self._following.path
            path.heard_at = now
            if path.watches:
                self._following.from_home(length, count)
        server_socket.send(data, size)
        return True

    def move_to(self, port: DatagramPort, key: Key, client: Address) -> None:
        """Send answers to another address of the client, by the port it came to."""
        before = self._port, self._key
        self._port, self._key, self._client = port, key, client
        port.enter(key, self)
        before[0].forget(before[1], self)
        if self._server_socket is not None:
            self._server_socket.client_moved()

    def _early(self, data: memoryview, size: int, now: float) -> bool:
        """Take datagrams before the server has answered."""
        if self.record.reason is not None:
            return False
        if self.state != "peeking" and not self._flows.table.touch(self, now):
            self._too_late()
            return False
        for part in ancillary.split(data, size):
            self.bytes_in += len(part)
            self.datagrams_in += 1
            if self.state == "peeking":
                self.held = (*self.held, bytes(part))
                self._look()
            elif self._server_socket is not None and (
                self._server_socket.is_open or self._may_hold(part)
            ):
                is_held = self._may_hold(part)
                if is_held:
                    self.held = (*self.held, bytes(part))
                if self._server_socket.is_open:
                    self._server_socket.send(part, 0, is_held=is_held)
            else:
                self.lost(1)
        return True

    def _may_hold(self, data: memoryview) -> bool:
        held = sum(map(len, self.held)) + len(data)
        return len(self.held) < MOST_HELD and held <= self.configuration.settings.peek_limit

    def lost(self, count: int) -> None:
        self.configuration.counts.lost(count)

    # The decision.

    def _begin_detection(self) -> FlowDetection[CompiledRoute]:
        host = self._client.host if self._level.asks_who else None
        return self._level.detector.begin_flow(host, self.record.time)

    def _look(self) -> None:
        detection = self._detection
        try:
            if detection is None:
                self._lead(self._level.default, "no-route")
            elif (decision := detection.feed(self.held)) is not None:
                self._decided(decision)
            elif detection.ignored == len(self.held):
                # A phone keeps its address open before it registers, and what it says then has to decide.
                self.lost(len(self.held))
                self.held = ()
                self._detection = self._begin_detection()
        finally:
            # Most flows are decided at once, and have another time by now.
            if self.queue is None and self.record.reason is None:
                seconds = self.configuration.settings.detect_timeout
                self._flows.enter(self, seconds, is_spare=True, is_final=True)

    def _decided(self, decision: Decision[CompiledRoute]) -> None:
        record = self.record
        record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
        self._detection = None
        branch = decision.route
        if branch is None or branch.destination is None:
            self._is_stray = tunnels.goes_on(self.received)
            self.unrecognised = self.received[: CAPTURED * self.configuration.settings.capture]
            self._lead(self._level.default, "no-route")
            return
        self._counted = branch.counts
        branch.counts.matched(record)
        record.route = branch.name
        self.logged = fewer(self.logged, branch.log)
        self._lead(branch.destination, "denied")

    def _lead(self, destination: Destination, reason: EndReason) -> None:
        note_decision(self, self.bytes_in, reason)
        if isinstance(destination, Upstream):
            self.record.backend = destination.backend.name
            self._server_socket = self._way_to(destination)
            self._following = self._following or self._flows.following(
                self, self._port, self._key, self.received
            )
            self._server_socket.begin()
        else:
            self._go_nowhere(reason)

    def _way_to(self, upstream: Upstream) -> ServerSocket:
        return ServerSocket(self, upstream)

    def _go_nowhere(self, reason: EndReason) -> None:
        """Drop what this client says for a while, so that it is one flow and not one each datagram."""
        self.lost(len(self.held))
        self.held = ()
        self._nowhere = reason
        self.state = "closing"
        self._flows.enter(self, remembered_for(reason), is_spare=True, is_final=True)

    # What its server socket reports.

    def waits_for_names(self) -> None:
        """Record that there is no server before names have been looked up."""
        self.state = "connecting"
        self._wait_for_answer()

    def begins(self, server: str) -> None:
        """Record that a server was chosen."""
        self.record.server = server
        self.state = "relaying"
        self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        if self._server_socket is not None:
            seconds = self._server_socket.upstream.backend.unanswered_timeout
            self._flows.enter(self, seconds, is_spare=True, is_final=True)

    def answered(self) -> None:
        """Record that the server has said something for the first time."""
        self.held = ()
        if self._server_socket is not None:
            upstream, record = self._server_socket.upstream, self.record
            record.connect_ms = self.elapsed_ms() - (record.detect_ms or 0.0)
            upstream.counts.connected(record.connect_ms)
            if upstream.backend.answers != 1 or self.datagrams_in > 1:  # else it is over at once
                self._flows.enter(self, upstream.backend.idle_timeout, is_spare=False)

    def from_server(self, data: memoryview, size: int) -> None:
        """Take datagrams of the server."""
        queue, server_socket = self.queue, self._server_socket
        if queue is None or server_socket is None:
            return
        if self.beside is not None:
            self.beside.answered(self)
        if self._following is not None and not self._following.from_server(data, size):
            return
        self.heard_at = self._flows.seconds()
        queue.flows.move_to_end(self)
        length = len(data)
        self.bytes_out += length
        self.datagrams_out += -(-length // size) if 0 < size < length else 1
        lost = self._port.send(self._key, data, size)
        if lost:
            self.lost(lost)
        if 0 < server_socket.upstream.backend.answers <= self.datagrams_out >= self.datagrams_in:
            # A resolver asks for A and AAAA from one port, and waits for both.
            self.over("done")

    def learn(self, answer: bytes) -> None:
        """Learn connection IDs from a datagram of the server."""
        if self.ids is not None and self.ids.learn(answer) and self.beside is not None:
            self.beside.learn(self)

    def refused(self) -> None:
        self.over("connect-refused")

    def given_up(self, cause: ConnectFailure) -> None:
        """Record that no server is left."""
        server_socket, self._server_socket = self._server_socket, None
        if server_socket is not None:
            server_socket.end()
            fallback = server_socket.upstream.fallback
            if isinstance(fallback, Upstream):
                self._lead(fallback, cause)
            else:
                self._go_nowhere(cause)

    # The end.

    def time_is_over(self) -> None:
        """End it, or decide about it, since nothing was heard for as long as it had."""
        if self.state != "peeking" or self._detection is None:
            self._too_late()
        elif (decision := self._detection.finish()).route is None and says_nothing(self.held):
            self.over("no-route")
        else:
            self._decided(decision)

    def _too_late(self) -> None:
        heard_at = self.heard_at
        if self._server_socket is not None:
            self._server_socket.catch_up()
        if self.queue is None or self.heard_at != heard_at:
            return
        if self.state == "closing":
            self.over(self._nowhere)
        else:
            self.over(
                "unanswered"
                if self._server_socket is None or not self._server_socket.is_answered
                else "idle-timeout"
            )

    def end(self, reason: AbortReason) -> None:
        """End it at once, whatever it is doing."""
        self.over(reason)

    def port_is_shut(self) -> None:
        """End it if it is only remembered, so that its client begins no other one: none begins any more."""
        if self.state == "closing":
            self.over(self._nowhere)

    def refuse(self, reason: EndReason, count: int, datagrams: int) -> None:
        """End it before it has begun, as its client is not let in: it is only told of.

        Args:
            reason: Why.
            count: The bytes that have come.
            datagrams: And the datagrams.
        """
        self.admitted = False
        self.bytes_in, self.datagrams_in = count, datagrams
        self.over(reason)

    def over(self, reason: EndReason) -> None:
        """End it; nothing happens the second time."""
        record = self.record
        if record.reason is not None:
            return
        if self._still_in is not None:  # another process may go on with it
            self._late = reason
            return
        record.reason = reason
        record.bytes_in, record.bytes_out = self.bytes_in, self.bytes_out
        record.datagrams_in, record.datagrams_out = self.datagrams_in, self.datagrams_out
        record.duration_ms = self.elapsed_ms()
        self._flows.table.leave(self)
        server_socket, self._server_socket = self._server_socket, None
        if server_socket is None or not server_socket.is_open:
            self.lost(len(self.held))
        if server_socket is not None:
            if self.logged:
                record.server_local = server_socket.local_address()
            server_socket.end(is_unanswered=reason == "unanswered")
        self.held = ()
        self._detection = None
        self.state = "over"
        counted = self._counted
        if counted is not None:
            if record.detect_ms is not None:
                self.count_bytes()
            self._counted = None
            self.configuration.counts.over(counted, record, reason)
        self._port.forget(self._key, self)
        if self._following is not None:
            self._following.end()
            self._following = None
        self._flows.closed(self)
