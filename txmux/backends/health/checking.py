"""One check of one server: connect to the right port, send the probe, judge the answer, and close."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import attrs
from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport, ITransport
from twisted.python.failure import Failure

from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.dial import LASTING_ERRORS, LOCAL_ERRORS, Dialler
from txmux.backends.health.probes import Probe, UnhealthyError, opening, probe, shown
from txmux.backends.pool.member import Member
from txmux.classes import define, frozen
from txmux.errors import cause_of
from txmux.net.addresses import ip_address_of
from txmux.rules.model import Backend, Check, Server, ServerTLS
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader

Wrap = Callable[..., Any]

LONGEST_ANSWER = 64 * 1024  # the most bytes of an answer that are looked at


@frozen
class CheckResult:
    """The result of a check; `ok` is ``None`` if this machine could not connect, and `has_answered` whether a byte came."""

    ok: bool | None
    why: str = ""
    has_answered: bool = attrs.field(default=False, eq=False)


@define(eq=False)
class CheckRun:
    """One check of one server. Implements `txmux.net.relay.peers.PeerReceiver`.

    It does not end with its result: the connection is closed cleanly, for which the server has the rest of the time.
    """

    _clock: IReactorTime
    probe: Probe
    _timeout: float
    on_result: Callable[[CheckResult], None] | None
    _factory: ProxyClientFactory = attrs.field(init=False)
    _transport: Any = attrs.field(default=None, init=False)
    answer: bytes = attrs.field(default=b"", init=False)
    received: int = attrs.field(default=0, init=False)
    deadline: IDelayedCall | None = attrs.field(default=None, init=False)
    is_over: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._factory = ProxyClientFactory(self._connected, self._failed)

    def start(
        self,
        dialler: Dialler,
        server: Server,
        wrap: Callable[[Any], Any] | None = None,
        header: bytes | Callable[[ITransport], bytes] = b"",
    ) -> None:
        """Start; there may be a result before this returns. `wrap` makes it speak TLS, and the header precedes that."""
        self.deadline = self._clock.callLater(self._timeout, self._too_late)
        self._factory.wrap, self._factory.header = wrap, header
        self._factory.connect(dialler, server, self._timeout)

    def abort(self) -> None:
        self.on_result = None
        if self.is_over:
            return
        if self._transport is not None:
            self._transport.abortConnection()
            self._stop_waiting()
        else:
            self._give_up()

    def _connected(self, end: ProxyClient) -> None:
        self._transport = end.transport
        end.receiver = self
        # Over UDP an empty datagram may be refused, too.
        if self.probe.request or self.probe.quiet:
            end.transport.write(self.probe.request)
        if self.probe.quiet and self.deadline is not None:
            self.deadline.reset(self.probe.quiet)
        self._judge()

    def _failed(self, failure: Failure) -> None:
        if not self.is_over:
            self._end()
            if failure.check(error.TimeoutError):
                self._report_unhealthy(self._timeout_text())
            elif failure.check(error.ConnectionClosed):
                self._report_unhealthy("connection closed during the TLS handshake")
            else:
                self._report(_result_of(failure))

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.on_result is not None:
            self.answer += data
            self._judge()
        if self.received >= LONGEST_ANSWER and self._transport is not None:
            self._transport.abortConnection()
            self._report_unhealthy(self._missing(" in 64 KiB"))

    def peer_finished(self) -> None:
        self._transport.loseConnection()  # whose end is the result

    def connection_lost(self, reason: Failure) -> None:
        # TLS reports a lost connection if the server sends no close-notify, as some do not.
        in_order = error.ConnectionClosed if self._is_tls() else error.ConnectionDone
        self._end()
        if reason.check(in_order):
            self._report_unhealthy(self._missing())
        else:
            self._report(_result_of(reason))

    def _judge(self) -> None:
        try:
            if not self.probe.is_healthy(self.answer[:LONGEST_ANSWER]):
                if reply := self.probe.reply(self.answer):
                    self._transport.write(reply)
                return
        except UnhealthyError as problem:
            self._finish()
            self._report_unhealthy(str(problem))
        else:
            self._finish()
            self._report(CheckResult(ok=True, has_answered=bool(self.answer)))

    def _finish(self) -> None:
        """Finish sending, and discard what comes: closing with unread bytes would be a reset, which servers log."""
        if self.probe.farewell:
            self._transport.write(self.probe.farewell)
        if self._is_tls():
            self._transport.loseConnection()  # TLS waits for the server's close-notify
        else:
            self._transport.loseWriteConnection()

    def _is_tls(self) -> bool:
        return ISSLTransport.providedBy(self._transport)

    def _too_late(self) -> None:
        self.deadline = None
        if self._transport is None:
            self._give_up()
        elif self.probe.quiet and self.on_result is not None:
            self.deadline = self._clock.callLater(self.probe.quiet, self._too_late)
            self._finish()
            self._report(CheckResult(ok=True, has_answered=bool(self.received)))
            return
        elif self._is_tls():
            self._transport.abortConnection()  # a server that hangs would never end TLS
        else:
            self._transport.loseConnection()
        why = self._timeout_text()
        self._report_unhealthy(f"{why}: {self._missing()}" if self.received else why)

    def _timeout_text(self) -> str:
        through = self._factory.awaited.partition(" through ")[2]
        return f"{f'the proxy {through}: ' * bool(through)}timed out after {self._timeout:g} s"

    def _missing(self, where: str = "") -> str:
        if not self.received:
            return "connection closed without an answer"
        return f"no {self.probe.expected}{where}: {shown(self.answer)}"

    def _report_unhealthy(self, why: str) -> None:
        self._report(CheckResult(ok=False, why=why))

    def _report(self, result: CheckResult) -> None:
        on_result, self.on_result = self.on_result, None
        if on_result is not None:
            on_result(result)

    def _give_up(self) -> None:
        self._end()
        self._factory.break_off()

    def _end(self) -> None:
        self.is_over = True
        self._transport = None
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None


def header_of_check(version: Literal["off", "v1", "v2"]) -> bytes | Callable[[ITransport], bytes]:
    """Return the PROXY protocol header of a check.

    That is ``LOCAL`` in version 2. Version 1 has no form of that which all servers accept, so it has the real addresses.
    """
    if version == "v1":
        return _own_header
    return encode_v2(ProxyHeader(Command.LOCAL)) if version == "v2" else b""


def _own_header(transport: ITransport) -> bytes:
    ends = ip_address_of(transport.getHost()), ip_address_of(transport.getPeer())
    return encode_v1(ProxyHeader.between(*ends))


def _result_of(failure: Failure) -> CheckResult:
    problem: Any = failure.value
    number = getattr(problem, "osError", None) or getattr(problem, "errno", None)
    if isinstance(number, int):
        return CheckResult(
            None if number in LOCAL_ERRORS - LASTING_ERRORS else False, cause_of(problem)
        )
    if failure.check(error.ConnectionLost):
        return CheckResult(ok=False, why="connection reset")
    # Of servers whose endpoint strings have TLS of their own; by name, since OpenSSL takes a while to import.
    if failure.check("OpenSSL.SSL.Error") and problem.args:
        reasons = ", ".join(reason for *_, reason in problem.args[0])
        return CheckResult(ok=False, why=f"the TLS handshake failed: {reasons}")
    return CheckResult(ok=False, why=cause_of(problem))


class ProbeTarget:
    """Makes the checks of a backend's servers; `wrap` adds TLS, if clients' connections have it.

    At the port for clients a check begins as a client's connection does, with header and TLS. Another port is another
    service, which gets neither unless the rules say so.
    """

    def __init__(self, backend: Backend, check: Check, wrap: Wrap | None) -> None:
        self._check = check
        self._header = "off" if check.port else backend.proxy_protocol
        self._wrap = wrap
        speaks_tls = wrap is not None and not check.port if check.tls is None else check.tls
        if not speaks_tls:
            self._wrap = None
        elif wrap is None:
            from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - OpenSSL takes a while

            # Clients verify the certificate themselves, and a check sends nothing secret.
            self._wrap = BackendTLS(ServerTLS(), verified=False).wrap

    def make_check(
        self,
        clock: IReactorTime,
        member: Member,
        on_result: Callable[[CheckResult], None],
        *,
        only_opens: bool = False,
    ) -> CheckRun:
        """Make the check of the rules, or one that only begins a connection."""
        check, target = self._check, self._target(member)
        if only_opens:
            made = opening(with_header=self._header != "off")
        else:
            made = probe(check, member.name, target.port, tls=self._wrap is not None)
        if target.kind == "udp" and self._header == "v2":
            header = encode_v2(ProxyHeader(Command.LOCAL), datagrams=True)
            made = attrs.evolve(made, request=header + made.request)
        return CheckRun(clock, made, check.timeout, on_result)

    def start_check(self, check: CheckRun, dialler: Dialler, member: Member) -> None:
        target, wrap = self._target(member), None
        if self._wrap is not None:
            wrap = partial(self._wrap, server_name=self._check.sni or member.name)
        # That of UDP is in the same datagram.
        header = b"" if target.kind == "udp" else header_of_check(self._header)
        check.start(dialler, target, wrap, header)

    def _target(self, member: Member) -> Server:
        port = self._check.port
        target = member.target
        if not port:
            return target
        # Another port of a UDP server is checked by TCP.
        kind = "tcp" if target.kind == "udp" else target.kind
        return attrs.evolve(target, port=port, kind=kind)
