"""A stage: a server has the hello by which its client was routed, and may ask for a second one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

import attrs
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.net.relay.kernel import BUFFER, VIEW
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.sockets.memory import OutOfMemory
from txmux.net.sockets.poller import ERROR, READ
from txmux.rules.model import Refusal
from txmux.tcp.fast_path import DONT_WAIT
from txmux.tcp.stage import Client, Stage, Step, count_asked
from txmux.tcp.transitions import Connected, Finished, Outcome, TurnedAway
from txmux.telemetry.record import ConnectionState
from txmux.transport import source_number
from txmux.wire.client_hello import read_hello
from txmux.wire.cursor import IllegalHelloError, MalformedError
from txmux.wire.hello.records import asks_again, take_hello
from txmux.wire.hello.second import ILLEGAL_PARAMETER, NOT_ALONE, SecondHello


def enter(
    client: Client, upstream: Upstream, member: Member, end: ProxyClient | None
) -> Step | None:
    if end is not None:
        return AwaitingRetry(client, upstream, member, end)
    client.state, client.server_counts = "awaiting-retry", member.counts
    if client.counted_in:
        member.counts.relayed(client.counted_in, client.counted_out)
    if client.received:
        return make_stage(client)
    watch = client.path.poller.watch
    watch(client.server.fileno(), READ, partial(_server_answered, client))
    watch(client.socket.fileno(), READ, client.socket_ready)
    return None


def _server_answered(client: Client, events: int) -> None:
    try:
        try:
            count = 0 if events & ERROR else client.server.recv_into(BUFFER, 0, DONT_WAIT)
        except OSError:  # a stage sees it again
            count = 0
        answer = bytes(VIEW[:count])
        if answer and asks_again(answer) is False:
            client.sent_hello, client.buffered = b"", count
            member = client.member
            assert member is not None  # noqa: S101 - it is connected
            client.advance(Connected(client.upstream, member, None))
            return
        stage = client.attach_stage()
        if answer and stage is not None:
            stage.server.dataReceived(answer)
    except Exception as problem:  # noqa: BLE001 - one connection's error must not affect others
        client.abort_on_error(problem)


def make_stage(client: Client) -> AwaitingRetry:
    upstream, member, server = client.upstream, client.member, client.server_end()
    assert member is not None  # noqa: S101 - it is connected
    stage = AwaitingRetry(client, upstream, member, server, client.sent_hello)
    client.make_transport(reading=True)
    client.member = client.server = None  # the stage has them from here on
    return stage


def due_at(client: Client) -> float:
    return client.last_received_at + client.upstream.timeouts.idle


@define(eq=False, slots=False)
class AwaitingRetry(Stage):
    """Sends the hello, and waits until the answer is no HelloRetryRequest, or the second hello asks for the same (RFC 8446, 4.1.2).

    What the client sends meanwhile is held, and what the server says is passed on. `Client.second_hello` may replace the second hello.

    Args:
        sent: The hello, if it has been sent without a stage; what is left of it is what the client has received.
    """

    state: ClassVar[ConnectionState] = "awaiting-retry"
    may_connect: ClassVar[bool] = False

    _upstream: Upstream
    _member: Member
    server: ProxyClient
    _sent: bytes = b""
    _second: SecondHello = attrs.field(init=False)
    _is_handed_on = False  # the server, to the next stage
    _answer = b""  # of the server
    _is_retry = False
    _is_asked = False  # the server, which has not answered

    @override
    def begin(self) -> Outcome | None:
        client, server, counts = self._client, self.server, self._member.counts
        try:
            message, end = take_hello(self._sent or client.received)
        except MalformedError:
            return self._refuse(IllegalHelloError(ILLEGAL_PARAMETER, NOT_ALONE))
        self._second = client.second_hello or SecondHello(read_hello(message))
        client.end_layer()
        sent_ms, idle = client.elapsed_ms(), self._upstream.timeouts.idle
        if self._sent:
            server.transport.resumeProducing()
            end, record = len(client.received), client.record
            sent_ms = (record.detect_ms or 0.0) + (record.connect_ms or 0.0)
            idle -= client.runtime.clock.seconds() - client.last_received_at
            count_asked(client, counts, record.bytes_in)
        else:
            client.server_counts = counts
            if client.counted_in:
                counts.relayed(client.counted_in, client.counted_out)
            client.first_sent = client.received
            count_asked(client, counts)
        self._sent_ms = sent_ms
        server.receiver = _ServerEvents(self._server_sent, self._server_finished, self._server_lost)
        hello, client.received = client.received[:end], client.received[end:]
        server.transport.write(hello)
        self._is_asked = True
        self._wait_for(max(0.0, idle))
        return self._relayed_on() if client.has_finished else None

    def _wait_for(self, seconds: float) -> None:
        self.wait(seconds, lambda: TurnedAway(Refusal.RESET, "idle-timeout"))

    def _relayed_on(self) -> Outcome:
        client = self._client
        client.received = self._second.rest + client.received
        self._is_handed_on = True
        if not client.has_finished:
            client.transport.resumeProducing()
        return Connected(self._upstream, self._member, self.server)

    @override
    def on_data(self) -> Outcome | None:
        client, second = self._client, self._second
        limit = client.configuration.settings.peek_limit
        if not self._is_retry:
            if len(client.received) >= limit:
                client.transport.pauseProducing()
            return None
        if second.length + len(client.received) > limit:
            return TurnedAway(Refusal.RESET, "limit")
        try:
            passed = second.receive(client.received)
        except IllegalHelloError as illegal:
            return self._refuse(illegal)
        client.received = passed if second.is_over else b""
        if second.is_over:
            return self._relayed_on()
        self.server.transport.write(passed)
        return None

    def _refuse(self, illegal: IllegalHelloError) -> Outcome:
        self._client.record.note(tls_error=str(illegal))
        self.send(illegal.alert)
        return TurnedAway(Refusal.CLOSE, "tls-failed")

    @override
    def on_finished(self) -> Outcome | None:
        return self._relayed_on()

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._client.advance(Finished("client-reset"))  # it has a server

    def _server_sent(self, data: bytes) -> None:
        client = self._client
        settings = client.configuration.settings
        if not client.is_answered:
            client.is_answered, self._is_asked = True, False
            waited = client.elapsed_ms() - self._sent_ms
            self._member.counts.answered(self._upstream.counts, waited)
        self.send(data)
        self._answer += data
        is_long = len(self._answer) > settings.peek_limit
        if self._is_retry:
            if is_long:  # a server waiting for a second hello sends nothing else; a slow client would make us buffer it
                client.advance(TurnedAway(Refusal.RESET, "limit"))
            return
        is_retry = asks_again(self._answer)
        if is_retry:
            self._is_retry = True
            client.record.note(self._second.facts)
            self._wait_for(settings.detect_timeout)
            client.transport.resumeProducing()
            client.advance(self.on_data())
        elif is_retry is False or is_long:
            client.advance(self._relayed_on())

    def _server_finished(self) -> None:
        self._client.advance(self._relayed_on())
        self.server.receiver.peer_finished()

    def _server_lost(self, reason: Failure) -> None:
        if reason.type is OutOfMemory:
            self._client.advance(TurnedAway(Refusal.RESET, "error"))
            return
        if reason.check(ConnectionDone) is not None:
            if self._is_asked:
                self._member.counts.closed()
            self._client.advance(TurnedAway(Refusal.CLOSE, "done"))
            return
        if self._is_asked:
            self._is_asked = False
            source = source_number(self._client.record.client)
            self._member.counts.failed("reset", source=source)
        self._client.advance(TurnedAway(Refusal.RESET, "server-reset"))

    @override
    def leave(self) -> None:
        super().leave()
        if not self._is_handed_on:
            self._is_handed_on = True
            self.server.receiver = NO_RECEIVER
            self.server.transport.abortConnection()
            if self._is_asked:
                self._member.counts.unanswered()
            self._upstream.pool.released(self._member)


class _ServerEvents(NamedTuple):
    """Receives what happens at the server's end."""

    data_received: Callable[[bytes], None]
    peer_finished: Callable[[], None]
    connection_lost: Callable[[Failure], None]
