"""A `MuxProtocol` on a plain TCP socket, which has a transport and stage objects only after something unusual has happened.

Theory of operation. Most connections last a millisecond and exchange a few messages. A transport, two protocols, and a stage
object with a timer for each stage would cost more than all their system calls. So at the stages ``introduction``, ``peeking``,
``connecting``, ``awaiting-retry`` and ``relaying``, a method stands in for the stage object. It uses the socket directly, and returns an outcome,
which `TRANSITIONS` handles as it does a stage's. When anything unusual happens - a refusal, a failed server, a full buffer, a
server's reset, a deadline that is near - the method returns a stage object with the current state instead. `_attach` then creates the
`SocketTransport`, and stage objects do the rest. epoll is level-triggered: an event that a method leaves to a stage object is
reported to it again.

There are no timers, either, but for the moment after a client's reset. A `Sweep` checks all connections of a listener once a second. `MARGIN` before a deadline, it attaches
a stage object, which has an exact timer. Shorter deadlines need a stage object from the beginning (`FastPath`).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.error import ConnectError, getConnectError
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.client.configuration import CompiledRoute, RuleLayer
from txmux.client.session import new_id
from txmux.detection.detector import Detection
from txmux.interfaces import Peeked
from txmux.net.addresses import text_of
from txmux.net.relay.interface import MARGIN, RelayedBytes, RelayState, SideState
from txmux.net.relay.kernel import BUFFER, FULL, MORE, VIEW
from txmux.net.relay.peer_state import has_ended, unacknowledged_by, unanswered_by
from txmux.net.relay.relay import GRACE, MAX_FINAL_BYTES
from txmux.net.sockets.client import (
    OWN_PEER,
    UNDER_WAY,
    Binding,
    is_own_peer,
    start_connecting,
)
from txmux.net.sockets.plainsocket import reset_on_close, set_options
from txmux.net.sockets.poller import ERROR, FINISHED, READ, WRITE
from txmux.net.sockets.transport import SocketTransport, address_of, host_of
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.connector import BackendConnector, header_for, target_of
from txmux.tcp.fast_path import FastPath
from txmux.tcp.moving import StayReason
from txmux.tcp.stage import Stage, Step, count_asked
from txmux.tcp.stages.awaiting_retry import AwaitingRetry
from txmux.tcp.stages.connecting import Connecting, goes_by_hello
from txmux.tcp.stages.peeking import Peeking
from txmux.tcp.stages.reading_proxy_header import ReadingProxyHeader, record_sender, take_header
from txmux.tcp.stages.relaying import Relaying
from txmux.tcp.transitions import Connected, ConnectedByHello, Detected, Finished, Identified
from txmux.telemetry.reasons import AbortReason
from txmux.telemetry.record import ConnectionRecord, ConnectionState
from txmux.wire.hello.records import asks_again
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete
from txmux.wire.proxyprotocol.header import InvalidHeader

_CLIENT_GONE = Finished("client-gone")
_CANNOT_MOVE: dict[ConnectionState, StayReason | None] = {
    "relaying": None,
    "connecting": "being connected",
    "over": "ending",
}
_NOW = int(socket.MSG_DONTWAIT)  # until there is a transport, the client's socket blocks
_NOW_MORE = _NOW | MORE
_TLS = 0x16  # the first byte of a record with a hello


class SocketConnection(MuxProtocol):
    """A client's connection on a plain socket.

    Attributes:
        transport: ``None`` until a stage object is attached.
        client: The client's socket, or its TLS.
        server: The server's socket, from its opening until a stage object owns it.
        finished: The socket of the peer that has half-closed its connection, if one has.
    """

    __slots__ = (
        "_before_end", "_checked_at", "_detection", "_grace", "_has_options", "_host", "_member",
        "_name", "_path", "_since", "_upstream", "client", "finished", "server",
    )  # fmt: skip

    transport: Any = None
    _hello = b""  # by which it was routed, until the server has answered
    _before_end: int
    _upstream: Upstream

    def __init__(
        self, path: FastPath, client: socket.socket, name: tuple[Any, ...], host: IAddress | None
    ) -> None:
        self._path, self.client, self._name, self._host = path, client, name, host
        if host is None or host is not path.host:
            path.host = self._local_address()
            path.host_text = text_of(path.host)
            if host is None:  # with TPROXY, the client's port may differ from the listener's
                path.runtime.loop_detector.ports.add(getattr(path.host, "port", 0))
        text = f"{name[0]}:{name[1]}" if len(name) == 2 else text_of(self._peer_address())
        configuration = path.configuration
        record = ConnectionRecord(
            time.time(), new_id(), configuration.settings.name, text, path.host_text
        )
        super().__init__(path.owner, configuration, path.runtime, record)
        self.finished: socket.socket | None = None
        self.server: socket.socket | None = None
        self._member: Member | None = None
        self._detection: Detection[CompiledRoute] | None = None
        self._has_options = False
        self._rules, self._since = path.top_rules, self.accepted_at  # of the detection
        self._grace: IDelayedCall | None = None
        self.last_received_at = self._checked_at = self.accepted_at

    @override
    def _peer_address(self) -> IAddress:
        name = self._name
        if len(name) == 2:
            return address_of(socket.AF_INET, name)
        return address_of(socket.AF_INET6, (host_of(name), *name[1:]))

    @override
    def _local_address(self) -> IAddress:
        if self._host is None:
            self._host = address_of(self.client.family, self.client.getsockname())
        return self._host

    @override
    def relayed(self) -> RelayedBytes:
        if self.transport is not None:
            return super().relayed()
        return RelayedBytes(self.record.bytes_in, self.record.bytes_out, self.last_received_at)

    # Accepting.

    def begin_with_transport(self) -> None:
        """Serve the client with a transport and stage objects from the beginning."""
        self.make_transport(reading=True)
        self.connectionMade()

    @override
    def _open(self) -> None:
        self._may_connect = True
        self.runtime.descriptors.reserved += 1
        path = self._path
        path.owner.opened(self)
        if path.owner.sweep.timer is None:
            path.owner.sweep.begin()

    def _await_header(self) -> Step | None:
        if self.transport is not None:
            return ReadingProxyHeader(self)
        self.state = "introduction"
        record_sender(self, self._peer_address())
        return self._read_header()

    def _read_header(self) -> Step | None:
        try:
            self.received = self.client.recv(FULL, _NOW)
        except BlockingIOError:
            if self._path.header_timeout <= MARGIN:
                return ReadingProxyHeader(self)
            self._path.poller.watch(self.client.fileno(), READ, self._client_ready)
            return None
        except OSError:
            return _CLIENT_GONE
        if not self.received:
            return _CLIENT_GONE
        try:
            answer: Decoded | Incomplete | None = take_header(self)
        except InvalidHeader:  # the stage logs it
            answer = None
        if isinstance(answer, Decoded):
            return Identified(answer.length)
        return ReadingProxyHeader(self)

    # Detection.

    def _peek(self, layer: RuleLayer, began_at: float | None = None) -> Step | None:
        path = self._path
        if self.transport is not None:
            return Peeking(self, layer, began_at)
        if layer is not path.top:
            self._since, self._rules = path.seconds(), path.inside(layer)
        if not self._rules.decides_at_once:
            return self._peeking() if self.state == "introduction" else Peeking(self, layer)
        self.state = "peeking"
        return (self._detect() if self.received else None) or self._read()

    def _peeking(self) -> Peeking:
        return Peeking(self, self._rules.layer, self._since)

    def _client_ready(self, events: int) -> None:  # noqa: ARG002 - the socket is asked
        try:
            if self.state == "peeking":
                self.advance(self._read())
            elif self.state == "introduction":
                self.advance(self._read_header())
            else:  # more bytes or an end while the server is being connected
                self.attach_stage()
        except Exception as problem:  # noqa: BLE001 - one connection's error must not affect others
            self._abort_on_error(problem)

    def _read(self) -> Step | None:
        path = self._path
        try:
            data = self.client.recv(FULL, _NOW)
        except BlockingIOError:
            pass
        except OSError:
            return _CLIENT_GONE
        else:
            if not data:  # without any byte it was a port scan or a load balancer's health check
                return self._peeking() if self.received else _CLIENT_GONE
            self.record.bytes_in += len(data)
            self.last_received_at = path.seconds()
            self.received += data
            step = self._detect()
            if step is not None:
                return step
        if not (path.can_wait if self.received else self._rules.can_be_silent):
            return self._peeking()
        path.poller.watch(self.client.fileno(), READ, self._client_ready)
        return None

    def _detect(self) -> Step | None:
        if self._path.openings and self.received[0] == _TLS and self._rules is self._path.top_rules:
            return self._peeking()
        detection, detector = self._detection, self._rules.detector
        decision = detector.decide_at_once(Peeked(self.received)) if detection is None else None
        if decision is None:
            if detection is None:
                if detector.may_need_answers(self.received):
                    return self._peeking()
                address = self.address if self._rules.needs_address else None
                tls = self.agreed_tls
                detection = self._detection = detector.start_detection(
                    address.host if address else None, self.record.time, tls and tls.found
                )
            decision = detection.feed(self.received)
            if decision is None:
                return None
            self._detection = None
        record, self.decided = self.record, decision.facts
        record.facts = {**record.facts, **decision.facts} if record.facts else decision.facts
        return Detected(self._rules.layer, decision.route)

    # Connecting.

    def _connect(self, upstream: Upstream) -> Step | None:  # noqa: C901 - each client would pay for another call
        # A connection to a server went out from the same port number, so the client may be its other end: a loop.
        may_loop = self.runtime.loop_detector.slots[self._name[1]]
        if self.transport is not None or may_loop or upstream.needs_stages:
            return Connecting(self, upstream)
        if self.goes_by_hello and (self.has_read_hello or goes_by_hello(self)):
            hello = self.received
            record, message = hello[3] << 8 | hello[4], hello[6] << 16 | hello[7] << 8 | hello[8]
            if not 5 + record == 9 + message == len(hello):
                return Connecting(self, upstream)  # which tells the hello from what follows
            self._hello = hello
        self.state, self._upstream = "connecting", upstream
        self.record.backend = upstream.backend.name
        affinity = ""
        if upstream.depends_on_client:
            affinity = upstream.affinity(self.address, self.decided)
        member = upstream.pool.pick(affinity)
        if not isinstance(member, Member):
            return Connecting(self, upstream)
        if member.socket_address is None and upstream.destinations is not None:
            destination = self._destination_of(member)
            if destination is None:
                upstream.pool.abandoned(member)
                return Connecting(self, upstream)
            member = destination
        self._member, address = member, member.socket_address
        is_own = upstream.destinations is None or not upstream.destinations.avoids_own
        if address is None or (is_own and address[1][1] in self.runtime.loop_detector.ports):
            return self._connecting(partial(BackendConnector.start_with, member=member))
        options, why = self._path.early_options + member.sockets.options, ""
        sources: Sequence[Binding] = ()
        try:
            if upstream.backend.source:
                its = member.sockets.sources
                sources = its.sources_towards(member.target.host, self.address)
            self.server, number, why = start_connecting(*address, options, sources)
        except ConnectError as problem:
            number, why = problem.osError, problem.args[0]
        except OSError as problem:
            number = problem.errno or errno.EINVAL
        return self._send_first() if number in UNDER_WAY else self._failed(number, why)

    def _destination_of(self, member: Member) -> Member | None:
        """Return the address that a server of the rules means for this client; ``None`` without one, or before a look-up."""
        destinations = self._upstream.destinations
        assert destinations is not None  # noqa: S101 - it has been checked
        chosen = destinations.choose(member, target_of(self, destinations))
        return chosen if isinstance(chosen, Member) else None

    def _send_first(self) -> Step | None:
        """Send the client's bytes to the server. Success also shows that the server is connected, which saves a wake-up."""
        server, upstream, data = self.server, self._upstream, self.received
        member, record = self._member, self.record
        assert server is not None and member is not None  # noqa: S101, PT018 - it has just been opened
        if upstream.backend.proxy_protocol != "off":
            data = header_for(self, upstream) + data
        own = server.getsockname()
        if own[1] == member.target.port and is_own_peer(server):
            return self._failed(errno.ECONNREFUSED, OWN_PEER)
        try:
            sent = server.send(data)
        except BlockingIOError:
            if upstream.backend.connect_timeout <= MARGIN:
                return self._stage()
            watch = self._path.poller.watch
            watch(self.client.fileno(), READ, self._client_ready)
            watch(server.fileno(), WRITE, self._server_ready)
            return None
        except OSError as problem:
            return self._failed(problem.errno or errno.EINVAL)
        record.server = member.target.text
        record.server_local = (
            f"{own[0]}:{own[1]}" if len(own) == 2 else text_of(address_of(server.family, own))
        )
        # The relay's idle timeout counts from here, as in `Relay.start`.
        self.last_received_at = now = self._path.seconds()
        connect_ms = (now - self.accepted_at) * 1000 - (record.detect_ms or 0.0)
        self.first_sent = self.received
        record.connect_ms, self.received = connect_ms, data[sent:]
        upstream.counts.connected(connect_ms)
        upstream.pool.connected(member)
        if self._hello:
            return ConnectedByHello(upstream, member, None)
        return Connected(upstream, member, None)

    def _server_ready(self, events: int) -> None:  # noqa: ARG002 - the socket is asked
        try:
            assert self.server is not None  # noqa: S101 - it is being connected
            number = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self.advance(self._failed(number) if number else self._send_first())
        except Exception as problem:  # noqa: BLE001 - as in `_client_ready`
            self._abort_on_error(problem)

    def _failed(self, number: int, why: str = "") -> Stage:
        """Return a stage object, which logs the failure and tries the next server."""
        server, self.server = self.server, None
        if server is not None:
            self._path.poller.closing(server.fileno())
            reset_on_close(server)
            server.close()
        failure = Failure(getConnectError((number, why or os.strerror(number))))
        member = self._member
        assert member is not None  # noqa: S101 - it was tried
        return self._connecting(lambda connector: connector.start_after(member, failure))

    def _connecting(self, start: Callable[[BackendConnector], None]) -> Stage:
        return Connecting(self, self._upstream, partial(self._start, start))

    def _start(
        self, start: Callable[[BackendConnector], None], connector: BackendConnector
    ) -> None:
        self._member = None  # the connector owns it from here on
        start(connector)

    def _resume_connecting(self, connector: BackendConnector, member: Member) -> None:
        server, self.server = self.server, None  # the connector owns it from here on
        self._set_options(server, member)
        waited = self.elapsed_ms() - (self.record.detect_ms or 0.0)
        connector.start_with(member, server, waited / 1000)

    # A second hello.

    def _await_answer(
        self, upstream: Upstream, member: Member, end: ProxyClient | None
    ) -> Step | None:
        if end is not None:
            return AwaitingRetry(self, upstream, member, end)
        self.state, self.server_counts = "awaiting-retry", member.counts
        if self.counted_in:
            member.counts.relayed(self.counted_in, self.counted_out)
        if self.received:
            return self._stage()
        assert self.server is not None  # noqa: S101 - it is connected
        watch = self._path.poller.watch
        watch(self.server.fileno(), READ, self._from_server)
        watch(self.client.fileno(), READ, self._client_ready)
        return None

    def _takes_hello(self, answer: bytes) -> bool:
        """Return whether the server has begun to answer the hello; if not, or if that is not known, a stage takes what it has sent."""
        member = self._member
        assert member is not None  # noqa: S101 - it is connected
        if asks_again(answer) is False:
            self._hello = b""
            self.advance(Connected(self._upstream, member, None))
            return self.state == "relaying"
        record = self.record  # the wait counts from the hello
        sent_ms = (record.detect_ms or 0.0) + (record.connect_ms or 0.0)
        self.last_received_at = self.accepted_at + sent_ms / 1000
        stage = self._awaiting_retry()
        self.advance(stage)
        stage.server.dataReceived(answer)
        return False

    # Relaying.

    def _relay(self, upstream: Upstream, member: Member, end: ProxyClient | None) -> Step | None:
        if end is not None:
            return Relaying(self, upstream, member, end)
        is_first, self.state = self.state == "connecting", "relaying"
        self._may_connect = False
        self.runtime.descriptors.reserved -= 1
        client, server, self.server_counts = self.client, self.server, member.counts
        assert server is not None  # noqa: S101 - it is connected
        if self.counted_in and is_first:  # while the server was being connected
            member.counts.relayed(self.counted_in, self.counted_out)
        if self.received:
            unsent, self.received = self.received, b""
            return self._relaying(server, unsent)
        watch = self._path.poller.watch
        if is_first:
            watch(server.fileno(), READ, self._from_server)
        watch(client.fileno(), READ, self._from_client)
        return None

    def _from_client(self, events: int) -> None:
        self._forward(self.client, self.server, events)

    def _from_server(self, events: int) -> None:
        self._forward(self.server, self.client, events)

    def _forward(self, source: Any, sink: Any, events: int) -> None:  # noqa: C901, PLR0911, PLR0912 - each message would pay for another call
        try:
            if source is self.finished or (events & ERROR and source is not self.client):
                self._side_of(source).ready(events)
                return
            more = True
            while more:
                try:
                    count = source.recv_into(BUFFER, 0, _NOW)
                except BlockingIOError:
                    return
                except OSError:
                    if source is self.client is self.finished and self.agreed_tls is not None:
                        # What it has not read may be a ticket (RFC 8446, section 4.6.1); what it is sent next fails.
                        self._path.poller.unwatch(source.fileno())
                    elif source is not self.client or not self._awaits_end_of_server():
                        self._side_of(source).lost()
                    return
                if not count:
                    self._peer_finished(source, sink)
                    return
                self.last_received_at = self._path.seconds()
                if source is self.client:
                    self.record.bytes_in += count
                else:
                    record = self.record
                    if not record.bytes_out:
                        if self._hello and not self._takes_hello(bytes(VIEW[:count])):
                            return
                        asked_ms = (record.detect_ms or 0.0) + (record.connect_ms or 0.0)
                        waited = (self.last_received_at - self.accepted_at) * 1000 - asked_ms
                        self.server_counts.answered(self._upstream.counts, waited)  # type: ignore[union-attr]  # it is relayed
                        if self._upstream.backend.proxy_protocol != "off":
                            self.server_counts.answered_header(VIEW[:count])  # type: ignore[union-attr]  # the same
                    record.bytes_out += count
                # If the source has half-closed, the kernel keeps its last bytes (MSG_MORE) for a packet with the FIN.
                more = bool(events & FINISHED) and count < FULL
                try:
                    sent = sink.send(VIEW[:count], _NOW_MORE if more else _NOW)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._side_of(sink).set_unwritable()
                    return
                # The sink is slow, or this is a bulk transfer.
                if sent < count or (count == FULL and self.agreed_tls is None):
                    self.advance(self._relaying(sink, bytes(VIEW[sent:count])))
                    return
        except Exception as problem:  # noqa: BLE001 - as in `_client_ready`
            self._abort_on_error(problem)

    def _peer_finished(self, source: socket.socket, sink: socket.socket) -> None:
        if self._hello:
            self.attach_stage()
            return
        if self.finished is not None:
            self.finish("done")
            return
        self.finished, self.last_received_at = source, self._path.seconds()
        record = self.record
        self._before_end = record.bytes_out if source is self.client else record.bytes_in
        if source is self.server and not record.bytes_out:
            self.server_counts.closed()  # type: ignore[union-attr]  # it is relayed
        self._path.poller.change(source.fileno(), 0)
        try:
            sink.shutdown(socket.SHUT_WR)
        except BlockingIOError:  # of TLS
            self.attach_stage()
        except OSError:
            pass  # the next read reports the error

    # After a reset of the client, which many clients send once they have what they want.

    def _awaits_end_of_server(self) -> bool:
        """Close the client's socket, and wait for the server as a `Relay` does; return false if more than that is to be done."""
        client, server, record = self.client, self.server, self.record
        assert server is not None  # noqa: S101 - it is relayed
        is_lost = unacknowledged_by(server) or unacknowledged_by(client) > MAX_FINAL_BYTES
        if is_lost or not record.bytes_out:
            return False
        if self.finished is server and record.bytes_in - self._before_end <= MAX_FINAL_BYTES:
            self._end_after_reset(is_late=True)
            return True
        if self.finished is not None or has_ended(server):
            return False
        poller = self._path.poller
        poller.closing(client.fileno())
        client.close()
        poller.watch(server.fileno(), 0, self._server_ended)
        self._grace = self.runtime.clock.callLater(GRACE, self._server_ended, 0)
        return True

    def _server_ended(self, events: int) -> None:
        # Without events, the server has had the time to close it.
        self._end_after_reset(is_late=events > 0 or has_ended(self.server))

    def _end_after_reset(self, *, is_late: bool) -> None:
        reset_on_close(self.server)  # type: ignore[arg-type]  # it is relayed
        if is_late:
            self.record.note(reset="late")
        try:
            self.finish("done" if is_late else "client-reset")
        except Exception as problem:  # noqa: BLE001 - as in `_client_ready`
            self._abort_on_error(problem)

    @override
    def end(self, reason: AbortReason) -> None:
        if self._grace is None:
            super().end(reason)
        else:
            self._end_after_reset(is_late=False)

    def _side_of(self, peer: socket.socket) -> Any:
        """Attach a `Relaying` stage, and return the relay's side of one of the sockets."""
        is_client, stage = peer is self.client, self._relaying()
        self.advance(stage)
        return self.receiver if is_client else stage.server.receiver

    @property
    @override
    def cannot_move_because(self) -> StayReason | None:
        if self._grace is not None:
            return "ending"
        if self.transport is not None or self.finished is not None:
            self.attach_stage()
            return super().cannot_move_because
        if self.agreed_tls is not None and self.state == "relaying":
            return "TLS ends here"
        return _CANNOT_MOVE.get(self.state, "undecided")

    # Attaching a stage.

    @override
    def attach_stage(self) -> None:
        if self.transport is not None or self.state == "over" or self._grace is not None:
            return
        if self.state == "handshaking":  # its stage does without a transport until now
            self.make_transport(reading=True)
            self.stage.limit_time()  # type: ignore[attr-defined]  # it is that stage
        else:
            self.advance(self._stage())

    def _stage(self) -> Stage:
        """Make the stage object of the current state."""
        if self.state == "introduction":
            return ReadingProxyHeader(self)
        if self.state == "peeking":
            return self._peeking()
        if self.state == "relaying":
            return self._relaying()
        if self.state == "awaiting-retry":
            return self._awaiting_retry()
        member = self._member
        assert member is not None  # noqa: S101 - it is being connected
        return self._connecting(partial(self._resume_connecting, member=member))

    def _relaying(self, sink: socket.socket | None = None, unsent: bytes = b"") -> Relaying:
        """Make a stage object that continues the relay; it first sends the unsent bytes to the sink."""
        upstream, member, client, server = self._upstream, self._member, self.client, self.server
        assert server is not None  # noqa: S101 - it is relayed
        assert member is not None  # noqa: S101 - the same
        self._set_options(server, member)
        path, finished, after_end = self._path, self.finished, 0
        if finished is not None:
            received = self.record.bytes_out if finished is client else self.record.bytes_in
            after_end = received - self._before_end
        of_client, of_server = (
            SideState(
                received=0,
                held=unsent if end is sink else b"",
                has_finished=finished is end,
                is_reading=finished is not end,
                after_end=after_end,
                is_half_closing=finished not in {None, end} and bool(getattr(end, "_kept", b"")),
            )
            for end in (client, server)
        )
        state = RelayState(of_client, of_server, path.seconds() - self.last_received_at, None)
        end = self._end_of(server)
        stage = Relaying(self, upstream, member, end, state, upstream.timeouts)
        self.make_transport(reading=False)
        self._member = self.server = None  # the stage has them from here on
        return stage

    def _awaiting_retry(self) -> AwaitingRetry:
        upstream, member, server = self._upstream, self._member, self.server
        assert server is not None  # noqa: S101 - it is connected
        assert member is not None  # noqa: S101 - the same
        self._set_options(server, member)
        stage = AwaitingRetry(self, upstream, member, self._end_of(server), self._hello)
        self.make_transport(reading=True)
        self._member = self.server = None  # as above
        return stage

    def _end_of(self, server: socket.socket) -> ProxyClient:
        end, (family, name) = ProxyClient(), self._member.socket_address  # type: ignore[union-attr,misc]  # it is connected
        transport = SocketTransport(self._path.poller, server, family, address_of(family, name))
        transport.set_protocol(end)
        return end

    @override
    def _attach(self, stage: Stage) -> Step | None:
        if self.transport is None and stage.state != "handshaking":
            self.make_transport(reading=True)
        return super()._attach(stage)

    def make_transport(self, *, reading: bool) -> None:
        self.client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        client: Any = self.client
        make = getattr(client, "transport_class", SocketTransport)
        transport = make(self._path.poller, client, client.family, self._peer_address(), self._host)
        transport.set_protocol(self)
        if reading:
            transport.startReading()
            self._path.watch_error = transport.watch_error or self._path.watch_error

    # Once a second.

    def check(self, now: float) -> None:
        """Check deadlines and the server's socket; `Sweep` calls this once a second."""
        try:
            if self.transport is None and self._grace is None:
                self._check(now)
        except Exception as problem:  # noqa: BLE001 - as in `_client_ready`
            self._abort_on_error(problem)

    def _check(self, now: float) -> None:
        state, path = self.state, self._path
        if self.first_sent:  # most connections have got their answer by now
            counts = None if self.record.bytes_out else self.server_counts
            count_asked(self, counts, self.record.bytes_in)
        if state == "relaying":
            self._check_relay(now)
            return
        since, timeout = self.accepted_at, path.detect_timeout
        if state == "peeking":
            since, timeout = self._since, timeout if self.received else self._rules.silent_timeout
        elif state == "handshaking":
            since = self.stage.began_at  # type: ignore[attr-defined]  # it is that stage
        elif state == "introduction":
            timeout = path.header_timeout
        elif state == "awaiting-retry":
            since, timeout = self.last_received_at, self._upstream.timeouts.idle
        elif state == "connecting":
            since += (self.record.detect_ms or 0.0) / 1000
            timeout = self._upstream.backend.connect_timeout
        if now - since >= timeout - MARGIN:
            self.attach_stage()

    def _check_relay(self, now: float) -> None:
        client, server, quiet = self.client, self.server, now - self.last_received_at
        self._set_options(server, self._member)
        if self.finished is not None or quiet >= self._upstream.timeouts.idle - MARGIN:
            self.attach_stage()
        elif now - self._checked_at >= self._path.peer_check_interval:
            self._checked_at = now
            if any(unanswered_by(peer).tries for peer in (client, server)):
                stage = self._relaying()
                self.advance(stage)
                stage.relay.check_peers()

    def _set_options(self, server: Any, member: Any) -> None:
        """Set those of the server's socket, as keepalive, that do not matter in its first second: most never last so long."""
        if not self._has_options:
            self._has_options = True
            with suppress(OSError):  # the next read reports the error
                set_options(server, self._path.late_options + member.options)

    # The end.

    @override
    def _abort_on_error(self, problem: Exception) -> None:
        if self.state == "over" and self.record.reason is not None:
            return
        if isinstance(problem, OSError) and self.transport is None:
            self._path.watch_error = problem
            self._abort()
            self.finish("error")
        else:
            super()._abort_on_error(problem)

    @override
    def _abort(self) -> None:
        if self.transport is not None:
            super()._abort()
            return
        for connected in filter(None, (self.client, self.server)):
            reset_on_close(connected)

    @override
    def _leave(self) -> None:
        client: socket.socket | None = self.client
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if self.transport is not None or self.state == "handshaking":
            super()._leave()
        if self.transport is not None:
            client = None  # the transport closes it
        # If it has a stage, that has had no memory to take the others over.
        for connected in (client, self.server):
            if connected is not None:
                self._path.poller.closing(connected.fileno())
                connected.close()
        if (member := self._member) is not None:
            pool = self._upstream.pool
            if self.state not in {"relaying", "awaiting-retry"}:
                pool.abandoned(member)
                return
            if not self.record.bytes_out:
                member.counts.unanswered()
            pool.released(member)


SocketConnection._steps = {
    **MuxProtocol._steps,
    "introduction": SocketConnection._await_header,
    "peeking": SocketConnection._peek,
    "connecting": SocketConnection._connect,
    "awaiting-retry": SocketConnection._await_answer,
    "relaying": SocketConnection._relay,
}
