"""The usual connection, plain TCP on Linux, from accept to its end in one small object.

A client whose first bytes decide, whose server accepts, and whose two ends take what they are sent passes through here alone. In every
other case `LeanConnection.expand` makes the `MuxProtocol` that is at the same stage, and that goes on by the transitions of all others.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeAlias

from twisted.internet.error import getConnectError
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from txmux.access.admission import Refused
from txmux.access.per_source import Permit
from txmux.backends.connect.client import ProxyClient
from txmux.backends.connect.connector import proxy_header
from txmux.backends.connect.dial import Dial
from txmux.backends.names.destinations import Asked
from txmux.backends.pool.member import Member
from txmux.backends.upstream import MARGIN, Upstream
from txmux.detection.detector import Decision, Detection
from txmux.interfaces import Peeked
from txmux.net.addresses import asked_host, ip_address_of, text_of
from txmux.net.relay.ends import EndReceiver
from txmux.net.relay.interface import RelayedBytes, RelayState, SideState
from txmux.net.relay.kernel import BUFFER, FULL, MORE, VIEW
from txmux.net.relay.peer import unanswered_by
from txmux.net.sockets.client import OWN_PEER, UNDER_WAY, SocketConnector, is_own_peer, prepare
from txmux.net.sockets.memory import MEMORY
from txmux.net.sockets.plainsocket import open_socket, reset_on_close, set_options
from txmux.net.sockets.poller import ERROR, FINISHED, READ, WRITE
from txmux.net.sockets.transport import SocketTransport, address_of, host_of
from txmux.rules.model import Server, fewer
from txmux.tcp.configuration import CompiledRoute
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.lean_path import LeanPath
from txmux.tcp.moving import MovedConnection
from txmux.tcp.served import count_bytes, new_id, note_decision, note_end
from txmux.tcp.stages.relaying import Relaying
from txmux.tcp.transitions import Admitted, Detected, MovedHere, ToBackend
from txmux.telemetry.counting.process_counters import RouteCounts
from txmux.telemetry.reasons import AbortReason, EndReason
from txmux.telemetry.record import ConnectionRecord, ConnectionState
from txmux.wire.proxyprotocol.header import Address

_KIND = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

_log = Logger()  # of the module: an event must not keep a connection's objects alive


class LeanConnection:
    """A usual connection; `txmux.tcp.served.Served` says what others use of it.

    Attributes:
        record: Counts its bytes as they come.
        received: The client's bytes until a server has them.
        finished: The socket of the peer that has finished sending, if one has.
    """

    __slots__ = (
        "_before_end",
        "_checked_at",
        "_detection",
        "_full",
        "_has_options",
        "_host",
        "_member",
        "_name",
        "_path",
        "_place",
        "_upstream",
        "accepted_at",
        "client",
        "configuration",
        "counted",
        "counted_in",
        "counted_out",
        "decided_after",
        "finished",
        "last_received_at",
        "logged",
        "permit",
        "received",
        "record",
        "refusal_reason",
        "runtime",
        "server",
        "state",
    )

    admitted = True
    unrecognised = None
    server: socket.socket
    _upstream: Upstream
    _member: Member
    _place: tuple[int, tuple[str, int]]  # the server's family and address

    def __init__(
        self, path: LeanPath, client: socket.socket, name: tuple[Any, ...], host: IAddress | None
    ) -> None:
        configuration = self.configuration = path.configuration
        settings = configuration.settings
        self._path, self.runtime = path, path.runtime
        self.client, self._name, self._host = client, name, host
        if host is None or host is not path.host:
            path.host = self.host()
            path.host_text = text_of(path.host)
            if host is None:  # which may be another port than the listener's
                path.runtime.loop_detector.ports.add(getattr(path.host, "port", 0))
        text = f"{name[0]}:{name[1]}" if len(name) == 2 else text_of(self.peer())
        self.record = ConnectionRecord(time.time(), new_id(), settings.name, text, path.host_text)
        self.logged = settings.log
        self.received = b""
        self.counted: RouteCounts | None = configuration.counts.unrouted
        self.permit: Permit | None = None
        self.refusal_reason: EndReason | None = None
        self.state: ConnectionState = "peeking"
        self.finished: socket.socket | None = None
        self._detection: Detection[CompiledRoute] | None = None
        # Until the client is routed, a server chosen, and its socket opened.
        self._upstream = self._member = self.server = None  # type: ignore[assignment]
        self._full: MuxProtocol | None = None
        self._has_options = False
        self.decided_after = self.counted_in = self.counted_out = 0
        self.accepted_at = self.last_received_at = self._checked_at = path.seconds()

    # What others ask of it.

    @property
    def address(self) -> Address | None:
        return ip_address_of(self.peer())

    def peer(self) -> IAddress:
        name = self._name
        if len(name) == 2:
            return address_of(socket.AF_INET, name)
        return address_of(socket.AF_INET6, (host_of(name), *name[1:]))

    def host(self) -> IAddress:
        if self._host is None:
            self._host = address_of(self.client.family, self.client.getsockname())
        return self._host

    def elapsed_ms(self) -> float:
        return (self._path.seconds() - self.accepted_at) * 1000

    def relayed(self) -> RelayedBytes:
        return RelayedBytes(self.record.bytes_in, self.record.bytes_out, self.last_received_at)

    def count_bytes(self) -> None:
        count_bytes(self)

    def end(self, reason: AbortReason) -> None:
        if self.record.reason is None:
            try:
                self.expand().end(reason)
            except MemoryError as problem:  # there was not enough for the fuller one
                self._break_off(problem)

    # The client's first bytes.

    def read_first(self) -> None:
        """Read what has come with the client: it is seldom silent, and then has to be watched."""
        self._read(0)
        if self.state != "peeking":
            return
        path = self._path
        if not (path.can_wait if self.received else path.can_be_silent):
            self.expand()
            return
        try:
            path.poller.watch(self.client.fileno(), READ, self._read)
        except (OSError, MemoryError):
            self._over("error")
            raise

    def _read(self, events: int) -> None:  # noqa: ARG002 - the socket is asked
        try:
            data = self.client.recv(FULL)
        except BlockingIOError:
            return
        except OSError:
            data = self.received = b""
        if data:
            self.record.bytes_in += len(data)
            self.last_received_at = self._path.seconds()
            try:
                self.received += data
                self._detect()
            except Exception as problem:  # noqa: BLE001 - it ends this connection alone
                self._break_off(problem)
        elif self.received:
            self.expand()  # and the end is reported again
        else:  # it broke; or it was a port scan, or a balancer's check
            self._over("client-gone")

    def _detect(self) -> None:
        detection, detector = self._detection, self._path.detector
        if detection is None:
            decision = detector.decide_at_once(Peeked(self.received))
            if decision is not None:
                self._decided(decision)
                return
            if detector.converses(self.received):
                self.expand()
                return
            address = self.address if self._path.asks_who else None
            detection = self._detection = detector.start_detection(
                address.host if address else None, self.record.time
            )
        decision = detection.feed(self.received)
        if decision is not None:
            self._decided(decision)

    def _decided(self, decision: Decision[CompiledRoute]) -> None:
        record, route = self.record, decision.route
        self._detection = None
        record.facts = decision.facts
        upstream = None if route is None or route.termination is not None else route.destination
        if route is None or type(upstream) is not Upstream or not upstream.is_plain:
            self._make_full().advance(Detected(self._path.configuration.top, route), "peeking")
            return
        self.counted = route.counts
        route.counts.matched(record)
        record.route = route.name
        self.logged = fewer(self.logged, route.log)
        note_decision(self, record.bytes_in, "denied")
        self._connect(upstream)

    # A server.

    def _connect(self, upstream: Upstream) -> None:
        self.state, self._upstream = "connecting", upstream
        self.record.backend = upstream.backend.name
        member = upstream.pool.pick()
        if not isinstance(member, Member):
            self.expand()
            return
        self._member = member
        place = member.place
        if place is None:
            place = self._choose(member)
            if place is None:
                return
        elif place[1][1] in self.runtime.loop_detector.ports:
            self._continue_by(self.configuration.dial)
            return
        self._place = family, name = place
        why = ""
        try:
            server = self.server = open_socket(family, _KIND)
            prepare(server, self._path.early_options + member.options)
            number = server.connect_ex(name)
        except OSError as problem:
            number, why = problem.errno or errno.EINVAL, problem.strerror or ""
        if number in UNDER_WAY:
            self._greet()
        else:
            self._fail(number, why)

    def _choose(self, member: Member) -> tuple[int, tuple[str, int]] | None:
        """Take what a server stands for to this client; without that, or with a name to look up first, expand."""
        upstream, destinations = self._upstream, self._upstream.destinations
        if destinations is not None:
            host, port = "", 0
            if destinations.needs_local and (end := ip_address_of(self.host())) is not None:
                host, port = asked_host(self.host()), end.port
            chosen = destinations.choose(member, Asked(self.record.facts, host, port))
            if not isinstance(chosen, Member):
                self._member = None  # type: ignore[assignment]
                upstream.pool.abandoned(member)
                self.expand()
                return None
            self._member, place = chosen, chosen.place
            ports = () if destinations.avoids_own else self.runtime.loop_detector.ports
            if place is not None and place[1][1] not in ports:
                return place
        self._continue_by(self.configuration.dial)
        return None

    def _greet(self) -> None:
        """Send the server what the client has sent, which shows whether it is connected."""
        server, upstream, data = self.server, self._upstream, self.received
        if upstream.backend.proxy_protocol != "off":
            local = ip_address_of(self.host())
            data = proxy_header(upstream.backend, self.address, local) + data
        own = server.getsockname()
        if own[1] == self._place[1][1] and is_own_peer(server):
            self._fail(errno.ECONNREFUSED, OWN_PEER)
            return
        try:
            sent = server.send(data)
        except BlockingIOError:
            self._wait()
        except OSError as problem:
            self._fail(problem.errno or errno.EINVAL)
        else:
            self._connected(own, data[sent:])

    def _wait(self) -> None:
        if self._upstream.backend.connect_timeout <= MARGIN:
            self.expand()
            return
        watch = self._path.poller.watch
        watch(self.client.fileno(), READ, self._stir)
        watch(self.server.fileno(), WRITE, self._server_ready)

    def _stir(self, events: int) -> None:  # noqa: ARG002 - whatever it is
        """The client has sent more, or has left, while its server is being connected."""
        try:
            self.expand()
        except MemoryError as problem:
            self._break_off(problem)

    def _server_ready(self, events: int) -> None:  # noqa: ARG002 - the socket is asked
        try:
            number = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                self._fail(number)
            else:
                self._greet()
        except Exception as problem:  # noqa: BLE001 - it ends this connection alone
            self._break_off(problem)

    def _fail(self, number: int, why: str = "") -> None:
        """Leave it to the fuller connection to log that, and to try the next server."""

        def dial(*_: object, **_options: object) -> NoReturn:
            raise getConnectError((number, why or os.strerror(number)))

        if self.server is not None:
            self._path.poller.closing(self.server.fileno())
            reset_on_close(self.server)
            self.server.close()
        self._continue_by(dial)

    def _connected(self, own: tuple[Any, ...], unsent: bytes) -> None:
        upstream, member, record = self._upstream, self._member, self.record
        record.server = member.target.text
        record.server_local = (
            f"{own[0]}:{own[1]}" if len(own) == 2 else text_of(address_of(self.server.family, own))
        )
        record.connect_ms = connect_ms = self.elapsed_ms() - (record.detect_ms or 0.0)
        self.state, self.received = "relaying", b""
        path = self._path
        path.runtime.descriptors.reserved -= 1
        upstream.counts.connected(connect_ms)
        upstream.pool.connected(member)
        if unsent:
            self._expand_relaying(self.server, unsent)
            return
        watch, client, server = path.poller.watch, self.client, self.server
        watch(server.fileno(), READ, partial(self._carry, server, client))
        watch(client.fileno(), READ, partial(self._carry, client, server))

    # Their bytes.

    def _carry(self, source: socket.socket, sink: socket.socket, events: int) -> None:
        try:
            if events & ERROR or source is self.finished:
                self._expand_side(source).ready(events)
            else:
                self._pass_on(source, sink, events & FINISHED)
        except Exception as problem:  # noqa: BLE001 - it ends this connection alone
            self._break_off(problem)

    def _pass_on(self, source: socket.socket, sink: socket.socket, end_is_near: int) -> None:
        try:
            count = source.recv_into(BUFFER)
        except BlockingIOError:
            return
        except OSError:
            self._expand_side(source).lost()
            return
        if not count:
            self._peer_finished(source, sink)
            return
        self.last_received_at = self._path.seconds()
        if source is self.client:
            self.record.bytes_in += count
        else:
            self.record.bytes_out += count
        # The last bytes wait for the end in the kernel, and leave with it in one packet.
        more = end_is_near and count < FULL
        try:
            sent = sink.send(VIEW[:count], MORE if more else 0)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._expand_side(sink).set_unwritable()
            return
        if sent < count or count == FULL:  # the sink is slow, or much comes
            self._expand_relaying(sink, bytes(VIEW[sent:count]))
        elif more:
            self._pass_on(source, sink, end_is_near)

    def _peer_finished(self, source: socket.socket, sink: socket.socket) -> None:
        if self.finished is not None:
            self._over("done")
            return
        self.finished, self.last_received_at = source, self._path.seconds()
        record = self.record
        self._before_end = record.bytes_out if source is self.client else record.bytes_in
        self._path.poller.change(source.fileno(), 0)
        with suppress(OSError):  # it broke; reading finds out
            sink.shutdown(socket.SHUT_WR)

    # Whatever is unusual.

    def look(self, now: float) -> None:
        """See to what can wait for a second, and to deadlines."""
        try:
            self._look(now)
        except Exception as problem:  # noqa: BLE001 - it ends this connection alone
            self._break_off(problem)

    def _look(self, now: float) -> None:
        state, upstream = self.state, self._upstream
        if state == "peeking":
            if now - self.accepted_at >= self._path.detect_timeout - MARGIN:
                self.expand()
        elif state == "connecting":
            waited = now - self.accepted_at - (self.record.detect_ms or 0.0) / 1000
            if waited >= upstream.backend.connect_timeout - MARGIN:
                self.expand()
        elif state == "relaying":
            self._set_options()
            quiet = now - self.last_received_at
            if self.finished is not None or quiet >= upstream.timeouts.idle - MARGIN:
                self.expand()
            elif now - self._checked_at >= self._path.patience:
                self._checked_at = now
                if any(unanswered_by(peer).tries for peer in (self.client, self.server)):
                    relaying = self.expand().stage
                    if isinstance(relaying, Relaying):
                        relaying.relay.check_peers()

    def _set_options(self) -> None:
        """Set those options of the server's socket that do not matter in the first seconds."""
        if not self._has_options:
            self._has_options = True
            with suppress(OSError):  # it broke; reading finds out
                set_options(self.server, self._path.late_options)

    def expand(self) -> MuxProtocol:
        """Return the `MuxProtocol` that goes on in place of this connection, from the same stage."""
        if self._full is not None:
            return self._full
        if self.state == "peeking":
            full = self._make_full()
            clock, left = self.runtime.clock, self._path.detect_timeout - self.elapsed_ms() / 1000
            deadline = clock.callLater(max(0.0, left), full.detection_over)
            full.advance(Admitted(self.configuration.top, deadline), "admission")
        elif self.state == "relaying":
            self._expand_relaying()
        elif self._member is None:
            self._make_full().advance(ToBackend(self._upstream), "routing")
        else:
            self._continue_by(self._go_on_dialling)
        assert self._full is not None  # noqa: S101 - each of these has made it
        return self._full

    def _continue_by(self, dial: Dial) -> None:
        """Continue as a connection whose server is dialled by a function, at this try."""
        upstream, member = self._upstream, self._member
        self._make_full().advance(ToBackend(upstream, None, (member, dial)), "routing")

    def _go_on_dialling(
        self, _server: Server, factory: Any, timeout: float, **_: Any
    ) -> Callable[[], None]:
        self._set_options()
        family, name = self._place
        waited = self.elapsed_ms() - (self.record.detect_ms or 0.0)
        connector = SocketConnector(self._path.poller, self.runtime.clock, family, name, factory)
        connector.take_over(self.server, max(0.0, timeout - waited / 1000))
        return connector.disconnect

    def _expand_relaying(
        self, sink: socket.socket | None = None, unsent: bytes = b""
    ) -> tuple[EndReceiver, EndReceiver]:
        """Continue as a relayed connection, with bytes that a peer is still to be sent; return the client's side and the server's."""
        upstream, member, client, server = self._upstream, self._member, self.client, self.server
        self._set_options()
        path, finished = self._path, self.finished
        now, after_end = path.seconds(), 0
        if finished is not None:
            record = self.record
            received = record.bytes_out if finished is client else record.bytes_in
            after_end = received - self._before_end
        of_client, of_server = (
            SideState(
                received=0,
                held=unsent if end is sink else b"",
                has_finished=finished is end,
                is_reading=finished is not end,
                after_end=after_end,
            )
            for end in (client, server)
        )
        relay = RelayState(of_client, of_server, now - self.last_received_at, None)
        age, timeouts = now - self.accepted_at, upstream.timeouts
        moved = MovedConnection(self.record, age, self.logged, timeouts, relay)
        end, (family, name) = ProxyClient(), self._place
        transport = SocketTransport(path.poller, server, family, address_of(family, name))
        transport.set_protocol(end)
        begun = MovedHere(upstream, member, end, None, moved, None)
        # Last, since it ends as it is if memory runs out until then.
        full = self._make_full(reading=False)
        full.advance(begun, "accepted")
        return full.receiver, end.receiver

    def _expand_side(self, peer: socket.socket) -> Any:
        client, server = self._expand_relaying()
        return client if peer is self.client else server

    def _make_full(self, *, reading: bool = True) -> MuxProtocol:
        path, family = self._path, self.client.family
        full = MuxProtocol(path.owner, path.configuration, self.runtime, self.record)
        full.take_over(self)
        transport = SocketTransport(path.poller, self.client, family, self.peer(), self._host)
        transport.set_protocol(full)
        path.owner.replace(self, full)
        self._full, self.counted, self.state = full, None, "over"
        if reading:
            transport.startReading()
        return full

    # The end.

    def _break_off(self, problem: Exception) -> None:
        if isinstance(problem, MemoryError):
            MEMORY.lacks(ended=1)
        elif isinstance(problem, OSError):
            self._path.trouble = problem
        else:
            _log.failure("{id} could not continue", id=self.record.id)
        if self._full is not None:
            self._full.transport.abortConnection()
            self._full.over("error")
            return
        for connected in filter(None, (self.client, self.server)):
            reset_on_close(connected)
        self._over("error")

    def _over(self, reason: EndReason) -> None:
        path, member, state = self._path, self._member, self.state
        if state == "over":
            return
        self.state = "over"
        for connected in (self.client, self.server):
            if connected is not None:
                path.poller.closing(connected.fileno())
                connected.close()
        if state != "relaying":
            path.runtime.descriptors.reserved -= 1
        try:
            note_end(self, reason)
        finally:  # if there is no memory for that, it must not count for ever
            if member is not None:
                pool = self._upstream.pool
                (pool.released if state == "relaying" else pool.abandoned)(member)
            path.owner.closed(self)


Stream: TypeAlias = MuxProtocol | LeanConnection
"""A client's connection, of either kind."""


def serve(
    path: LeanPath, client: socket.socket, name: tuple[Any, ...], host: IAddress | None
) -> bool:
    """Serve an accepted client; false, and nothing is done, if it is refused or is no usual one.

    Args:
        path: That of the listener; it is open.
        client: A socket that does not block.
        name: The client's address, as ``accept()`` returns it.
        host: The address that it has connected to; ``None`` if only its socket knows.

    Raises:
        OSError: The socket cannot be watched. The connection has ended.
    """
    runtime, configuration = path.runtime, path.configuration
    if runtime.events.has_listener or runtime.loop_detector.slots[name[1]]:
        return False
    connection = LeanConnection(path, client, name, host)
    admission = configuration.admission
    try:
        address = connection.address if admission.asks_who else None
        connection.permit = admission.enter(address, None)
    except Refused:  # the fuller one is refused again, and logs it
        return False
    configuration.counts.accepted()
    runtime.descriptors.client_accepted()
    runtime.descriptors.reserved += 1
    path.owner.opened(connection)
    sweep = path.owner.sweep
    if sweep.timer is None:
        sweep.begin()
    path.trouble = None  # of an earlier one
    connection.read_first()
    if path.trouble is not None:
        raise path.trouble
    return True
