"""A flow: the datagrams between one client and its server.

UDP has no connections. A datagram from an unknown address opens a flow, and only time ends it, or an answer that was the last one. Hence:

- The first datagram is decided and sent on in one pass, as most flows are one question and its answer.
- Datagrams are held until a server has answered, not only until one is chosen: a server that is down refuses them later, or
  never, and then the next one needs them too.
- A flow that no route takes is remembered and drops what comes ("closing"), or the routes would decide about each datagram.
- Flows share the port's socket, but each has one of its own to its server, which tells clients apart by its port.
- No flow has a timer. Each datagram moves its flow to the end of a queue of flows with the same timeout (`txmux.udp.live_flows`).
- The key of a flow may change, as clients of QUIC and WireGuard move (`Following`), and be that of others too (`SharedAddress`).
- A flow cannot end while it moves to another process; if it should, that process learns why and ends it (`Flow.detach`).
"""

from __future__ import annotations

import functools
import operator
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from struct import error as StructError  # noqa: N812
from typing import Any

from txmux.access.per_source import Permit
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Destination, Upstream
from txmux.client.configuration import CompiledRoute, Configuration
from txmux.client.session import record_decision
from txmux.detection.detector import Decision
from txmux.detection.flows import FlowDetection, is_keepalive_only
from txmux.interfaces import Datagrams
from txmux.net.relay.interface import RelayedBytes
from txmux.rules.model import Logged, fewer
from txmux.telemetry.access_log import CAPTURED
from txmux.telemetry.counting.counter_groups import RouteCounts
from txmux.telemetry.documents import STATES
from txmux.telemetry.reasons import ConnectFailure, EndReason, understood
from txmux.telemetry.record import FACTS, ConnectionRecord, ConnectionState
from txmux.transport import IPAddress, unmapped
from txmux.udp import ancillary
from txmux.udp.connection_ids import WG_INITIATION, ConnectionIds, begins_tunnel, continues_tunnel
from txmux.udp.following import Following
from txmux.udp.live_flows import LiveFlows, TimeoutQueue
from txmux.udp.port import DatagramPort, FlowKey
from txmux.udp.server_socket import ServerSocket, VisitSocket
from txmux.udp.shared_address import ACKNOWLEDGED, SharedAddress
from txmux.wire import codec
from txmux.wire.proxyprotocol.decode import decode_datagram
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import LARGEST_HEADER, Address, ProxyHeader
from txmux.wire.quic.decided import DecidedHello
from txmux.wire.quic.header import (
    LONG_HEADER,
    has_known_version,
    may_open,
    opens_connection,
    opens_first_connection,
)

MOST_HELD = 4
"""Datagrams that are held until a server has answered."""

_MOST_WAITING = 16  # the same while no server is up

_REMEMBERED = 30.0
"""Seconds for which a client without a server is remembered, so that the routes decide about it once."""
_TRIED_AGAIN = 1.0  # the same if no server could be reached, since one may be back soon


_LONG_BYTE = bytes([LONG_HEADER])


class Flow:
    """The datagrams between one client and one server. Other packages see it as a `ClientSession`, as they do a connection.

    Attributes:
        ids: The connection IDs of its client, if it speaks QUIC.
        shared_address: The flows at its client's address, if there are others.
        proxy_header: The PROXY protocol header of its first datagram, if it came from a proxy.
        held: Its first datagrams, until a server has answered.
        decided: What its route was decided by, as `Client.decided`.
    """

    __slots__ = (
        "_client", "_counted", "_counted_before", "_decided_hello", "_detection", "_following", "_is_stray",
        "_layer", "_pending_end_reason", "_rejection_reason", "_suspended_queue", "admitted", "bytes_in",
        "bytes_out", "configuration", "datagrams_in", "datagrams_out", "decided", "decided_after", "entered_at",
        "held", "ids", "key", "last_received_at", "live", "logged", "permit", "port", "proxy_header", "queue",
        "record", "refusal_reason", "runtime", "server_socket", "shared_address", "started_at", "state",
        "unrecognised", "was_moved_here",
    )  # fmt: skip

    def __init__(
        self,
        live: LiveFlows,
        port: DatagramPort,
        key: FlowKey,
        configuration: Configuration,
        record: ConnectionRecord,
        client: Address | None,
        permit: Permit | None,
    ) -> None:
        self.live = live
        self.runtime: Any = live.runtime
        self.port = port
        self.key = key
        self._client = client
        self.configuration = configuration
        self.record = record
        self.permit = permit
        self.admitted = True
        self.logged: Logged = configuration.settings.log
        self.state: ConnectionState = "peeking"
        self.unrecognised: bytes | None = None
        self.refusal_reason: EndReason | None = None
        self.bytes_in = self.bytes_out = self.datagrams_in = self.datagrams_out = 0
        self.decided: Mapping[str, str] = {}
        self.decided_after = 0
        self.was_moved_here = False  # by other rules; by the same ones, how it was decided is known
        self.queue: TimeoutQueue | None = None
        self.started_at = self.entered_at = self.last_received_at = live.seconds()
        self._counted: RouteCounts | None = configuration.counts.unrouted
        self._counted_before: tuple[int, ...] = (0, 0, 0, 0)
        self.proxy_header: ProxyHeader | None = None
        self.ids: ConnectionIds | None = None
        self.shared_address: SharedAddress[Any] | None = None
        self.held: tuple[bytes, ...] = ()
        self._layer = configuration.top
        self._detection: FlowDetection[CompiledRoute] | None = None
        self._decided_hello: DecidedHello | None = None  # if the rules look at what is in a hello
        self._rejection_reason: EndReason = "no-route"
        self.server_socket: ServerSocket | None = None
        self._following: Following | None = None
        self._is_stray = False
        # While it is suspended: its queue, and the reason with which it has to end afterwards.
        self._suspended_queue: TimeoutQueue | None = None
        self._pending_end_reason: EndReason | None = None

    @property
    def client(self) -> Address:
        """Its real address, made when it is first needed: most flows end without."""
        if self._client is None:
            self._client = address_of_peer(self.key[0])
        return self._client

    # As a `ClientSession`.

    agreed_tls = layer = None

    @property
    def address(self) -> Address | None:
        return self.client

    @property
    def received(self) -> bytes:
        return self.held[0] if self.held else b""

    def elapsed_ms(self) -> float:
        return (self.live.seconds() - self.started_at) * 1000

    def relayed(self) -> RelayedBytes:
        counts = (self.datagrams_in, self.datagrams_out)
        return RelayedBytes(self.bytes_in, self.bytes_out, self.last_received_at, counts)

    def count_bytes(self) -> None:
        if self._counted is not None and self.record.detect_ms is not None:
            now = (self.bytes_in, self.bytes_out, self.datagrams_in, self.datagrams_out)
            before, self._counted_before = self._counted_before, now
            member = None if self.server_socket is None else self.server_socket.member
            server = None if member is None else member.counts
            more = map(operator.sub, now, before)
            self.configuration.counts.relayed(self._counted, server, *more)

    # From the client.

    def from_client(self, data: memoryview, size: int) -> bool:
        """Take datagrams from where the client is, if they are certainly of this flow; `data` is the beginning of a buffer."""
        ids = self.ids
        if ids is not None:
            try:
                first, name = ids.read(data)
            except StructError:
                return False
            if name != ids.current or first >= LONG_HEADER:
                return False
            if size and not _are_ascii(data, size):
                return False
        elif self.proxy_header is not None:
            return self.take(data, size)
        elif (
            data
            and (not _are_ascii(data, size) if size else data[0] >= LONG_HEADER)
            and has_known_version(data, size)
        ):
            return False
        return self._take(data, size)

    def may_open(self, datagram: bytes) -> bool:
        """Return whether a datagram that is not of this connection opens another one."""
        opens = opens_first_connection if self.ids is None else opens_connection
        return self.proxy_header is None and opens(datagram)

    def find(self, head: bytes) -> Flow | None:
        return self if self.ids is not None and self.ids.take(head) else None

    def flow_for_unknown_id(self, head: bytes) -> Flow:
        """Return this flow, since it is the only one at its address."""
        if self.ids is not None:
            self.ids.take(head, is_alone=True)
        return self

    @property
    def answer_timeout(self) -> float:
        return ACKNOWLEDGED + (self.record.connect_ms or 0.0) / 1000

    def take(
        self,
        data: memoryview,
        size: int,
        *,
        is_home: bool = True,
        through: VisitSocket | None = None,
    ) -> bool:
        """Take datagrams of the client; returns whether the flow still lives.

        They are from where its answers go if `is_home`; the server gets them `through` another socket, if that is given.
        """
        if self.proxy_header is None and (
            self._decided_hello is None or self._are_short(data, size)
        ):
            return self._take(data, size, is_home=is_home, through=through)
        for part in behind_headers(self.proxy_header, data, size):
            if part is None or not self._is_as_decided(part):
                self.count_lost(1)
            elif not self._take(part, 0, is_home=is_home, through=through):
                return False
        return True

    def _are_short(self, data: memoryview, size: int) -> bool:
        """Return whether datagrams have no long header, so that they cannot begin another handshake."""
        are_short = bytes(data[:: size or len(data) or 1]).isascii()
        is_after = self.ids is not None and self.ids.current is not None
        if are_short and is_after and self._decided_hello is not None:
            self._decided_hello.end()
        return are_short

    def _is_as_decided(self, datagram: memoryview) -> bool:
        """Return whether the server gets a datagram: in no packet of a handshake, it asks for something else than what the route was decided by."""
        hello = self._decided_hello
        if hello is None or not datagram or datagram[0] < LONG_HEADER:
            return True
        versions = () if self.ids is None else self.ids.versions
        return hello.admits(bytes(datagram), versions, self._decides_so)

    def _decides_so(self, peeked: Datagrams) -> bool:
        """Return whether a hello that has come too late for the decision leads where it has led."""
        detection = self._begin_detection()
        decision = None if detection is None else detection.decide_on(peeked)
        if decision is None or getattr(decision.route, "name", None) != self.record.route:
            return False
        self.record.note(decision.facts)
        return True

    def open(self, data: memoryview) -> None:
        """Take its first datagram, by which most flows are decided."""
        if self.proxy_header is not None:
            self.take(data, 0)
            return
        self.bytes_in, self.datagrams_in = len(data), 1
        self.held = (bytes(data),)
        self._detect()

    def _take(
        self,
        data: memoryview,
        size: int,
        *,
        is_home: bool = True,
        through: VisitSocket | None = None,
    ) -> bool:
        if self._is_stray and begins_tunnel(data, size):
            self.end(self._rejection_reason if self.state == "closing" else "done")
            return False
        server_socket, queue = self.server_socket, self.queue
        now = self.live.seconds()
        if server_socket is None or queue is None or not server_socket.is_answered:
            return self._take_early(data, size, now)
        self.last_received_at = now
        queue.flows.move_to_end(self)
        length = len(data)
        count = -(-length // size) if 0 < size < length else 1
        self.bytes_in += length
        self.datagrams_in += count
        if is_home and self._following is not None:
            path = self._following.path
            path.last_received_at = now
            if path.watches:
                self._following.from_home()
        (server_socket if through is None else through).send(data, size)
        return True

    def _take_early(self, data: memoryview, size: int, now: float) -> bool:
        if self.record.reason is not None:
            return False
        if self.state != "peeking" and not self.live.table.touch(self, now):
            self._too_late()
            return False
        for part in ancillary.split(data, size) if size else (data,):
            self.bytes_in += len(part)
            self.datagrams_in += 1
            if self.state == "peeking":
                self.held = (*self.held, bytes(part))
                self._detect()
                continue
            is_held = self._may_hold(part)
            sock = None if self.server_socket is None else self.server_socket.sock
            if self.server_socket is None or (sock is None and not is_held):
                self.count_lost(1)
                continue
            if is_held:
                self.held = (*self.held, bytes(part))
            if sock is not None:
                self.server_socket.send(part, 0, is_held=is_held)
        return True

    def _may_hold(self, data: memoryview) -> bool:
        held = sum(map(len, self.held)) + len(data)
        server_socket = self.server_socket
        is_waiting = server_socket is not None and server_socket.is_waiting
        most = _MOST_WAITING if is_waiting else MOST_HELD
        return len(self.held) < most and held <= self.configuration.settings.peek_limit

    def count_lost(self, count: int) -> None:
        self.configuration.counts.lost(count)

    def visit(self, client: Address, answered: Callable[[memoryview], None]) -> VisitSocket | None:
        return None if self.server_socket is None else self.server_socket.visit(client, answered)

    def move_in(
        self, visit: VisitSocket, answered: Callable[[memoryview], None]
    ) -> VisitSocket | None:
        if self.server_socket is None:
            visit.close()
            return None
        return self.server_socket.move_in(visit, answered)

    def move_to(
        self, port: DatagramPort, key: FlowKey, client: Address, *, is_noticed: bool = False
    ) -> None:
        """Send answers to another address from now on, which the server has noticed or not."""
        before = self.port, self.key
        self.port, self.key, self._client = port, key, client
        port.enter(key, self)
        before[0].forget(before[1], self)
        if self.server_socket is not None and not is_noticed:
            self.server_socket.client_moved()

    # The decision.

    def _begin_detection(
        self, peeked: Datagrams | None = None
    ) -> FlowDetection[CompiledRoute] | None:
        """Start a detection over several datagrams; returns ``None`` if no route can take the client."""
        detector = self._layer.detector
        host = self.client.host if self._layer.depends_on_client else None
        detection = FlowDetection(detector, host, self.record.time, peeked=peeked)
        return detection if detector.takes_any_client or detection.has_routes_for_client() else None

    def _detect(self) -> None:
        decision, detection, peeked = None, self._detection, None
        try:
            if detection is None:
                peeked = Datagrams(self.held[:1])
                decision = self._layer.detector.decide_at_once(peeked)
                if decision is None:
                    self._detection = detection = self._begin_detection(peeked)
            if detection is not None:
                decision = detection.feed(self.held)
            if decision is not None:
                self._route_by(decision, peeked if detection is None else detection.peeked)
            elif detection is None:
                self._route(self._layer.default, "no-route")
            elif len(detection.left) < len(self.held):
                # A phone sends keepalives before it registers, and the registration has to decide.
                self.count_lost(len(self.held) - len(detection.left))
                self.held = detection.left
        finally:
            # Most flows are decided at once, and have another timeout by now.
            if self.queue is None and self.record.reason is None:
                seconds = self.configuration.settings.detect_timeout
                self.live.enter(self, seconds, is_spare=True, is_final=True)

    def _route_by(self, decision: Decision[CompiledRoute], peeked: Datagrams | None) -> None:
        record, detector, self.decided = self.record, self._layer.detector, decision.facts
        if detector.guards and (self.ids is not None or self.proxy_header is not None):
            self._decided_hello = detector.guard(decision.route, peeked)
        record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
        self._detection = None
        route = decision.route
        if route is None or route.destination is None:
            self._is_stray = continues_tunnel(self.received)
            self.unrecognised = self.received[: CAPTURED * self.configuration.settings.capture]
            self._route(self._layer.default, "no-route")
            return
        self._counted = route.counts
        route.counts.matched(record)
        record.route = route.name
        if route.log is not self.logged:
            self.logged = fewer(self.logged, route.log)
        self._route(route.destination, "denied")

    def _route(
        self, destination: Destination, reason: EndReason, waited: float | None = None
    ) -> None:
        record_decision(self, self.bytes_in, reason)
        if not isinstance(destination, Upstream):
            self._reject(reason)
            return
        self.record.backend = destination.backend.name
        self.server_socket = ServerSocket(self, destination)
        if (
            self._following is None
            and self.proxy_header is None
            and self.held
            and may_move(self.held[0])
        ):
            home = self.port, self.key
            self._following = Following.for_flow(self.live, self, home, self.held[0])
        if waited is None:
            self.server_socket.choose_server()
        else:
            self.server_socket.has_waited(waited)

    def _reject(self, reason: EndReason) -> None:
        """Drop the client's datagrams for a while."""
        self.count_lost(len(self.held))
        self.held = ()
        self._decided_hello = None
        self._rejection_reason = reason
        self.state = "closing"
        self.live.enter(self, _remembered_for(reason), is_spare=True, is_final=True)

    # What its server socket reports.

    def server_chosen(self, upstream: Upstream, server: str | None) -> None:
        """Wait for the answer of a server; `server` is ``None`` if names have to be looked up before."""
        if server is None:
            self.state = "connecting"
        else:
            self.record.server = server
            self.state = "relaying"
        seconds = upstream.backend.unanswered_timeout
        self.live.enter(self, seconds, is_spare=True, is_final=True)

    def waits(self, upstream: Upstream) -> None:
        """Wait until a server is up; the flow ends when `hold` is over, or its client sends nothing for a long time."""
        self.state = "connecting"
        backend = upstream.backend
        self.live.enter(self, max(backend.hold, backend.idle_timeout) + 1, is_spare=True)

    def server_answered(self, upstream: Upstream, member: Member | None) -> None:
        self.held = ()
        record, now = self.record, self.live.seconds()
        record.connect_ms = (now - self.started_at) * 1000 - (record.detect_ms or 0.0)
        upstream.counts.connected(record.connect_ms)
        if member is not None:
            # It has been in its queue since the server was chosen.
            member.counts.answered(upstream.counts, (now - self.entered_at) * 1000)
        if upstream.backend.answers != 1 or self.datagrams_in > 1:  # else it ends at once
            self.live.enter(self, upstream.backend.idle_timeout, is_spare=False)

    def from_server(self, data: memoryview, size: int) -> None:
        queue, server_socket = self.queue, self.server_socket
        if queue is None or server_socket is None:
            return
        if self.shared_address is not None:
            self.shared_address.answered(self)
        if self._following is not None:
            self._following.from_server(data, size)
        self.last_received_at = self.live.seconds()
        queue.flows.move_to_end(self)
        length = len(data)
        self.bytes_out += length
        self.datagrams_out += -(-length // size) if 0 < size < length else 1
        lost = self.port.send(self.key, data, size)
        if lost:
            self.count_lost(lost)
        if 0 < server_socket.upstream.backend.answers <= self.datagrams_out >= self.datagrams_in:
            # A resolver asks for A and AAAA from one port, and waits for both.
            self.end("done")

    def to_visitor(self, port: DatagramPort, key: FlowKey, data: memoryview) -> None:
        """Send a datagram of the server to another address, where the client may be."""
        if self.queue is not None:
            self.live.table.touch(self, self.live.seconds())
            self.bytes_out += len(data)
            self.datagrams_out += 1
            self.count_lost(port.send(key, data, 0))

    def learn(self, answer: bytes) -> None:
        if self.ids is not None and self.ids.learn(answer) and self.shared_address is not None:
            self.shared_address.learn(self)

    def no_server_left(self, upstream: Upstream, cause: ConnectFailure) -> None:
        server_socket, self.server_socket = self.server_socket, None
        if server_socket is not None:
            server_socket.end()
            self._route(upstream.fallback, cause)

    # The end.

    def time_is_over(self) -> None:
        """End it, or decide by what has come: its timeout is over."""
        detection = self._detection or (
            self._begin_detection() if self.state == "peeking" else None
        )
        if detection is None:
            self._too_late()
        elif (decision := detection.finish()).route is None and is_keepalive_only(self.held):
            self.end("no-route")
        else:
            self._route_by(decision, detection.peeked)
            if self.state == "closing" and decision.route is None:
                # A part of its hello was lost. The client sends all of it again, and that has to decide.
                self.end(self._rejection_reason)

    def _too_late(self) -> None:
        last_received_at, server_socket = self.last_received_at, self.server_socket
        if server_socket is not None:
            server_socket.catch_up()
        if self.queue is None or self.last_received_at != last_received_at:
            return
        if self.state == "closing":
            self.end(self._rejection_reason)
        else:
            is_answered = server_socket is not None and server_socket.is_answered
            self.end("idle-timeout" if is_answered else "unanswered")

    def port_is_shut(self) -> None:
        """End it if it only drops datagrams: its port is closed."""
        if self.state == "closing":
            self.end(self._rejection_reason)

    def refuse(self, reason: EndReason, size: int, datagrams: int) -> None:
        """End it before it has begun: its client is not let in, and only the log counts the bytes and datagrams that have come."""
        self.admitted = False
        self.bytes_in, self.datagrams_in = size, datagrams
        self.end(reason)

    def end(self, reason: EndReason) -> None:
        """End it at once, whatever it is doing; nothing happens the second time."""
        record = self.record
        if record.reason is not None:
            return
        if self._suspended_queue is not None:
            self._pending_end_reason = reason
            return
        record.reason = reason
        record.bytes_in, record.bytes_out = self.bytes_in, self.bytes_out
        record.datagrams_in, record.datagrams_out = self.datagrams_in, self.datagrams_out
        record.duration_ms = (self.live.seconds() - self.started_at) * 1000
        self.live.table.leave(self)
        self.count_bytes()
        counted, self._counted = self._counted, None
        server_socket, self.server_socket = self.server_socket, None
        if server_socket is None or server_socket.sock is None:
            self.count_lost(len(self.held))
        if server_socket is not None:
            # A system call, so only if a line is written.
            if self.logged is True or (self.logged and not record.is_clean):
                record.server_local = server_socket.local_address()
            server_socket.end(is_unanswered=reason == "unanswered", is_moved=counted is None)
        self.held = ()
        self._detection = None
        self.state = "over"
        if counted is not None:
            self.configuration.counts.connection_ended(counted, record, reason)
            self.runtime.clients.ended(self)
        self.port.forget(self.key, self)
        if self._following is not None:
            self.stop_following()
        if not self.live.ports:
            self.live.stop_timer_if_unused()
        self.live.listener.closed(self)

    def stop_following(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.end()

    # To another process.

    @property
    def sock(self) -> socket.socket | None:
        return None if self.server_socket is None else self.server_socket.sock

    def suspend(self) -> None:
        """Read nothing from the server, and do not end, until `resume` or `detach`."""
        self._suspended_queue = self.queue
        self.live.table.leave(self)
        if self.server_socket is not None:
            self.server_socket.suspend()

    def resume(self) -> None:
        queue, self._suspended_queue = self._suspended_queue, None
        if queue is None:
            return
        self.live.rejoin(self, queue.timeout, self.entered_at, self.last_received_at)
        if self.server_socket is not None:
            self.server_socket.resume()
        if self._pending_end_reason is not None:
            self.end(self._pending_end_reason)

    def detach(self) -> EndReason | None:
        """Forget it, as the other process continues it; returns why it has to end there, if it should have ended meanwhile."""
        self._suspended_queue = None
        self.count_bytes()
        if self._counted is not None:
            self.configuration.counts.moved_away(self._counted)
            self._counted = None
        self.held = ()
        self.logged = False
        self.end("done")
        return self._pending_end_reason

    def as_json(self) -> dict[str, Any]:
        """Return what another process needs to continue it, as values of JSON.

        Missing keys have defaults, and unknown ones are ignored. Some are of older versions: `generation` is the configuration's
        version, `way` the server socket, `introduction` the PROXY header, and `trail` the path.
        """
        peer, local = self.key
        now = self.live.seconds()
        server_socket, header = self.server_socket, self.proxy_header
        return {
            "record": codec.write(self.record),
            "peer": peer,
            "local": local.hex(),
            "place": self.port.place,
            "client": str(self.client),
            "generation": self.configuration.version,
            "state": self.state,
            "age": self.elapsed_ms() / 1000,
            "in_state": now - self.entered_at,
            "quiet": now - self.last_received_at,
            "logged": self.logged,
            "counts": [self.bytes_in, self.bytes_out, self.datagrams_in, self.datagrams_out],
            "held": [_text(data) for data in self.held],
            "answered": server_socket is not None and server_socket.is_answered,
            "way": None if server_socket is None else server_socket.as_json(),
            "nowhere": self._rejection_reason,
            "is_stray": self._is_stray,
            "led_for": self.refusal_reason,
            "decided": dict(self.decided),
            "decided_after": self.decided_after,
            "unrecognised": None if self.unrecognised is None else _text(self.unrecognised),
            "introduction": None if header is None else _text(encode_v2(header, datagrams=True)),
            "ids": None if self.ids is None else codec.write(self.ids),
            "trail": None if self._following is None else self._following.as_json(),
            "hello": None if self._decided_hello is None else codec.write(self._decided_hello),
        }

    def restore(
        self,
        fields: Mapping[str, Any],
        destination: tuple[Upstream, Member | None] | None,
        sock: socket.socket | None,
        port_of: Callable[[str], DatagramPort | None],
    ) -> None:
        """Continue a flow of another process, with its backend here, and its server and the socket to it, if it has one."""
        self._restore_values(fields)
        state = fields.get("state", "relaying")
        now = self.live.seconds()
        times = now - fields.get("in_state", 0.0), now - fields.get("quiet", 0.0)
        if state == "peeking":
            seconds = self.configuration.settings.detect_timeout
            self._rejoin(seconds, times, is_unanswered=True)
            self.was_moved_here = False
            if self.held:  # the rules of this process may be others
                self._detect()
            return
        self._detection = None
        if self.permit is not None:
            self.permit.mark_decided()
        if fields.get("trail") is not None:
            home, trail = (self.port, self.key), fields["trail"]
            self._following = Following.restored(self.live, self, home, trail, port_of)
        if state in STATES:
            self.state = state
        if destination is None:
            self.held = ()
            self._rejoin(_remembered_for(self._rejection_reason), times, is_unanswered=True)
            return
        upstream, member = destination
        if member is None or sock is None:
            waited = (fields.get("way") or {}).get("waited")
            self._route(upstream, self.refusal_reason or "no-route", waited)
            return
        self.server_socket = ServerSocket(self, upstream)
        is_answered, backend = fields.get("answered", True), upstream.backend
        self.server_socket.restore(
            member, sock, is_answered=is_answered, fields=fields.get("way") or {}
        )
        seconds = backend.idle_timeout if is_answered else backend.unanswered_timeout
        self._rejoin(seconds, times, is_unanswered=not is_answered)

    def _restore_values(self, fields: Mapping[str, Any]) -> None:
        self.logged = fields["logged"]
        counts = tuple(map(int, fields["counts"]))
        self.bytes_in, self.bytes_out, self.datagrams_in, self.datagrams_out = counts
        self._counted_before = counts  # by the other process
        self._counted = self.runtime.counters.route(self.record.listener, self.record.route or "")
        self.started_at -= fields["age"]
        self.held = tuple(b64decode(data) for data in fields.get("held", ()))
        refusal_reason = fields.get("led_for")
        self.refusal_reason = None if refusal_reason is None else understood(refusal_reason)
        self.decided = FACTS.read(fields.get("decided", {}), codec.ALONE)
        self.decided_after = fields.get("decided_after", 0)
        self._rejection_reason = understood(fields.get("nowhere", self._rejection_reason))
        self._is_stray = fields.get("is_stray", False)
        if fields.get("unrecognised") is not None:
            self.unrecognised = b64decode(fields["unrecognised"])
        if fields.get("hello") is not None:
            self._decided_hello = codec.read(DecidedHello, fields["hello"])
        if fields.get("introduction") is not None:
            decoded = decode_datagram(b64decode(fields["introduction"]))
            self.proxy_header = None if decoded is None else decoded.header
        self.configuration.counts.adopted(self._counted)

    def _rejoin(self, seconds: float, times: tuple[float, float], *, is_unanswered: bool) -> None:
        self.live.rejoin(self, (seconds, is_unanswered, is_unanswered), *times)


def _are_ascii(data: memoryview, size: int) -> bool:
    """Return whether no datagram of a buffer, from its beginning on, has a long header."""
    # To take the first bytes from the buffer itself is five times as fast as from a view of it.
    buffer: Any = data.obj
    return bool(buffer[: len(data) : size].isascii())


def address_of_peer(peer: tuple[Any, ...]) -> Address:
    return Address(host_and_text(peer[0])[0], peer[1])


@functools.lru_cache(maxsize=1024)
def host_and_text(text: str) -> tuple[IPAddress, str]:
    """Return a client's address, and how it is written before a port."""
    host = unmapped(ip_address(text))
    return host, f"[{host}]" if host.version == 6 else str(host)


def _remembered_for(reason: EndReason) -> float:
    is_lasting = reason in {"no-route", "denied", "no-name", "name-denied"}
    return _REMEMBERED if is_lasting else _TRIED_AGAIN


def may_move(first: bytes) -> bool:
    """Rule out most flows that cannot move, by their first datagram."""
    return may_open(first) if first[:1] >= _LONG_BYTE else first[:4] == WG_INITIATION


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def behind_headers(
    first: ProxyHeader | None, data: memoryview, size: int
) -> Iterator[memoryview | None]:
    """Yield each datagram, those of a proxy without their PROXY header; ``None`` for one whose header names another client."""
    for part in ancillary.split(data, size):
        decoded = None if first is None else decode_datagram(bytes(part[:LARGEST_HEADER]))
        if decoded is None or first is None:
            yield part
        else:
            yield part[decoded.length :] if decoded.header.source == first.source else None
