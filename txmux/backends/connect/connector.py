"""Connecting to a backend: its servers in turn, until one answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.backends.connect.client import ProxyClient, ProxyClientFactory, RequestRefusedError
from txmux.backends.connect.dial import LASTING_ERRORS, LOCAL_ERRORS, Dial, reason_of
from txmux.backends.names.destinations import Asked, Denial, Unknown
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import Unavailable
from txmux.net.header_first import HeaderFirst
from txmux.net.tls.errors import HandshakeError
from txmux.rules.model import Backend
from txmux.telemetry.reasons import OF_CLIENTS, ConnectFailure
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import Address, ProxyHeader, Tlv

if TYPE_CHECKING:
    from txmux.backends.pool.queue import Waiter
    from txmux.backends.upstream import Upstream
    from txmux.interfaces import Exchange

_log = Logger()  # of the module: an event must not keep a connection's objects alive


@attrs.define(eq=False, weakref_slot=False)
class BackendConnector:
    """Makes one connection to a backend, for one client: one server is tried, and after failures up to ``retries`` others.

    Exactly one of the two callables is called, once, unless it is cancelled before. On success the new owner of the
    connection must call `BackendPool.released` when it ends.

    Args:
        header: Bytes that go before all others on the connection; empty for none.
        eager: Whether there are bytes of the client's to send at once.
        on_connected: Called with the server's end and the server; sets the end's receiver before it returns.
        on_failed: Called with the cause of the last attempt's failure.

    Attributes:
        asked: What the client has asked for, where servers depend on it.
        refused: What stands for the server in the log if the client has got none; ``None`` is nothing.
        on_open: Called with the transport of each connection before anything is sent.
        requests: Those that the client was answered before detection; a server gets them before anything else.
    """

    _upstream: Upstream
    _dial: Dial
    _clock: IReactorTime
    _header: bytes
    _client: Address | None
    _eager: bool = attrs.field(kw_only=True)
    on_connected: Callable[[ProxyClient, Member], None] = attrs.field(kw_only=True)
    on_failed: Callable[[ConnectFailure], None] = attrs.field(kw_only=True)
    _given_up: bool = attrs.field(default=False, init=False)
    _member: Member | None = attrs.field(default=None, init=False)
    _factory: ProxyClientFactory | None = attrs.field(default=None, init=False)
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    _stop_dialling: Callable[[], None] | None = attrs.field(default=None, init=False)
    _waiter: Waiter | None = attrs.field(default=None, init=False)
    _is_in_turn: bool = attrs.field(default=False, init=False)
    _missing: str = attrs.field(default="", init=False)
    _failure: tuple[str, str] = attrs.field(default=("", ""), init=False)  # server, and why
    affinity: str = attrs.field(default="", init=False)  # the key of the choice by a hash
    alpn: tuple[bytes, ...] = attrs.field(default=(), init=False)  # offered if the rules name none
    asked: Asked | None = attrs.field(default=None, init=False)
    refused: str | None = attrs.field(default=None, init=False)
    _look_up: Deferred[None] | None = attrs.field(default=None, init=False)
    on_open: Callable[[Any], object] | None = attrs.field(default=None, init=False)
    requests: tuple[Exchange, ...] = attrs.field(default=(), init=False)
    tried: dict[Member, ConnectFailure] = attrs.field(factory=dict, init=False)

    def start(self) -> None:
        self._pick_first(self._upstream.first_names)

    def _pick_first(self, first_names: Callable[[], Deferred[None] | None]) -> None:
        if self._given_up:
            return
        upstream = self._upstream
        is_unnamed = upstream.via is not None and not upstream.pool.proxies
        if is_unnamed and (looked_up := first_names()) is not None:
            looked_up.addCallback(lambda _: self._pick_first(lambda: None))
            return
        queue = self._upstream.queue
        if queue:  # clients that came before
            queue.serve()
        found = self._upstream.pool.pick(self.affinity)
        if isinstance(found, Member):
            self._choose(found)
        elif found is Unavailable.FULL:
            self._wait()
        elif (looked_up := first_names()) is not None:
            # Only clients that come while the service starts ever wait for a name.
            looked_up.addCallback(lambda _: self._pick_first(lambda: None))
        else:
            self.on_failed("no-server")

    def start_in_turn(self) -> bool:
        """Start for the client whose turn it is in the line of the pool; false if no server is up."""
        self._is_in_turn = True
        found = self._upstream.pool.pick_in_turn(self.affinity)
        if isinstance(found, Member):
            self._choose(found)
        elif found is Unavailable.FULL:
            self._wait()
        return found is not Unavailable.NO_SERVER

    @property
    def is_queued(self) -> bool:
        """Whether it waits for room on a server."""
        return self._waiter is not None

    def start_with(self, member: Member, dial: Dial | None = None) -> None:
        """Start with a server that the pool has chosen already, and perhaps with another way to dial it, this once."""
        if dial is None:
            self._try(member)
            return
        usual, self._dial = self._dial, dial

        def once(*args: Any, **options: Any) -> Callable[[], None]:
            self._dial = usual
            return dial(*args, **options)

        self._dial = once
        self._try(member)

    def start_after(self, member: Member, failure: Failure) -> None:
        """Start after a server that the pool has chosen could not be connected: log that, and try others."""
        self._member = member
        self._failed(failure)

    def cancel(self) -> None:
        self._given_up = True
        member, factory, stop_dialling = self._member, self._factory, self._stop_dialling
        look_up, self._look_up = self._look_up, None
        self._end_attempt()
        if look_up is not None:
            look_up.cancel()
        if self._waiter is not None and self._upstream.queue is not None:
            self._upstream.queue.remove_client(self._waiter)
        if factory is not None:
            factory.break_off(stop_dialling)
        if member is not None:
            self._upstream.pool.abandoned(member)

    # Waiting for room.

    def _wait(self) -> None:
        queue = self._upstream.queue
        if queue is not None:
            # The servers that a client may still use depend on what it has tried.
            group = frozenset(self.tried)
            self._waiter = queue.add_client(self._has_turn, self._waited_too_long, group)
        if self._waiter is None:
            self.on_failed(self._last_cause("limit"))

    def _has_turn(self) -> bool:
        pool = self._upstream.pool
        pick = pool.pick_in_turn if self._is_in_turn else pool.pick
        found = pick(self.affinity, self.tried)
        if found is Unavailable.FULL:
            return False
        self._waiter = None
        if isinstance(found, Member):
            self._choose(found)
        else:
            self.on_failed(self._last_cause("no-server"))
        return True

    def _waited_too_long(self) -> None:
        self._waiter = None
        self.on_failed(self._last_cause("limit"))

    def _last_cause(self, otherwise: ConnectFailure) -> ConnectFailure:
        return next(reversed(self.tried.values()), otherwise)

    # One attempt.

    def _choose(self, member: Member, *, may_ask: bool = True) -> None:
        """Try a server that the pool has chosen, or what it stands for to this client."""
        destinations = self._upstream.destinations
        if destinations is None:
            self._try(member)
            return
        assert self.asked is not None  # noqa: S101 - its maker sees to that
        chosen = destinations.choose(member, self.asked, self.tried)
        if isinstance(chosen, Member):
            self._try(chosen)
        elif isinstance(chosen, Unknown) and may_ask:
            self._member = member
            timeout = self._upstream.backend.connect_timeout
            self._deadline = self._clock.callLater(timeout, self._name_is_late)
            self._look_up = look_up = destinations.look_up(chosen, self._client)
            look_up.addCallbacks(lambda _: self._name_is_known(), lambda _: None)
        else:
            self._upstream.pool.abandoned(member)
            cause: ConnectFailure = "limit"  # of look-ups
            if isinstance(chosen, Denial):
                cause, self.refused = chosen
            if self.tried:
                self._log_failure(is_last=True)
            elif cause not in OF_CLIENTS:
                member.counts.failed(cause)
            self.on_failed(self._last_cause(cause))

    def _name_is_known(self) -> None:
        member, self._look_up = self._member, None
        assert member is not None  # noqa: S101 - it waits with the look-up
        self._end_attempt()
        self._choose(member, may_ask=False)

    def _name_is_late(self) -> None:
        look_up, member, self._look_up = self._look_up, self._member, None
        assert look_up is not None and member is not None  # noqa: S101, PT018 - as above
        self._deadline = None
        look_up.cancel()
        self._end_attempt()
        self._upstream.pool.abandoned(member)
        member.counts.failed("connect-timeout")
        self.on_failed(self._last_cause("connect-timeout"))

    def _try(self, member: Member) -> None:
        self._member = member
        self._factory = client = ProxyClientFactory(self._connected, self._failed)
        client.requests = self.requests
        upstream, target = self._upstream, member.target
        timeout = upstream.backend.connect_timeout
        factory: Any = client
        options: dict[str, Any] = {"member_options": member.options} if member.options else {}
        if upstream.backend.mptcp:
            options["multipath"] = True
        if upstream.tls is not None:
            factory = upstream.tls.wrap(factory, member.name or target.host, self.alpn)
        via = upstream.via
        if (via or upstream.tls) is not None or target.kind == "endpoint" or self.requests:
            # Dialling ends with the TCP connection; the time limit also holds for what comes after it.
            self._deadline = self._clock.callLater(timeout, self._too_late)
        self._missing = f"connection through {via.via.server.text}" if via else "connection"
        if self._header or upstream.tls is not None:
            factory = HeaderFirst(factory, self._opened)
        elif self.on_open is not None or self.requests:
            client.on_open = self._opened
        eager = self._eager or factory is not client or bool(self.requests)
        try:
            dial = self._dial
            if via is not None:
                dial, options["on_open"] = partial(via.dial, dial), self.on_open
            elif upstream.sources is not None and target.host:
                options["sources"] = upstream.sources.sources_towards(target.host, self._client)
            stop_dialling = dial(target, factory, timeout, eager=eager, **options)
        except Exception:  # noqa: BLE001 - a plugin's endpoint may raise anything, and so may a lack of descriptors
            self._failed(Failure())
            return
        if self._factory is client:  # the attempt has not ended yet
            self._stop_dialling = stop_dialling

    def _opened(self, transport: object) -> bytes:
        """Return the header, which is sent before TLS."""
        self._missing = "TLS handshake" if self._upstream.tls is not None else "answer"
        if self.on_open is not None and self._upstream.via is None:
            self.on_open(transport)
        return self._header

    def _end_attempt(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._member = self._factory = self._stop_dialling = None

    def _too_late(self) -> None:
        self._deadline = None
        assert self._factory is not None  # noqa: S101 - the deadline goes with the attempt
        self._factory.break_off(self._stop_dialling)
        self._failed(Failure(error.TimeoutError()))

    def _connected(self, end: ProxyClient) -> None:
        member = self._member
        assert member is not None  # noqa: S101 - the factory goes with the attempt
        self._end_attempt()
        self._upstream.pool.connected(member)
        self.on_connected(end, member)

    def _failed(self, failure: Failure) -> None:
        member = self._member
        assert member is not None  # noqa: S101 - the factory goes with the attempt
        self._end_attempt()
        cause = self.tried[member] = _cause(failure)
        member.counts.failed(cause)
        lasts = getattr(failure.value, "osError", None) in LASTING_ERRORS
        is_own, in_turn = cause == "error" and not lasts, self._is_in_turn
        found = self._upstream.pool.next_after(
            member, self.affinity, self.tried, is_own=is_own, in_turn=in_turn
        )
        why = reason_of(failure)
        if failure.check(error.TimeoutError):
            why = f"no {self._missing} within {self._upstream.backend.connect_timeout:g} s"
        self._failure = member.target.text, why
        self._log_failure(is_last=not isinstance(found, Member))
        if isinstance(found, Member):
            self._choose(found)
        elif found is Unavailable.FULL:
            self._wait()
        else:
            self.on_failed(cause)

    def _log_failure(self, *, is_last: bool) -> None:
        server, why = self._failure
        # One that waits tries the same server again and again.
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
    """Write the PROXY protocol header for a backend; `tlvs` are for version 2, `datagrams` means one of UDP."""
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
