"""A stage: a server has a hidden hello, and may ask its client for a second one."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import attrs
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.net.relay.ends import NO_RECEIVER
from txmux.tcp.stage import Stage
from txmux.tcp.transitions import Connected, Ended, Outcome
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.hello_records import HANDSHAKE, OTHER_RECORDS, asks_again, before_hello

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionState
    from txmux.wire.ech import Unsealed

_PATIENCE = 3.0  # seconds that a client has to take an alert


@attrs.define(eq=False)
class AwaitingRetry(Stage):
    """Sends the hidden hello, and waits until the answer is no HelloRetryRequest, or the second hello is open, too.

    What the client sends meanwhile is held, and what the server says is passed on (RFC 9849, section 7.1.1).
    """

    state: ClassVar[ConnectionState] = "awaiting-retry"
    may_connect: ClassVar[bool] = False

    _upstream: Upstream
    _member: Member
    _server: ProxyClient | None  # until the next stage has it
    _unsealed: Unsealed = attrs.field(init=False)
    _said: bytes = attrs.field(default=b"", init=False)
    _is_retry: bool = attrs.field(default=False, init=False)
    _passed: int = attrs.field(default=0, init=False)  # bytes before the second hello
    _hello: HelloReader | None = attrs.field(default=None, init=False)
    _reason: EndReason = attrs.field(default="client-gone", init=False)
    _sent_ms: float = attrs.field(default=0.0, init=False)

    @override
    def begin(self) -> Outcome | None:
        client, counts = self._client, self._member.counts
        assert client.ech is not None  # noqa: S101 - by that it is here
        assert self._server is not None  # noqa: S101 - it has just been connected
        self._unsealed, client.ech = client.ech, None
        end = self._unsealed.end
        client.server_counts = counts
        if client.counted_in:
            counts.relayed(client.counted_in, client.counted_out)
        counts.asked()
        self._sent_ms = client.elapsed_ms()
        self._server.receiver = _Server(self)
        hello, client.received = client.received[:end], client.received[end:]
        self._server.transport.write(hello)
        self.wait(self._upstream.timeouts.idle, lambda: self._fail("idle-timeout"))
        return self._relayed_on() if client.has_finished else None

    def _relayed_on(self) -> Outcome:
        server, self._server = self._server, None
        if not self._client.has_finished:
            self._client.transport.resumeProducing()
        return Connected(self._upstream, self._member, server)

    # What the client does.

    @override
    def on_data(self) -> Outcome | None:
        client = self._client
        limit = client.configuration.settings.peek_limit
        if not self._is_retry:
            if len(client.received) >= limit:
                client.transport.pauseProducing()
            return None
        others = before_hello(client.received)
        if others and self._server is not None:
            self._passed += others
            self._server.transport.write(client.received[:others])
            client.received = client.received[others:]
        if self._passed + len(client.received) > limit:
            self._fail("limit")
            return None
        if not client.received.startswith(HANDSHAKE):
            return None if client.received[:1] in OTHER_RECORDS else self._relayed_on()
        self._hello = hello = parse_client_hello(client.received, self._hello)
        return self._opened_again() if hello.hello or hello.malformed else None

    def _opened_again(self) -> Outcome | None:
        client, opened = self._client, self._unsealed.opened
        assert opened is not None  # noqa: S101 - by that it is here
        try:
            client.received = opened.open_again(client.received)
        except IllegalHelloError as illegal:
            client.record.facts = {**client.record.facts, "tls_error": str(illegal)}
            self._fail("tls-failed", illegal.alert)
            return None
        return self._relayed_on()

    @override
    def on_finished(self) -> Outcome | None:
        return self._relayed_on()

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._client.advance(Ended(self._reason))

    # What the server does.

    def server_said(self, data: bytes) -> None:
        client = self._client
        if not self._said:
            waited = client.elapsed_ms() - self._sent_ms
            self._member.counts.answered(self._upstream.counts, waited)
        client.record.bytes_out += len(data)
        client.transport.write(data)
        self._said += data
        is_long = len(self._said) > client.configuration.settings.peek_limit
        if self._is_retry:
            if is_long:  # who waits for a second hello says no more, and a slow client would have it kept here
                self._fail("limit")
            return
        is_retry = asks_again(self._said)
        if is_retry:
            self._is_retry = True
            client.record.facts = {**client.record.facts, "ech_retry": "yes"}
            seconds = client.configuration.settings.detect_timeout
            self.wait(seconds, lambda: self._fail("idle-timeout"))
            client.transport.resumeProducing()
            client.advance(self.on_data())
        elif is_retry is False or is_long:
            client.advance(self._relayed_on())

    def server_finished(self) -> None:
        server = self._server
        self._client.advance(self._relayed_on())
        if server is not None:
            server.receiver.peer_finished()

    def server_lost(self, reason: Failure) -> None:
        is_clean = reason.check(ConnectionDone) is not None
        if not is_clean and not self._said:
            self._member.counts.failed("reset")
        self._fail("done" if is_clean else "server-reset", b"" if is_clean else None)

    # The end.

    def _fail(self, reason: EndReason, last: bytes | None = None) -> None:
        """End both connections, that of the client after some last bytes, or at once."""
        self._reason = reason
        self._drop_server()
        transport = self._client.transport
        if last is None:
            transport.abortConnection()
            return
        self._client.record.bytes_out += len(last)
        transport.write(last)
        self.wait(_PATIENCE, transport.abortConnection)
        transport.loseConnection()

    @override
    def abort(self, reason: AbortReason) -> None:
        self._fail(reason)

    @override
    def leave(self) -> None:
        super().leave()
        self._drop_server()

    def _drop_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.receiver = NO_RECEIVER
            server.transport.abortConnection()
            self._upstream.pool.released(self._member)


@attrs.define(eq=False)
class _Server:
    """Receives what happens at the server's end."""

    _stage: AwaitingRetry

    def data_received(self, data: bytes) -> None:
        self._stage.server_said(data)

    def peer_finished(self) -> None:
        self._stage.server_finished()

    def connection_lost(self, reason: Failure) -> None:
        self._stage.server_lost(reason)
