"""One client's connection, from accept to its line in the access log, through the stages of `txmux.tcp.transitions.TRANSITIONS`."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, cast

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.access.admission import Refused
from txmux.access.per_source import Permit
from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Destination, Upstream
from txmux.client.configuration import CompiledRoute, RuleLayer
from txmux.client.session import count_bytes, new_id, record_decision, record_end, record_multipath
from txmux.net.addresses import address_in, ip_address_of, text_of, twisted_address
from txmux.net.relay.interface import MARGIN, RelayedBytes
from txmux.net.relay.kernel import FULL
from txmux.net.relay.peers import NO_RECEIVER, IRelayTransport, Peer
from txmux.net.sockets.memory import MEMORY, OutOfMemory
from txmux.net.sockets.plainsocket import reset_on_close, set_options
from txmux.net.sockets.poller import READ
from txmux.net.sockets.transport import SocketTransport, address_of, address_of_peer
from txmux.rules.model import Handover, InProcess, Logged, Refusal, fewer
from txmux.tcp.fast_path import DONT_WAIT, ROUNDING, FastPath
from txmux.tcp.moving import MovedConnection, SlotRelease, Sockets, StayReason, accepted_at
from txmux.tcp.stage import CANNOT_MOVE, Client, Stage, Step, count_asked, send
from txmux.tcp.stages import peeking
from txmux.tcp.stages.connecting import asked_before, has_unread_hello, lacks_hello, refuse_unread
from txmux.tcp.stages.reading_proxy_header import is_sender
from txmux.tcp.stages.relaying import Relaying, end_after_reset, release
from txmux.tcp.stages.turning_away import answers_of
from txmux.tcp.states import STATES
from txmux.tcp.transitions import (
    TRANSITIONS,
    Admitted,
    Connected,
    ConnectedByHello,
    HeaderExpected,
    HelloIncomplete,
    Identified,
    MovedHere,
    Node,
    Outcome,
    Routed,
    TerminatesTLS,
    ToBackend,
    ToClosing,
    ToProcess,
    ToProtocol,
    ToRejecting,
    TurnedAway,
)
from txmux.telemetry.access_log import CAPTURED
from txmux.telemetry.counting.counter_groups import RouteCounts
from txmux.telemetry.reasons import AbortReason, EndReason
from txmux.telemetry.record import ConnectionRecord, ConnectionState
from txmux.wire.hello.second import FIRST_BYTES
from txmux.wire.proxyprotocol.decode import LONGEST_HEADER
from txmux.wire.proxyprotocol.header import Address

_HEADER_EXPECTED, _IDENTIFIED = HeaderExpected(), Identified()
_WITH_SERVER = Connected, ConnectedByHello, MovedHere
# The states in which the client's bytes may stay in its socket.
_ONLY_PREVIEW = frozenset(("introduction", "peeking", "handing-over"))
_log = Logger()  # of the module: an event must not keep a connection's objects alive


class MuxProtocol(Peer, Client):
    """A client's connection, from accept to its end, on a plain socket or on any transport of Twisted's. `MuxFactory` makes it.

    Once a server is connected by a `ProxyClientFactory`, a `Relay` is the receiver of both ends. On a plain socket there is no
    transport until something unusual happens; see `txmux.tcp.fast_path`.
    """

    # All that is set on most connections would have no room in a dictionary that shares its keys.
    __slots__ = (
        "_host",
        "before_end",
        "checked_at",
        "detection",
        "detection_began",
        "fast_layer",
        "half_closed",
        "has_server_options",
        "member",
        "path",
        "peer_name",
        "server",
        "socket",
        "timer",
        "upstream",
    )  # fmt: skip

    _host: IAddress | None
    logged: Logged = True
    admitted = False
    permit: Permit | None = None
    counted: RouteCounts | None  # the counters of its route; ``None`` after the end
    decided_after = 0
    refusal_reason: EndReason | None = None
    unrecognised: bytes | None = None
    was_moved_here = False  # another process has accepted and relayed it
    _is_out_of_memory = False
    _steps: ClassVar[Mapping[Node, Callable[..., Step | None]]]
    """For each node of `TRANSITIONS`, makes a stage or returns an outcome; called with the connection and the fields of the previous outcome."""

    def __init__(self, path: FastPath, record: ConnectionRecord) -> None:
        self.path = path
        self.record = record
        self.runtime = path.runtime
        self.configuration = configuration = path.configuration
        self.logged = configuration.settings.log
        self.counted = configuration.counts.unrouted
        self.accepted_at = self.detection_began = path.seconds()
        self.fast_layer = path.top_layer
        self.socket = self.server = self.half_closed = None
        self.member = self.detection = self.timer = None

    @classmethod
    def on_socket(
        cls, path: FastPath, client: socket.socket, name: tuple[Any, ...], host: IAddress | None
    ) -> MuxProtocol:
        """Make one on a plain socket; for its arguments see `MuxFactory.serve`."""
        if host is None or host is not path.host:
            path.host = host or address_of(client.family, client.getsockname())
            path.host_text = text_of(path.host)
            if host is None:  # with TPROXY, the client's port may differ from the listener's
                path.runtime.loop_detector.ports.add(getattr(path.host, "port", 0))
        text = f"{name[0]}:{name[1]}" if len(name) == 2 else text_of(address_of_peer(name))
        listener = path.configuration.settings.name
        self = cls(path, ConnectionRecord(time.time(), new_id(), listener, text, path.host_text))
        self.socket, self.peer_name, self._host = client, name, path.host
        self.has_server_options = False
        self.last_received_at = self.checked_at = self.accepted_at
        return self

    # What is known of the client, and of the connection.

    @property
    def layer(self) -> RuleLayer | None:
        return self.fast_layer.layer if self.state == "peeking" else None

    def relayed(self) -> RelayedBytes:
        if isinstance(self.stage, Relaying):
            return self.stage.relayed()
        record = self.record
        return RelayedBytes(record.bytes_in, record.bytes_out, self.last_received_at)

    @override
    def peer_address(self) -> IAddress:
        if self.transport is None:
            return address_of_peer(self.peer_name)
        return self.transport.getPeer()

    def _local_address(self) -> IAddress:
        return self._host if self.transport is None else self.transport.getHost()

    @property
    @override
    def address(self) -> Address | None:
        return self.source or ip_address_of(self.peer_address())

    @property
    @override
    def local(self) -> Address | None:
        return self.destination or ip_address_of(self._local_address())

    @override
    def peer(self) -> IAddress:
        source = self.source
        return self.peer_address() if source is None else twisted_address(source)

    @override
    def host(self) -> IAddress:
        destination = self.destination
        return self._local_address() if destination is None else twisted_address(destination)

    @override
    def elapsed_ms(self) -> float:
        return (self.runtime.clock.seconds() - self.accepted_at) * 1000

    @override
    def time_left(self, timeout: float) -> float:
        return max(0.0, timeout - self.elapsed_ms() // 10 / 100)

    # The state machine.

    @override
    def advance(self, step: Step | None, at: Node | None = None) -> None:
        if at is None:
            at = self.state
            if at == "over":
                return  # already reported; a lost connection may report it again
        try:
            while step is not None:
                outcomes, kind = TRANSITIONS[at], type(step)
                if kind not in outcomes and isinstance(step, Stage):
                    at, step = step.state, self._attach(step)
                else:
                    at = outcomes[kind]  # type: ignore[index]
                    step = self._steps[at](self, *step)  # type: ignore[misc]
        except Exception as problem:  # noqa: BLE001 - a connection with no working stage would never end
            if isinstance(step, _WITH_SERVER) and step.server is not None:
                # The stage before has handed its server on, and there was no memory for the next one.
                step.server.receiver = NO_RECEIVER
                step.server.transport.abortConnection()
                release(step.upstream, step.member, *step[5:])
            self.abort_on_error(problem)

    def _attach(self, stage: Stage) -> Step | None:
        if self.transport is None and stage.state != "handshaking":  # which does without one
            self.make_transport(reading=True)
        if self.timer is not None or self.stage is not None or self.is_previewed:
            self._leave_stage(stage.state)
        if self.may_connect and not stage.may_connect:
            self._needs_no_socket()
        self.stage = self.receiver = stage
        self.state = stage.state
        return stage.begin()

    def _leave_stage(self, following: ConnectionState) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.stage is not None:
            left, self.stage = self.stage, None
            left.leave()
        if self.is_previewed and following not in _ONLY_PREVIEW:
            self.is_previewed = False
            cast("SocketTransport", self.transport).stop_preview()

    @override
    def attach_stage(self) -> Stage | None:
        if self.transport is not None or self.state == "over" or self.grace:
            return None
        make_stage = STATES[self.state].make_stage
        if make_stage is None:
            return None
        stage = make_stage(self)
        self.advance(stage)
        return stage if self.stage is stage else None

    @override
    def make_transport(self, *, reading: bool) -> None:
        client, path = self.socket, self.path
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        make = getattr(client, "transport_class", SocketTransport)
        transport = make(path.poller, client, client.family, self.peer_address(), self._host)
        transport.set_protocol(self)
        if reading:
            transport.startReading()
            path.watch_error = transport.watch_error or path.watch_error

    @override
    def use_transport(self) -> None:
        if self.transport is None:
            self.make_transport(reading=True)
            self.receiver = self

    @override
    def socket_ready(self, events: int) -> None:
        try:
            state = STATES[self.state]
            if state.make_stage is None:
                self.advance(self.read())
            elif state.read is not None:
                self.advance(state.read(self))
            else:  # more bytes or an end while the server is being connected
                self.attach_stage()
        except Exception as problem:  # noqa: BLE001 - one connection's error must not affect others
            self.abort_on_error(problem)

    @override
    def read(self) -> Step | None:
        if self.transport is not None:
            return self._read_by_transport(self.transport)
        try:
            data = self.socket.recv(FULL, DONT_WAIT)
        except BlockingIOError:
            pass
        except OSError:
            return STATES[self.state].lost(self)
        else:
            state = STATES[self.state]
            step = state.data(self, data) if data else state.end(self)
            if step is not None:
                return step
            if self.transport is not None:
                return self.await_due()
        path = self.path
        path.poller.watch(self.socket.fileno(), READ, self.socket_ready)
        return None if path.can_wait else self.await_due()

    def _read_by_transport(self, transport: IRelayTransport) -> Step | None:
        self._leave_stage(self.state)
        self.receiver, step = self, None
        # Whatever is wrapped around a socket, as TLS is, must see all bytes of it first.
        if isinstance(transport, SocketTransport) and (data := transport.take_received()):
            step = STATES[self.state].data(self, data)
        elif self.has_finished:
            step = STATES[self.state].end(self)
        return self.await_due() if step is None else step

    # What its transport reports to the functions of a state.

    def data_received(self, data: bytes) -> None:
        self.advance(STATES[self.state].data(self, data))

    def peer_finished(self) -> None:
        self.has_finished = True
        self.advance(STATES[self.state].end(self))

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002
        self.advance(STATES[self.state].lost(self))

    @override
    def await_due(self) -> Step | None:
        state = STATES[self.state]
        if state.make_stage is not None:
            return None  # the timer was for the state before
        left = state.due_at(self) - self.runtime.clock.seconds()
        if left < ROUNDING:
            return state.due(self)
        if left < MARGIN or self.transport is not None:
            # In hundredths of a second: timers of one length share a queue.
            self.set_timer(math.ceil((left - ROUNDING) * 100) / 100, self.await_due)
        return None

    @override
    def set_timer(self, seconds: float, call: Callable[[], Step | None]) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.runtime.clock.callLater(seconds, self._time_out, call)

    def _time_out(self, call: Callable[[], Step | None]) -> None:
        try:
            self.advance(call())
        except Exception as problem:  # noqa: BLE001 - nothing else would end it
            self.abort_on_error(problem)

    def check(self, now: float) -> None:
        """Check deadlines and the server's socket; `Sweep` calls this once a second."""
        try:
            if self.transport is not None or self.state == "over" or self.grace:
                return
            if self.first_sent:  # most connections have got their answer by now
                counts = None if self.record.bytes_out else self.server_counts
                count_asked(self, counts, self.record.bytes_in)
            state = STATES[self.state]
            if state.check is not None:
                state.check(self, now)
            if state.due_at is not None and now >= state.due_at(self) - MARGIN:
                if state.make_stage is None:
                    self.advance(self.await_due())
                else:
                    self.attach_stage()
        except Exception as problem:  # noqa: BLE001 - as above
            self.abort_on_error(problem)

    @override
    def set_server_options(self) -> None:
        if not self.has_server_options:
            self.has_server_options = True
            assert self.member is not None  # noqa: S101 - it is connected
            options = self.path.late_options + self.member.options
            with suppress(OSError):  # the next read reports the error
                set_options(self.server, options)

    @override
    def server_end(self) -> ProxyClient:
        self.set_server_options()
        end, (family, name) = ProxyClient(), self.member.socket_address  # type: ignore[union-attr,misc]  # the same
        transport = SocketTransport(self.path.poller, self.server, family, address_of(family, name))
        transport.set_protocol(end)
        return end

    @override
    def abort_on_error(self, problem: Exception) -> None:
        if isinstance(problem, OSError) and self.transport is None:
            self.path.watch_error = problem
        elif isinstance(problem, MemoryError):
            MEMORY.report_shortage(ended=1)
        else:
            _log.failure("{id} could not continue", id=self.record.id)
        if self.transport is not None:
            self.transport.abortConnection()
        else:
            for connected in filter(None, (self.socket, self.server)):
                reset_on_close(connected)
        self.finish("error")

    # Accepting.

    @override
    def connectionMade(self) -> None:
        transport, configuration = self.transport, self.configuration
        host: Any = transport.getHost()
        self.record.local = text_of(host)
        self.runtime.loop_detector.ports.add(getattr(host, "port", 0))
        if configuration.settings.mptcp:
            record_multipath(self.record, transport)
        if configuration.hands_over:
            self._preview()
        self.begin()

    def begin(self) -> None:
        """Serve the client from now on, if it is admitted."""
        configuration = self.configuration
        configuration.counts.accepted()
        senders = configuration.settings.accept_proxy_from
        if senders is not None and is_sender(self.peer_address(), senders):
            # Admission waits for the header, which has the client's address.
            self._open()
            self.advance(_HEADER_EXPECTED, "accepted")
        else:
            self.advance(_IDENTIFIED, "accepted")

    def _preview(self) -> None:
        """Leave the client's bytes in the socket, since another process may get it."""
        transport, settings = self.transport, self.configuration.settings
        if isinstance(transport, SocketTransport):
            header = LONGEST_HEADER if settings.accept_proxy_from is not None else 0
            most = settings.peek_limit + header
            self.is_previewed = transport.start_preview(most, self._stop_detection)

    def _stop_detection(self) -> None:
        if self.state == "peeking":
            self.advance(peeking.finish(self))

    def _open(self) -> None:
        self.may_connect = True
        self.runtime.descriptors.reserved += 1
        self.path.owner.opened(self)
        if self.transport is not None:
            self.runtime.set_options(self.transport, self.configuration.options)
        elif self.path.owner.sweep.timer is None:
            self.path.owner.sweep.begin()

    def _needs_no_socket(self) -> None:
        self.may_connect = False
        self.runtime.descriptors.reserved -= 1

    # The choices of `TRANSITIONS`.

    def _admit(self, header_length: int) -> Step:
        configuration, record = self.configuration, self.record
        admission = configuration.admission
        try:
            self.permit = admission.enter(self.address if admission.needs_address else None)
        except Refused as refused:
            if refused.limit is not None:
                configuration.counts.refused(refused.limit)
                self.runtime.clients.limited(record.listener, refused.limit, record.client)
            return TurnedAway(Refusal.CLOSE, refused.reason)
        self.admitted = True
        if not self.may_connect:
            self._open()
        if header_length:
            # The bytes after the PROXY header are the client's.
            self.received = self.received[header_length:]
            if self.is_previewed and isinstance(self.transport, SocketTransport):
                self.transport.skip(header_length)
            record.bytes_in += len(self.received)
        step: Step = Admitted(configuration.top)
        for make in configuration.stages:
            step = make(self, step)
        return step

    def _decide(self, layer: RuleLayer, route: CompiledRoute | None, reason: EndReason) -> Step:  # noqa: C901 - each client would pay for another call
        for make in layer.stages:
            stage: Stage | None = make(self, None, layer, route)
            if stage is not None:
                return stage
        record = self.record
        # Who says nothing goes to a server that speaks first, whatever it answers.
        goes_by_hello = layer.goes_by_hello and (
            (self.received[:1] in FIRST_BYTES and reason != "silent")
            or self.is_request_cut
            or bool(self.preambles and asked_before(self))
        )
        if self.goes_by_hello is not goes_by_hello:
            self.goes_by_hello = goes_by_hello
        if goes_by_hello:
            self.decided_in, self.decided_route = layer, route
            is_outermost = self.agreed_tls is None and not self.preambles
            self.has_read_hello = is_outermost and "ja4" in self.decided
            # As any client that is not recognised in time; only where that would pass by a restriction, it reaches no server.
            if not (self.has_read_hello or layer.hello_readers.items) and has_unread_hello(self):
                self.goes_by_hello = False
        if route is None:
            return self._leave_to_default(layer)
        if record.route is not None and self.counted is not None:  # it has terminated TLS
            self.counted.left()
        self.counted = route.counts
        route.counts.matched(record)
        record.route = route.name
        if route.log is not True:
            self.logged = fewer(self.logged, route.log)
        step: Step
        if (route.stages or route.terminator) and self.runtime.events.on_decision is not None:
            self.outer += (self.seen,)
        if route.terminator is not None:
            self.is_request_cut = False
            step = TerminatesTLS(route.terminator, self.configuration.inside[route.name], layer)
        else:  # without a destination, a stage opens something
            destination = Refusal.CLOSE if route.destination is None else route.destination
            step = Routed(destination, reason)
        for make in route.stages:
            step = make(self, step, layer, route)
        return step

    def _route(self, destination: Destination, reason: EndReason) -> Outcome:
        record_decision(self, self.record.bytes_in, reason)
        if isinstance(destination, Refusal):
            return TurnedAway(destination, reason)
        if isinstance(destination, InProcess):
            self.open_tunnel()
            return ToProtocol(destination)
        is_unread = self.goes_by_hello and not self.has_read_hello and has_unread_hello(self)
        if isinstance(destination, Handover):
            return refuse_unread(self) if is_unread else ToProcess(destination)
        if is_unread:
            return HelloIncomplete(destination)
        if destination.backend.proxy_tlvs and lacks_hello(self, destination):
            return HelloIncomplete(destination)
        return ToBackend(destination)

    def _refuse(self, how: Refusal, reason: EndReason) -> Outcome:
        is_unanswered = not all(preamble.is_answered for preamble in self.preambles)
        may_get_answer = self.first_answers or (how is Refusal.REJECT and self.received)
        if how is not Refusal.RESET and (is_unanswered or may_get_answer):
            return ToRejecting(how, reason)
        return ToClosing(how, reason)

    def _leave_to_default(self, layer: RuleLayer) -> Outcome:
        if self.record.route is None:
            self.unrecognised = self.received[: CAPTURED * self.configuration.settings.capture]
        if isinstance(layer.default, Refusal) and layer.outer.items:
            self.first_answers = answers_of(self, layer)
        return Routed(layer.default, "no-route")

    @override
    def open_tunnel(self) -> None:
        answer = b"".join(preamble.grant() for preamble in self.preambles)
        if answer:
            send(self, answer)

    # Moving to another process.

    @property
    def cannot_move_because(self) -> StayReason | None:
        if self.grace:
            return "ending"
        if self.half_closed is not None:
            self.attach_stage()
        if self.stage is not None:
            return self.stage.cannot_move_because  # type: ignore[no-any-return]
        if self.agreed_tls is not None and self.state == "relaying":
            return "TLS ends here"
        return CANNOT_MOVE.get(self.state, "undecided")

    def suspend(self) -> tuple[MovedConnection, Sockets]:
        """Stop, and return what another process needs. Only if `cannot_move_because` is ``None``; `resume` or `detach` follows, unless it fails."""
        relay, timeouts, waited, sockets = self.stage.suspend()
        try:
            age, now = self.elapsed_ms() / 1000, self.runtime.clock.seconds()
            version = self.configuration.version
            decided = {} if waited is None else dict(self.decided)
            is_answered = self.is_answered or relay.server.received > 0
            moved = MovedConnection(
                self.record, age, self.logged, timeouts, relay, version, now, waited, decided,
                is_answered, getattr(self.stage, "is_asked", None),
            )  # fmt: skip
        except Exception:  # as a `MemoryError`
            self.stage.resume(relay)
            raise
        return moved, sockets

    def resume(self, moved: MovedConnection) -> None:
        self.stage.resume(moved.relay)

    @property
    def keeps_slot(self) -> bool:
        return isinstance(self.stage, Relaying) and self.stage.keeps_slot

    @property
    def has_slot_elsewhere(self) -> bool:
        return isinstance(self.stage, Relaying) and self.stage.has_slot_elsewhere

    def count_elsewhere(self) -> None:
        """Stop counting it for the listener's limits, since another process counts it. `detach` follows."""
        if self.admitted:
            self.admitted = False
            self.configuration.admission.move_away(self.permit)

    def detach(self, *, keeps_slot: bool = False) -> SlotRelease | None:
        """Forget a connection that another process has taken, and logs; with `keeps_slot`, return a function that releases its slot."""
        stage = self.stage
        release_slot = None
        if keeps_slot and isinstance(stage, Relaying):
            release_slot = stage.move_away()
        self.count_bytes()
        if self.counted is not None:
            self.configuration.counts.moved_away(self.counted)
            self.counted = None
        self.logged = False
        stage.detach()
        self.finish("done")
        return release_slot

    def adopt(
        self,
        moved: MovedConnection,
        sockets: Sockets,
        here: tuple[Upstream, Member | None] | None,
        release_elsewhere: SlotRelease | None = None,
    ) -> None:
        """Continue a connection of another process; `here` has its backend and server, if this process's rules have them."""
        runtime, record, relay = self.runtime, self.record, moved.relay
        self.was_moved_here = True
        self.accepted_at = accepted_at(moved.age, moved.at, runtime.clock.seconds())
        self.logged = moved.logged
        self.permit = self.configuration.admission.adopt(address_in(record.client))
        self.admitted = True
        self.counted = runtime.counters.route(record.listener, record.route or "")
        self.configuration.counts.adopted(self.counted)
        # The other process has counted the bytes so far.
        self.counted_in = record.bytes_in + relay.client.received
        self.counted_out = record.bytes_out + relay.server.received
        # Without a word on it: some of these bytes may have been an answer of txmux's own.
        self.is_answered = self.counted_out > 0 if moved.is_answered is None else moved.is_answered
        self.was_asked = moved.is_asked
        server = ProxyClient()
        for end, connected in zip((self, server), sockets, strict=False):
            runtime.transport(connected).set_protocol(end)
        upstream, member = here or (None, None)
        if moved.waited is None or upstream is None:
            self.path.owner.opened(self)
            self.advance(
                MovedHere(upstream, member, server, relay, moved.timeouts, release_elsewhere),
                "accepted",
            )
            return
        self.waited, self.received = moved.waited, relay.server.held
        self.decided = moved.decided
        self.goes_by_hello = "ja4" in moved.decided
        self.has_finished = relay.client.has_finished
        self._open()
        self.transport.resumeProducing()
        self.advance(ToBackend(upstream), "accepted")

    # The end.

    def count_bytes(self) -> None:
        count_bytes(self)

    def end(self, reason: AbortReason) -> None:
        """End the connection now, in any state."""
        try:
            if self.grace:
                end_after_reset(self, is_late=False)
                return
            self.attach_stage()
            if self.stage is None:
                self.advance(TurnedAway(Refusal.RESET, reason))
            else:
                self.stage.abort(reason)
        except Exception as problem:  # noqa: BLE001 - the caller has other connections to end
            self.abort_on_error(problem)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.type is OutOfMemory:
            self._is_out_of_memory = True
        self.receiver.connection_lost(reason)

    @override
    def finish(self, reason: EndReason) -> None:
        """Record, count and log the end. Later calls do nothing."""
        record = self.record
        if record.reason is not None:
            return
        try:
            record_end(self, "error" if self._is_out_of_memory else reason)
            if self.hop:
                self.runtime.loop_detector.forget(self.hop)
        finally:  # also after a MemoryError: otherwise limits would count the connection for ever
            try:
                self._leave()
            finally:
                if self.may_connect:
                    self._needs_no_socket()
                self.stage = None
                self.receiver = NO_RECEIVER
                self.state = "over"
                self.received = b""
                self.path.owner.closed(self)

    def _leave(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.stage is not None:
            self.stage.leave()
        # Its transport closes the client's. If it has a stage, that has had no memory to take the others over.
        for connected in (None if self.transport is not None else self.socket, self.server):
            if connected is not None:
                self.path.poller.closing(connected.fileno())
                connected.close()
        if (member := self.member) is not None:
            pool = self.upstream.pool
            if self.state not in {"relaying", "awaiting-retry"}:
                pool.abandoned(member)
                return
            if not self.record.bytes_out:
                member.counts.unanswered()
            pool.released(member)


MuxProtocol._steps = {
    **{name: state.enter for name, state in STATES.items()},
    "admission": MuxProtocol._admit,
    "decision": MuxProtocol._decide,
    "routing": MuxProtocol._route,
    "refusal": MuxProtocol._refuse,
    "over": MuxProtocol.finish,
}
