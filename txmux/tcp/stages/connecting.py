"""Two stages: `AwaitingHello` waits for a whole ClientHello, if the PROXY header depends on it, and `Connecting` for a server."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectError, getConnectError
from twisted.logger import Logger
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.access.loops import MOST_HOPS
from txmux.access.per_source import source_of
from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.hold import HeldClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.net.addresses import text_of
from txmux.net.relay.interface import MARGIN, RelayState, SideState, Timeouts
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.sockets.client import OWN_PEER, UNDER_WAY, Binding, is_own_peer, start_connecting
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.net.sockets.poller import READ, WRITE
from txmux.net.sockets.transport import CLOSED, SocketTransport, address_of
from txmux.rules.model import Refusal
from txmux.tcp.connector import BackendConnector, header_for, target_of
from txmux.tcp.moving import Sockets, StayReason
from txmux.tcp.stage import Client, Stage, Step
from txmux.tcp.transitions import (
    Connected,
    ConnectedByHello,
    Outcome,
    Routed,
    ToBackend,
    TurnedAway,
)
from txmux.telemetry.formatting import plural
from txmux.telemetry.reasons import ConnectFailure
from txmux.telemetry.record import ConnectionState
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.hello.records import HANDSHAKE
from txmux.wire.hello.second import BEGINNING, LATE, NOT_READ, begins_tls, is_not_read

_WITH_PORT = IPv4Address, IPv6Address

_UNREAD_FIN_CHECK = 30.0  # seconds between checks whether a paused client may have left unnoticed

_log = Logger()  # of the module: an event must not keep a connection's objects alive


def goes_by_hello(client: Client) -> bool:
    """Return whether the client goes by its hello, which is passed on."""
    is_inner = client.preambles and client.second_hello is not None
    return client.goes_by_hello and not is_inner and begins_tls(client.received)


def asked_before(client: Client) -> bytes:
    # A client of PostgreSQL, for example, has asked for TLS, and was answered here.
    return b"".join(preamble.request for preamble in client.preambles)


def has_unread_hello(client: Client) -> bool:
    """Return whether a server may read a hello in what the client sends, that its route has not."""
    if client.goes_by_hello and not client.received and asked_before(client):
        return True  # PostgreSQL's client has been told to begin TLS
    if client.goes_by_hello and client.is_request_cut and not begins_tls(client.received):
        return not asked_before(client)  # it may still ask for TLS
    if not goes_by_hello(client) or ("ja4" in client.decided and client.agreed_tls is None):
        return False  # where its fingerprint is known, it has been read
    return is_not_read(client.received[: client.configuration.settings.peek_limit])


def refuse_unread(client: Client, why: str = NOT_READ) -> Outcome:
    """Keep a client whose hello its route has not read away from any server."""
    client.record.note(tls_error=why)
    return TurnedAway(Refusal.CLOSE, "tls-failed")


def lacks_hello(client: Client, upstream: Upstream) -> bool:
    """Return whether the PROXY header needs fields of a ClientHello that is still incomplete."""
    names = upstream.backend.proxy_tlvs
    if client.has_finished or client.agreed_tls is not None:
        return False
    settings, received = client.configuration.settings, client.received
    if {"authority", "alpn"}.isdisjoint(names) or not received.startswith(HANDSHAKE):
        return False
    is_late = client.elapsed_ms() >= settings.detect_timeout * 1000
    if len(received) >= settings.peek_limit or is_late:
        return False
    reader = parse_client_hello(received, None)
    return not (reader.hello or reader.malformed)


@define(eq=False, slots=False)
class AwaitingHello(Stage):
    """Waits for the rest of a ClientHello, so that neither its route nor the PROXY header depends on how the network segmented it.

    The rest of `detect_timeout` is the limit, as for all bytes before routing; a hello that a route has to know has a
    `detect_timeout` of its own. Without it, or if another route is for it, the client reaches no server.
    """

    state: ClassVar[ConnectionState] = "awaiting-hello"

    _upstream: Upstream
    _reader: HelloReader | None = attrs.field(default=None, init=False)
    _is_own = False  # whether a route has to know it

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        timeout = client.configuration.settings.detect_timeout
        self._is_own = has_unread_hello(client)
        self.wait(timeout if self._is_own else client.time_left(timeout), self.on_finished)
        return self.on_finished() if client.has_finished else self.on_data()

    @override
    def on_data(self) -> Outcome | None:
        received, limit = self._client.received, self._client.configuration.settings.peek_limit
        self._reader = reader = parse_client_hello(received[:limit], self._reader)
        is_read = reader.hello or (reader.malformed and len(received) >= BEGINNING)
        if is_read or len(received) >= limit:
            return self.on_finished()
        return None

    @override
    def on_finished(self) -> Outcome:
        client = self._client
        client.record.detect_ms = client.elapsed_ms()
        if has_unread_hello(client):
            return refuse_unread(client)
        if self._is_own and not self._is_decided():
            return refuse_unread(client, LATE)
        return ToBackend(self._upstream)

    def _is_decided(self) -> bool:
        """Return whether what has come late belongs to the route that was decided without it."""
        client = self._client
        begun = asked_before(client) + client.received
        detection = client.start_detection(client.decided_in)
        decision = detection.feed(begun) or detection.finish()
        return decision.route is client.decided_route


def enter(client: Client, upstream: Upstream) -> Step | None:  # noqa: C901 - each client would pay for another call
    # A connection to a server went out from the same port number, so the client may be its other end: a loop.
    if (
        client.transport is not None
        or client.runtime.loop_detector.slots[client.peer_name[1]]
        or upstream.needs_stages
    ):
        return Connecting(client, upstream)
    if client.goes_by_hello and (client.has_read_hello or goes_by_hello(client)):
        hello = client.received
        record, message = hello[3] << 8 | hello[4], hello[6] << 16 | hello[7] << 8 | hello[8]
        if not 5 + record == 9 + message == len(hello):
            return Connecting(client, upstream)  # which tells the hello from what follows
        client.sent_hello = hello
    client.state, client.upstream = "connecting", upstream
    client.record.backend = upstream.backend.name
    affinity = ""
    if upstream.depends_on_client:
        affinity = upstream.affinity(client.address, client.decided)
    member = upstream.pool.pick(affinity)
    if not isinstance(member, Member):
        return Connecting(client, upstream)
    if member.socket_address is None and upstream.destinations is not None:
        # The address that it means for this client, unless that needs a look-up.
        destination = upstream.destinations.choose(member, target_of(client, upstream.destinations))
        if not isinstance(destination, Member):
            upstream.pool.abandoned(member)
            return Connecting(client, upstream)
        member = destination
    client.member, address = member, member.socket_address
    is_own = upstream.destinations is None or not upstream.destinations.avoids_own
    if address is None or (is_own and address[1][1] in client.runtime.loop_detector.ports):
        return _go_on(client, partial(BackendConnector.start_with, member=member))
    options, why = client.path.early_options + member.sockets.options, ""
    sources: Sequence[Binding] = ()
    try:
        if upstream.backend.source:
            sources = member.sockets.sources.sources_towards(member.target.host, client.address)
        client.server, number, why = start_connecting(*address, options, sources)
    except ConnectError as problem:
        number, why = problem.osError, problem.args[0]
    except OSError as problem:
        number = problem.errno or errno.EINVAL
    return _send_first(client) if number in UNDER_WAY else _try_next(client, number, why)


def _send_first(client: Client) -> Step | None:
    """Send the client's bytes to the server. Success also shows that the server is connected, which saves a wake-up."""
    server, upstream, data = client.server, client.upstream, client.received
    member, record = client.member, client.record
    assert member is not None  # noqa: S101 - its socket has just been opened
    if upstream.backend.proxy_protocol != "off":
        data = header_for(client, upstream) + data
    own = server.getsockname()
    if own[1] == member.target.port and is_own_peer(server):
        return _try_next(client, errno.ECONNREFUSED, OWN_PEER)
    try:
        sent = server.send(data)
    except BlockingIOError:
        if upstream.backend.connect_timeout <= MARGIN:
            return make_stage(client)
        watch = client.path.poller.watch
        watch(client.socket.fileno(), READ, client.socket_ready)
        watch(server.fileno(), WRITE, partial(_server_connected, client))
        return None
    except OSError as problem:
        return _try_next(client, problem.errno or errno.EINVAL)
    record.server = member.target.text
    record.server_local = (
        f"{own[0]}:{own[1]}" if len(own) == 2 else text_of(address_of(server.family, own))
    )
    # The relay's idle timeout counts from here, as in `Relay.start`.
    client.last_received_at = now = client.path.seconds()
    connect_ms = (now - client.accepted_at) * 1000 - (record.detect_ms or 0.0)
    client.first_sent = client.received
    record.connect_ms, client.received = connect_ms, data[sent:]
    upstream.counts.connected(connect_ms)
    upstream.pool.connected(member)
    if client.sent_hello:
        return ConnectedByHello(upstream, member, None)
    return Connected(upstream, member, None)


def _server_connected(client: Client, events: int) -> None:  # noqa: ARG001 - the socket is asked
    try:
        number = client.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        client.advance(_try_next(client, number) if number else _send_first(client))
    except Exception as problem:  # noqa: BLE001 - one connection's error must not affect others
        client.abort_on_error(problem)


def _try_next(client: Client, number: int, why: str = "") -> Stage:
    """Return a stage, which logs the failure and tries the next server."""
    server, client.server = client.server, None
    if server is not None:
        client.path.poller.closing(server.fileno())
        reset_on_close(server)
        server.close()
    failure = Failure(getConnectError((number, why or os.strerror(number))))
    member = client.member
    assert member is not None  # noqa: S101 - it was tried
    return _go_on(client, lambda connector: connector.start_after(member, failure))


def make_stage(client: Client) -> Stage:
    member = client.member
    assert member is not None  # noqa: S101 - it is being connected

    client.set_server_options()

    def resume(connector: BackendConnector) -> None:
        server, client.server = client.server, None  # the connector owns it from here on
        waited = client.elapsed_ms() - (client.record.detect_ms or 0.0)
        connector.start_with(member, server, waited / 1000)

    return _go_on(client, resume)


def _go_on(client: Client, start: Callable[[BackendConnector], None]) -> Connecting:
    def begin(connector: BackendConnector) -> None:
        client.member = None  # the connector owns it from here on
        start(connector)

    return Connecting(client, client.upstream, begin)


def due_at(client: Client) -> float:
    waits = (client.record.detect_ms or 0.0) / 1000 + client.upstream.backend.connect_timeout
    return client.accepted_at + waits


@define(eq=False, slots=False)
class Connecting(Stage):
    """Waits for a server. What the client sends is buffered, up to the peek limit.

    Args:
        start: Starts the connector; another one if a server has been chosen or tried without a stage.
    """

    state: ClassVar[ConnectionState] = "connecting"

    _upstream: Upstream
    _start: Callable[[BackendConnector], None] = BackendConnector.start
    connector: BackendConnector | None = attrs.field(default=None, init=False)
    held: HeldClient | None = attrs.field(default=None, init=False)
    _paused = False

    @override
    def begin(self) -> Outcome | None:
        client, upstream = self._client, self._upstream
        client.record.backend = upstream.backend.name
        hops = client.runtime.loop_detector.hops_of(client.transport)
        if hops >= MOST_HOPS:
            return self._refuse_loop(hops)
        if len(client.received) >= client.configuration.settings.peek_limit:
            self.on_data()
        if client.has_finished:
            self.on_finished()
        if client.waited:
            self._wait_on()
            return None
        connector = BackendConnector(client, upstream, self._connected, self._failed)
        self.connector = connector
        self._start(connector)
        return None

    def _refuse_loop(self, hops: int) -> Outcome:
        record = self._client.record
        record.note(hops=str(hops))
        _log.warn(
            "[{listener}]: a connection has come back {times}, so it is not sent to backend {backend} again: "
            "one of its servers leads back to this service",
            listener=record.listener,
            times=plural(hops, "time"),
            backend=record.backend,
        )
        return TurnedAway(Refusal.RESET, "limit")

    @override
    def leave(self) -> None:
        super().leave()
        self._leave_connector()
        self._leave_held()
        if self._paused and not self._client.has_finished:
            # The next stage expects a transport that reads.
            self._client.transport.resumeProducing()

    def _leave_connector(self) -> None:
        if self.connector is not None:
            self.connector.cancel()
            self.connector = None  # breaks a reference cycle

    @override
    def on_data(self) -> None:
        client = self._client
        if len(client.received) >= client.configuration.settings.peek_limit:
            self._paused = True
            if not self._watch_for_reset():
                client.transport.pauseProducing()
            self.wait(_UNREAD_FIN_CHECK, self._check_for_unread_fin)

    @override
    def on_finished(self) -> None:
        self._watch_for_reset()

    def _watch_for_reset(self) -> bool:
        """Stop reading, but notice a reset, since the client may wait for long; return whether the transport supports this.

        A FIN does not say whether the client has half-closed or left, and it cannot arrive while the client's bytes fill the
        receive buffer.
        """
        if self.held is not None:
            self._upstream.pool.waiting.mark_possibly_gone(self.held)
        watch_for_reset = getattr(self._client.transport, "watch_for_reset", None)
        if watch_for_reset is not None:
            watch_for_reset()
        return watch_for_reset is not None

    def _check_for_unread_fin(self) -> Outcome | None:
        # Such a client gives up its place among the held ones, which others may need.
        may_have_unread_fin = getattr(self._client.transport, "may_have_unread_fin", None)
        if self.held is not None and may_have_unread_fin is not None and may_have_unread_fin():
            return Routed(self._upstream.fallback, self._upstream.pool.waiting.cause)
        self.wait(_UNREAD_FIN_CHECK, self._check_for_unread_fin)
        return None

    def _connected(self, server: ProxyClient, member: Member) -> None:
        client, record = self._client, self._client.record
        connector, self.connector = self.connector, None
        assert connector is not None  # noqa: S101 - it is the caller
        record.server = member.target.text
        host = server.transport.getHost()  # as the server sees it
        record.server_local = text_of(host) if isinstance(host, _WITH_PORT) else None
        record.connect_ms = client.elapsed_ms() - (record.detect_ms or 0.0)
        self._upstream.counts.connected(record.connect_ms)
        if self.held is None:
            self._record_tried(connector)
        self._leave_held(is_connected=True)
        client.open_tunnel()
        if client.second_hello is not None or goes_by_hello(client):
            client.advance(ConnectedByHello(self._upstream, member, server))
        else:
            client.advance(Connected(self._upstream, member, server))

    def _failed(self, cause: ConnectFailure) -> None:
        connector, self.connector = self.connector, None
        if connector is not None:
            for preamble in self._client.preambles:
                preamble.connect_failed(connector.number)
        is_again = self.held is not None and self.held.is_trying
        tried = [] if connector is None or is_again else self._record_tried(connector)
        if connector is not None and connector.refused and not tried:
            tried = [connector.refused]
        if tried and isinstance(self._upstream.fallback, Refusal):
            self._client.record.server = tried[-1]
        members = () if connector is None else connector.tried.keys()
        why = self._upstream.hold(self._held_client(), cause, members)
        if why is not None:
            self._refuse(why)

    def _refuse(self, why: ConnectFailure) -> None:
        self._client.advance(Routed(self._upstream.fallback, why))

    # Held clients: no server is up, and the backend has `hold`.

    def _held_client(self) -> HeldClient:
        if self.held is None:
            client = self._client
            address = client.address
            self.held = HeldClient(
                client.accepted_at,
                self._upstream.backend.hold,
                self._try_again,
                self._hold_timed_out,
                -1 if address is None else source_of(address.host),
                getattr(client.transport, "handle_pending_events", lambda: None),
                may_have_left=client.has_finished or self._paused,
            )
            if client.waited:
                self.held.since = client.runtime.clock.seconds() - client.waited
                client.waited = 0.0  # it counts for this backend, not for its fallback
        return self.held

    def _try_again(self) -> bool:
        self._upstream = self._upstream.current() or self._upstream
        connector = BackendConnector(self._client, self._upstream, self._connected, self._failed)
        self.connector = connector
        if connector.start_in_turn():
            if connector.is_queued:  # servers are up, but full
                self._leave_held(is_connected=True)
            return True
        self.connector = None
        if self._held_client().seconds:
            return False
        self._refuse(self._upstream.pool.waiting.cause)
        return True

    def _wait_on(self) -> None:
        """Wait as before, here or in another process; if its time is over, the client was in its last try, and gets another one for that."""
        is_over = self._upstream.hold(self._held_client(), "no-server") is not None
        if is_over and not self._try_again():
            self._refuse(self._upstream.pool.waiting.cause)

    def _hold_timed_out(self, why: ConnectFailure) -> None:
        self._upstream = self._upstream.current() or self._upstream
        self._refuse(why)

    @property
    @override
    def cannot_move_because(self) -> StayReason | None:
        """Only a held client can move, also while it tries a server."""
        client = self._client
        if self.held is None:
            return "TLS ends here" if client.agreed_tls else "being connected"
        is_layered = client.agreed_tls or not isinstance(client.transport, SocketTransport)
        if is_layered or client.is_previewed:
            return "waiting for a server"
        return "waiting for a server" if client.source or client.preambles else None

    @override
    def suspend(self) -> tuple[RelayState, Timeouts, float | None, Sockets]:
        """Leave the held clients, break a try off, and stop reading."""
        held, client = self.held, self._client
        transport: Any = client.transport
        assert held is not None  # noqa: S101 - it has been checked
        # What may fail comes first: later, the client would have lost its place.
        waited = client.runtime.clock.seconds() - held.since
        of_client, of_server = SideState(0, b"", client.has_finished), SideState(0, client.received)
        state = RelayState(of_client, of_server, 0.0, None)
        suspended = state, self._upstream.timeouts, waited, (transport.getHandle(),)
        transport.pauseProducing()
        self._upstream.pool.waiting.remove(held)
        self._leave_connector()
        super().leave()  # a timer must not end it while another process may own it
        return suspended

    @override
    def resume(self, relay: RelayState) -> None:
        client = self._client
        client.transport.resumeProducing()
        if client.has_finished:
            self._watch_for_reset()
        self.on_data()
        self._wait_on()

    @override
    def detach(self) -> None:
        transport: Any = self._client.transport
        transport.protocol.receiver = NO_RECEIVER
        transport.connectionLost(CLOSED)

    def _leave_held(self, *, is_connected: bool = False) -> None:
        held, self.held = self.held, None
        if held is not None:
            if held.since >= 0:
                record, now = self._client.record, self._client.runtime.clock.seconds()
                record.note(held=held.waited(record.facts, now))
            self._upstream.pool.waiting.remove(held, is_connected=is_connected)

    def _record_tried(self, connector: BackendConnector) -> list[str]:
        tried = {member.target.text: cause for member, cause in connector.tried.items()}
        if tried:
            self._client.record.note_tried(f"{server} {cause}" for server, cause in tried.items())
        return [*tried]
