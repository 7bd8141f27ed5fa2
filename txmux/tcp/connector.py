"""Connects a client to a backend: tries its servers one after another until one accepts."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial

import attrs
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, ITransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.dial import LASTING_ERRORS, LOCAL_ERRORS, NO_PORT, reason_of
from txmux.backends.names.destinations import ClientTarget, Denial, Destinations, Unknown
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.backends.pool.queue import Waiter
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.client.session import record_multipath
from txmux.net.addresses import host_text
from txmux.net.sockets.client import IN_USE
from txmux.net.tls.errors import HandshakeError
from txmux.rules.model import Backend
from txmux.tcp.stage import Client
from txmux.telemetry.reasons import CLIENT_FAULTS, ConnectFailure
from txmux.transport import source_number, source_of_client
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.proxyprotocol.fields import authority, passed_on_fields
from txmux.wire.proxyprotocol.header import Address, Tlv, TlvType
from txmux.wire.steps import RequestRefusedError, Step

_BY_TYPE = {TlvType.AUTHORITY: "authority", TlvType.ALPN: "alpn", TlvType.SSL: "ssl"}

_log = Logger()  # of the module: an event must not keep a connection's objects alive


@define(eq=False, weakref_slot=False)
class BackendConnector:
    """Makes one connection to a backend for one client. After a failure, up to ``retries`` other servers are tried.

    Exactly one of `on_connected` and `on_failed` is called, once, unless the connector is cancelled first. On success, the new
    owner of the connection must call `BackendPool.released` when the connection ends.

    Args:
        client: For whom, by what is known of it now.
        on_connected: Called with the server's end and the server; must set the end's receiver before it returns.
        on_failed: Called with the cause of the last failure.

    Attributes:
        refused: The server for the log if the rules forbid the one that the client wants.
        number: The system's number of the last failure; 0 if it has none.
        requests: What the server is asked before it gets the client's bytes: what txmux has answered during detection, or STARTTLS.
        tried: The servers that could not be reached, and why.
    """

    _client: Client
    _upstream: Upstream
    on_connected: Callable[[ProxyClient, Member], None]
    on_failed: Callable[[ConnectFailure], None]
    _is_cancelled: bool = attrs.field(default=False, init=False)
    _member: Member | None = attrs.field(default=None, init=False)
    _factory: ProxyClientFactory | None = attrs.field(default=None, init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _waiter: Waiter | None = attrs.field(default=None, init=False)
    _is_in_turn: bool = attrs.field(default=False, init=False)
    _failure: tuple[str, str] = attrs.field(default=("", ""), init=False)  # server, and why
    _address: Address | None = attrs.field(default=None, init=False)  # of the client, if it counts
    _affinity: str = attrs.field(default="", init=False)  # the key of the choice by a hash
    _header: bytes = attrs.field(default=b"", init=False)
    _client_target: ClientTarget | None = attrs.field(default=None, init=False)
    _eager: bool = attrs.field(default=False, init=False)
    refused: str | None = attrs.field(default=None, init=False)
    _look_up: Deferred[None] | None = attrs.field(default=None, init=False)
    requests: tuple[Step, ...] = attrs.field(default=(), init=False)
    tried: dict[Member, ConnectFailure] = attrs.field(factory=dict, init=False)
    number: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        client, upstream = self._client, self._upstream
        self._eager = bool(client.received)
        if upstream.depends_on_client or upstream.destinations is not None:
            self._address = client.address
        if upstream.depends_on_client:
            if upstream.backend.proxy_protocol != "off":
                self._header = header_for(client, upstream)
            self._affinity = upstream.affinity(self._address, client.decided)
        if upstream.destinations is not None:
            self._client_target = target_of(client, upstream.destinations)
        in_clear = client.agreed_tls is not None
        for preamble in client.preambles:
            self.requests += preamble.server_steps(upstream.note_greeting, in_clear=in_clear)

    def start(self) -> None:
        self._pick_first(self._upstream.first_look_ups)

    def _pick_first(self, first_look_ups: Callable[[], Deferred[None] | None]) -> None:
        if self._is_cancelled:
            return
        upstream = self._upstream
        lacks_proxy_address = upstream.proxy is not None and not upstream.pool.proxies
        if lacks_proxy_address and (looked_up := first_look_ups()) is not None:
            looked_up.addCallback(lambda _: self._pick_first(lambda: None))
            return
        queue = self._upstream.queue
        if queue:  # earlier clients have priority
            queue.serve()
        found = self._upstream.pool.pick(self._affinity)
        if found is Unavailable.NO_SERVER and (looked_up := first_look_ups()) is not None:
            # A client waits for a look-up only while the service starts; later ones run in the background.
            looked_up.addCallback(lambda _: self._pick_first(lambda: None))
        else:
            self._go_to(found, "no-server")

    def _go_to(self, found: Member | Unavailable, otherwise: ConnectFailure) -> None:
        if isinstance(found, Member):
            self._choose(found)
        elif found is Unavailable.FULL:
            self._wait()
        else:
            self.on_failed(otherwise)

    def start_in_turn(self) -> bool:
        """Start for the held client whose turn it is; returns false if no server is up."""
        self._is_in_turn = True
        found = self._upstream.pool.pick_in_turn(self._affinity)
        if found is not Unavailable.NO_SERVER:
            self._go_to(found, "no-server")
        return found is not Unavailable.NO_SERVER

    @property
    def is_queued(self) -> bool:
        return self._waiter is not None

    def start_after(self, member: Member, failure: Failure) -> None:
        """Start after a failed attempt of the caller's: log the failure, and try other servers."""
        self._member = member
        self._failed(failure)

    def cancel(self) -> None:
        self._is_cancelled = True
        member, factory = self._member, self._factory
        look_up, self._look_up = self._look_up, None
        self._end_attempt()
        if look_up is not None:
            look_up.cancel()
        if self._waiter is not None and self._upstream.queue is not None:
            self._upstream.queue.remove_client(self._waiter)
        if factory is not None:
            factory.break_off()
        if member is not None:
            self._upstream.pool.abandoned(member)

    # Waiting for a server with room.

    def _wait(self) -> None:
        queue = self._upstream.queue
        if queue is not None:
            # Clients that have tried the same servers wait for the same others, so they share a queue.
            group = frozenset(self.tried)
            self._waiter = queue.add_client(self._on_turn, self._queue_timed_out, group)
        if self._waiter is None:
            self.on_failed(self._last_cause("limit"))

    def _on_turn(self) -> bool:
        pool = self._upstream.pool
        pick = pool.pick_in_turn if self._is_in_turn else pool.pick
        found = pick(self._affinity, self.tried)
        if found is Unavailable.FULL:
            return False
        self._waiter = None
        self._go_to(found, self._last_cause("no-server"))
        return True

    def _queue_timed_out(self) -> None:
        self._waiter = None
        self.on_failed(self._last_cause("limit"))

    def _last_cause(self, otherwise: ConnectFailure) -> ConnectFailure:
        return next(reversed(self.tried.values()), otherwise)

    # One attempt.

    def _choose(self, member: Member, *, may_look_up: bool = True) -> None:
        """Try the server that the pool has chosen, or the address that it means for this client."""
        destinations = self._upstream.destinations
        if destinations is None:
            self.start_with(member)
            return
        assert self._client_target is not None  # noqa: S101 - it is known from the beginning
        chosen = destinations.choose(member, self._client_target, self.tried)
        if isinstance(chosen, Member):
            self.start_with(chosen)
        elif isinstance(chosen, Unknown) and may_look_up:
            self._member = member
            timeout = self._upstream.backend.connect_timeout
            clock = self._client.runtime.clock
            self._deadline = clock.callLater(timeout, self._look_up_timed_out)
            self._look_up = look_up = destinations.look_up(chosen, self._address)
            look_up.addCallbacks(lambda _: self._look_up_done(), lambda _: None)
        else:
            self._upstream.pool.abandoned(member)
            cause: ConnectFailure = "limit"  # of look-ups
            if isinstance(chosen, Denial):
                cause, self.refused = chosen
            if self.tried:
                self._log_failure(is_last=True)
            elif cause not in CLIENT_FAULTS:
                member.counts.failed(cause)
            self.on_failed(self._last_cause(cause))

    def _look_up_done(self) -> None:
        member, self._look_up = self._member, None
        assert member is not None  # noqa: S101 - set with the look-up
        self._end_attempt()
        self._choose(member, may_look_up=False)

    def _look_up_timed_out(self) -> None:
        look_up, member, self._look_up = self._look_up, self._member, None
        assert look_up is not None and member is not None  # noqa: S101, PT018 - as above
        self._deadline = None
        look_up.cancel()
        self._end_attempt()
        self._upstream.pool.abandoned(member)
        member.counts.failed("connect-timeout")
        self.on_failed(self._last_cause("connect-timeout"))

    def start_with(
        self, member: Member, begun: socket.socket | None = None, begun_ago: float = 0.0
    ) -> None:
        """Try a server that the pool has already chosen, maybe by a socket on which that has begun, some seconds ago."""
        if self._upstream.lacks_tls():
            self._upstream.pool.abandoned(member)
            self.on_failed("tls-failed")
            return
        self._member = member
        self._factory = attempt = ProxyClientFactory(self._connected, self._failed)
        attempt.requests, attempt.header = self.requests, self._header
        attempt.on_open = self._note_server
        upstream, target = self._upstream, member.target
        if upstream.tls is not None:
            name, agreed = member.name or target.host, self._client.agreed_tls
            alpn = (agreed.alpn,) if agreed is not None and agreed.alpn else ()
            attempt.wrap = partial(upstream.wrap, server_name=name, alpn=alpn)
        attempt.connect(
            upstream.dialler(self._client.configuration.dialler),
            target,
            max(0.0, upstream.backend.connect_timeout - begun_ago),
            client=self._address,
            eager=self._eager,
            begun=begun,
        )

    def _note_server(self, transport: ITransport) -> None:
        """Note the connection to a server, before anything is sent on it: it is recognised if it leads back here."""
        client, backend = self._client, self._upstream.backend
        if backend.mptcp:
            record_multipath(client.record, transport)
        loop_detector = client.runtime.loop_detector
        loop_detector.forget(client.hop)
        # With a header of this service before them, the client's own bytes are none.
        is_first = backend.proxy_protocol == "off" and bool(backend.names)
        noted = loop_detector.record(transport, client.transport, may_forge_header=is_first)
        if noted != client.hop:  # see `Client`
            client.hop = noted

    def _end_attempt(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._member = self._factory = None

    def _connected(self, end: ProxyClient) -> None:
        member = self._member
        assert member is not None  # noqa: S101 - the factory goes with the attempt
        self._end_attempt()
        self._upstream.pool.connected(member)
        self.on_connected(end, member)

    def _failed(self, failure: Failure) -> None:
        member, attempt = self._member, self._factory
        assert member is not None  # noqa: S101 - the factory goes with the attempt
        self._end_attempt()
        awaited = "connection" if attempt is None else attempt.awaited
        cause = self.tried[member] = connect_cause(failure)
        # The client has chosen its requests, so that their refusal says nothing about the server.
        is_refused = _is_refusal(failure, awaited) and any(
            preamble.repeats_client for preamble in self._client.preambles
        )
        self.number = getattr(failure.value, "osError", None) or 0
        lasts = self.number in LASTING_ERRORS
        is_local_fault, in_turn = cause == "error" and not lasts, self._is_in_turn
        counted = "tls-failed" if is_refused else cause
        source = source_number(self._client.record.client) if counted == "tls-failed" else None
        member.counts.failed(counted, is_local=is_local_fault, source=source)
        found = self._upstream.pool.next_after(
            member,
            self._affinity,
            self.tried,
            is_local_fault=is_local_fault or is_refused,
            in_turn=in_turn,
        )
        why = reason_of(failure)
        if failure.check(error.TimeoutError):
            why = f"no {awaited} within {self._upstream.backend.connect_timeout:g} s"
        self._failure = member.target.text, why
        if why in {NO_PORT, IN_USE}:
            name = self._upstream.backend.name
            PORT_SHORTAGE.failed(
                name, member.server.text, why, source_of_client(self._client.record.client)
            )
        else:
            self._log_failure(is_last=not isinstance(found, Member))
        self._go_to(found, cause)

    def _log_failure(self, *, is_last: bool) -> None:
        server, why = self._failure
        # A held client tries the same server again and again, which must not fill the log.
        (_log.warn if is_last and not self._is_in_turn else _log.debug)(
            "backend {backend}: cannot connect to {server}: {why}",
            backend=self._upstream.backend.name,
            server=server,
            why=why,
        )


def target_of(client: Client, destinations: Destinations) -> ClientTarget:
    host, port = "", 0
    if destinations.needs_local and (local := client.local) is not None:
        host, port = host_text(client.host()), local.port
    if client.preambles:
        port = int(client.granted.get("port", port))
    return ClientTarget(client.decided, host, port)


def header_for(client: Client, upstream: Upstream) -> bytes:
    backend = upstream.backend
    own = list(_own_fields(client, backend)) if backend.proxy_tlvs else []
    received = client.tlvs
    if received and client.agreed_tls is not None:
        # It was agreed on for TLS itself, or further out; what is inside may be another protocol.
        received = tuple(tlv for tlv in received if tlv.type != TlvType.ALPN)
    tlvs = passed_on_fields(own, received) if own or received else ()
    return upstream.proxy_header(client.address, client.local, tlvs)


def _own_fields(client: Client, backend: Backend) -> Iterator[Tlv]:
    names = backend.proxy_tlvs
    known = () if client.agreed_tls is None else client.agreed_tls.fields()
    if not known and not {"authority", "alpn"}.isdisjoint(names):
        limit = client.configuration.settings.peek_limit
        known = tuple(_fields_of(parse_client_hello(client.received[:limit], None)))
    yield from (tlv for tlv in known if _BY_TYPE[TlvType(tlv.type)] in names)
    if "unique-id" in names:
        yield Tlv(TlvType.UNIQUE_ID, client.record.id.encode("ascii"))


def _fields_of(reader: HelloReader) -> Iterator[Tlv]:
    if name := authority(reader.sni):
        yield Tlv(TlvType.AUTHORITY, name.encode("ascii"))
    if reader.alpn:
        yield Tlv(TlvType.ALPN, reader.alpn[0].encode("latin-1"))


def connect_cause(failure: Failure) -> ConnectFailure:
    if failure.check(error.TimeoutError):
        return "connect-timeout"
    if failure.check(HandshakeError, RequestRefusedError) or failure.type.__module__.startswith(
        ("OpenSSL", "service_identity")
    ):
        return "tls-failed"
    if getattr(failure.value, "osError", None) in LOCAL_ERRORS:
        return "error"
    refused = failure.check(error.ConnectError, error.ConnectionClosed, error.DNSLookupError)
    return "connect-refused" if refused else "error"


def _is_refusal(failure: Failure, awaited: str) -> bool:
    """Whether a server has been connected, and has not answered the requests as it had to."""
    if failure.check(error.TimeoutError):
        return awaited == "answer"
    return failure.check(RequestRefusedError, error.ConnectionClosed) is not None
