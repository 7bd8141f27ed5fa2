"""Connects to a backend: tries its servers one after another until one accepts."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.dial import LASTING_ERRORS, LOCAL_ERRORS, NO_PORT, Dialler, reason_of
from txmux.backends.names.destinations import ClientTarget, Denial, Unknown
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.backends.pool.queue import Waiter
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.net.sockets.client import IN_USE
from txmux.net.tls.errors import HandshakeError
from txmux.rules.model import Backend
from txmux.telemetry.reasons import CLIENT_FAULTS, ConnectFailure
from txmux.transport import source_number, source_of_client
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import Address, ProxyHeader, Tlv
from txmux.wire.steps import RequestRefusedError, Step

_log = Logger()  # of the module: an event must not keep a connection's objects alive


@define(eq=False, weakref_slot=False)
class BackendConnector:
    """Makes one connection to a backend for one client. After a failure, up to ``retries`` other servers are tried.

    Exactly one of `on_connected` and `on_failed` is called, once, unless the connector is cancelled first. On success, the new
    owner of the connection must call `BackendPool.released` when the connection ends.

    Args:
        header: The PROXY protocol header, which is sent first; empty for none.
        eager: Whether the client has sent bytes that the server can get at once.
        on_connected: Called with the server's end and the server; must set the end's receiver before it returns.
        on_failed: Called with the cause of the last failure.

    Attributes:
        client_target: Where the client wants to go, if the choice of a server depends on it.
        refused: The server for the log if the rules forbid the one that the client wants.
        on_open: Called with the transport of each attempt before anything is sent.
        number: The system's number of the last failure; 0 if it has none.
        requests: What the server is asked before it gets the client's bytes: what txmux has answered during detection, or STARTTLS.
        client: The client's address, as in `ConnectionRecord`.
        repeats_client: Whether the client has chosen these, so that their refusal says nothing about the server.
    """

    _upstream: Upstream
    _dialler: Dialler
    _clock: IReactorTime
    _header: bytes
    _client: Address | None
    _eager: bool = attrs.field(kw_only=True)
    on_connected: Callable[[ProxyClient, Member], None] = attrs.field(kw_only=True)
    on_failed: Callable[[ConnectFailure], None] = attrs.field(kw_only=True)
    _is_cancelled: bool = attrs.field(default=False, init=False)
    _member: Member | None = attrs.field(default=None, init=False)
    _factory: ProxyClientFactory | None = attrs.field(default=None, init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _waiter: Waiter | None = attrs.field(default=None, init=False)
    _is_in_turn: bool = attrs.field(default=False, init=False)
    _failure: tuple[str, str] = attrs.field(default=("", ""), init=False)  # server, and why
    affinity: str = attrs.field(default="", init=False)  # the key of the choice by a hash
    alpn: tuple[bytes, ...] = attrs.field(default=(), init=False)  # offered if the rules name none
    client_target: ClientTarget | None = attrs.field(default=None, init=False)
    refused: str | None = attrs.field(default=None, init=False)
    _look_up: Deferred[None] | None = attrs.field(default=None, init=False)
    on_open: Callable[[Any], object] | None = attrs.field(default=None, init=False)
    requests: tuple[Step, ...] = attrs.field(default=(), init=False)
    client: str = attrs.field(default="", init=False)
    repeats_client: bool = attrs.field(default=False, init=False)
    tried: dict[Member, ConnectFailure] = attrs.field(factory=dict, init=False)
    number: int = attrs.field(default=0, init=False)

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
        found = self._upstream.pool.pick(self.affinity)
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
        found = self._upstream.pool.pick_in_turn(self.affinity)
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
        found = pick(self.affinity, self.tried)
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
        assert self.client_target is not None  # noqa: S101 - `connector_for` has set it
        chosen = destinations.choose(member, self.client_target, self.tried)
        if isinstance(chosen, Member):
            self.start_with(chosen)
        elif isinstance(chosen, Unknown) and may_look_up:
            self._member = member
            timeout = self._upstream.backend.connect_timeout
            self._deadline = self._clock.callLater(timeout, self._look_up_timed_out)
            self._look_up = look_up = destinations.look_up(chosen, self._client)
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
        attempt.requests, attempt.on_open, attempt.header = (
            self.requests,
            self.on_open,
            self._header,
        )
        upstream, target = self._upstream, member.target
        if upstream.tls is not None:
            name = member.name or target.host
            attempt.wrap = partial(upstream.wrap, server_name=name, alpn=self.alpn)
        attempt.connect(
            upstream.dialler(self._dialler),
            target,
            max(0.0, upstream.backend.connect_timeout - begun_ago),
            client=self._client,
            eager=self._eager,
            begun=begun,
        )

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
        cause = self.tried[member] = _cause(failure)
        is_refused = self.repeats_client and _is_refusal(failure, awaited)
        self.number = getattr(failure.value, "osError", None) or 0
        lasts = self.number in LASTING_ERRORS
        is_local_fault, in_turn = cause == "error" and not lasts, self._is_in_turn
        counted = "tls-failed" if is_refused else cause
        source = source_number(self.client) if counted == "tls-failed" else None
        member.counts.failed(counted, is_local=is_local_fault, source=source)
        found = self._upstream.pool.next_after(
            member,
            self.affinity,
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
            PORT_SHORTAGE.failed(name, member.server.text, why, source_of_client(self.client))
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


def proxy_header(
    backend: Backend,
    client: Address | None,
    local: Address | None,
    tlvs: tuple[Tlv, ...] = (),
    *,
    datagrams: bool = False,
) -> bytes:
    """Encode the PROXY protocol header for a backend; only version 2 has `tlvs`, and `datagrams` for UDP."""
    header = ProxyHeader.between(client, local, tlvs)
    if backend.proxy_protocol == "v1":
        return encode_v1(header)
    return encode_v2(header, checksum="crc32c" in backend.proxy_tlvs, datagrams=datagrams)


def _cause(failure: Failure) -> ConnectFailure:
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
