"""A stage: the handshake of TLS that is terminated here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.access import per_source
from txmux.access.per_source import PATIENCE
from txmux.classes import define
from txmux.net.relay.kernel import FULL
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.relay.transport_end import TransportEnd
from txmux.net.sockets.poller import READ
from txmux.net.sockets.transport import SocketTransport
from txmux.rules.installed import watchers_of
from txmux.rules.model import Refusal
from txmux.tcp.fast_path import DONT_WAIT
from txmux.tcp.stage import Client, Stage
from txmux.tcp.transitions import Finished, Opened, Outcome, TurnedAway
from txmux.transport import source_of_client
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.facts import printable
from txmux.wire.hello.records import HANDSHAKE

if TYPE_CHECKING:
    from txmux.client.configuration import RuleLayer
    from txmux.client.tls.terminator import CertificateSource, ClientShake, TlsTerminator
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionRecord, ConnectionState
    from txmux.wire.client_hello import HelloReader

_LONGEST_HELLO = 2**15  # bytes that are waited for; OpenSSL says what is wrong with a longer one
_LONGEST = 3 * 2**10  # bytes that are kept of a client that waits; more than a hello has
_LACKING = "the certificate cannot be used yet"
_OF_CLIENT = ("tls_client", "tls_client_names", "client_cert", "client_cert_error")


def make_stage(client: Client) -> None:
    client.make_transport(reading=True)
    client.stage.limit_time()


def due_at(client: Client) -> float:
    began_at: float = client.stage.began_at
    return began_at + client.path.detect_timeout


def read(client: Client) -> Outcome | None:
    stage: Handshaking = client.stage
    try:
        data = client.socket.recv(FULL, DONT_WAIT)
    except BlockingIOError:
        return None
    except OSError:
        data = b""
    return stage.shake_on(data) if data else stage.on_finished()


@define(eq=False)
class Handshaking(Stage):
    """Waits for the client's TLS, with a transport or on a socket without one.

    OpenSSL takes 50 KiB for a handshake. So it begins when the client's hello is complete, and when others of its source have made
    room. What follows is decided by that hello, and not by what the client may say later.
    """

    state: ClassVar[ConnectionState] = "handshaking"

    _terminator: TlsTerminator[CertificateSource]
    _inside: RuleLayer
    _layer: RuleLayer  # by which it was decided that TLS ends here
    _received: bytes = attrs.field(default=b"", init=False)
    _reason: EndReason = attrs.field(default="tls-failed", init=False)
    _shake: ClientShake | None = attrs.field(default=None, init=False)
    began_at: float = attrs.field(default=0.0, init=False)
    _key: tuple[str, str | bytes] | None = attrs.field(default=None, init=False)  # listener, source
    _reader: HelloReader | None = attrs.field(default=None, init=False)
    _waits_until: float = attrs.field(default=0.0, init=False)
    _cause: str = attrs.field(default="", init=False)

    @override
    def begin(self) -> Outcome | None:
        client: Any = self._client
        outcome = self.on_finished() if client.has_finished else self.on_data()
        if outcome is None and self._key is None:  # its hello is not whole
            client.attach_stage()
            self.wait(client.configuration.settings.detect_timeout, self._on_timeout)
        return outcome

    @override
    def on_data(self) -> Outcome | None:
        received = self._client.received
        if self._key is not None:
            return self._bounded()
        self._reader = reader = parse_client_hello(received, self._reader)
        is_partial = not (reader.hello or reader.malformed) and len(received) < _LONGEST_HELLO
        return None if received.startswith(HANDSHAKE) and is_partial else self.on_finished()

    @override
    def on_finished(self) -> Outcome | None:
        if self._shake is not None:
            return self._failed(None)
        client: Any = self._client
        settings = client.configuration.settings
        if self._key is None:
            self._key = settings.name, source_of_client(client.record.client)
            # A source that may have more undecided connections is many clients.
            most = max(per_source.MOST_PER_SOURCE, settings.max_undecided_per_source)
            # Only one with a transport may have no address, and to make one takes long.
            limit = most if client.transport is None or client.address else 0
            pause = client.runtime.handshakes.enter(self._key, self, limit)
            if not pause:
                return self._start()
            client.attach_stage()
            self._waits_until = client.runtime.clock.seconds() + settings.detect_timeout
            self.wait(min(pause, settings.detect_timeout), self._waited)
        return self._bounded()

    def _bounded(self) -> Outcome | None:
        return self._refuse() if len(self._client.received) > _LONGEST else None

    def _waited(self) -> Outcome | None:
        runtime = self._client.runtime
        left = self._waits_until - runtime.clock.seconds()
        if left <= 0:
            return self._refuse()
        assert self._key is not None  # noqa: S101 - it waits by that
        self.wait(min(PATIENCE, left), self._waited)
        runtime.handshakes.end_oldest(self._key)
        return None

    def has_turn(self) -> None:
        self.wait(0.0, self._start)

    def _count_refused(self) -> None:
        client = self._client
        client.configuration.counts.refused("handshakes")
        client.runtime.clients.limited(client.record.listener, "handshakes", client.record.client)

    def _refuse(self) -> Outcome:
        self._count_refused()
        return TurnedAway(Refusal.CLOSE, "limit")

    def make_room(self) -> None:
        self._count_refused()
        self._reason = "limit"
        self._break_off()

    def _start(self) -> Outcome | None:
        client = self._client
        store = self._terminator.store
        if store.may_lack and store.is_lacking():
            client.record.note(tls_error=_LACKING)
            return TurnedAway(Refusal.CLOSE, "tls-failed")
        self.began_at = client.runtime.clock.seconds()
        if client.transport is not None:  # otherwise a sweep looks
            self.limit_time()
        hello, address = None if self._reader is None else self._reader.hello, None
        if (hello is None or hello.sni is None) and (local := client.local) is not None:
            address = str(local.host)
        second = client.second_hello if client.preambles else None
        self._shake = shake = self._terminator.shake(self._below(), hello, second, address)
        if client.preambles:
            client.end_layer()
        shake.end.strict = client.configuration.settings.tls_strict
        shake.end.on_cut = partial(_record_cut, client.record)
        self._received, client.received = client.received, b""
        has_finished, client.has_finished = client.has_finished, False
        outcome = self.shake_on(self._received)
        return self._failed(None) if outcome is None and has_finished else outcome

    def limit_time(self) -> None:
        client = self._client
        left = self.began_at - client.runtime.clock.seconds()
        left += client.configuration.settings.detect_timeout
        self.wait(max(0.0, left), self._on_timeout)

    @override
    def leave(self) -> None:
        super().leave()
        if self._shake is not None:
            self._shake.end.release()
        if self._key is not None:
            self._client.runtime.handshakes.leave(self._key, self)

    @override
    def data_received(self, data: bytes) -> None:
        if self._shake is None:
            super().data_received(data)
        elif self._reason == "tls-failed" and not self._cause:  # otherwise it is ending
            self._client.advance(self.shake_on(data))

    # The client's socket, or its transport.

    def _below(self) -> Any:
        client: Any = self._client
        transport = client.transport
        if transport is None:
            client.runtime.poller.watch(client.socket.fileno(), READ, client.socket_ready)
            return client.socket
        if not isinstance(transport, SocketTransport):
            transport = TransportEnd.under(client, client.runtime.poller)
            transport.startReading()
        return transport.socket

    def _send(self, data: bytes) -> None:
        client: Any = self._client
        if client.transport is None:
            try:
                sent = client.socket.send(data, DONT_WAIT)
            except OSError:  # the next read reports an error
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            client.attach_stage()
        client.transport.write(data)

    def shake_on(self, data: bytes) -> Outcome | None:
        shake = self._shake
        assert shake is not None  # noqa: S101 - it has been begun
        is_done = shake.receive(data)
        if shake.output:
            self._send(shake.output)
        if shake.problem is not None:
            return self._failed(shake.problem)
        if is_done:
            self._completed(shake)
        return None

    def _completed(self, shake: ClientShake) -> None:
        client: Any = self._client
        record = client.record
        agreed = shake.agreed()
        if agreed.found is not None:
            record.forget(*_OF_CLIENT)  # shown further out
        elif client.agreed_tls is not None:
            agreed = attrs.evolve(agreed, found=client.agreed_tls.found)
        client.agreed_tls = agreed
        if shake.facts:
            record.note(shake.facts)
        client.note_decided(agreed.facts)
        # From here on what is inside TLS is counted.
        record.bytes_in = record.bytes_out = 0
        self._shake = None
        self.leave()
        client.stage, client.receiver = None, NO_RECEIVER
        if client.transport is None:
            client.socket = shake.end
        else:
            shake.put_over(client.transport)
        for watch in watchers_of(agreed.alpn):
            if client.transport is None:
                client.make_transport(reading=True)
            watch(client, self._received, self._layer, self._inside)
        transport = client.transport  # which a relay may put another one over
        client.advance(Opened(self._inside))
        transport = transport or client.transport
        if transport is not None:  # otherwise it has been read
            transport.deliver_early()

    def _failed(self, problem: object) -> Outcome | None:
        """End the connection, which may have an alert to send."""
        self._cause = self._terminator.cause_of(problem, self._shake)
        if self._client.transport is None:
            return self._ended()
        self._client.transport.loseConnection()
        return None

    def _ended(self) -> Outcome:
        client = self._client
        if self._reason == "tls-failed":
            client.record.note(tls_error=printable(self._cause))
        return Finished(self._reason)

    @override
    def connection_lost(self, reason: Failure) -> None:
        self._cause = self._cause or self._terminator.cause_of(reason.value, self._shake)
        self._client.advance(self._ended())

    @override
    def abort(self, reason: AbortReason) -> None:
        self._reason = reason
        self._break_off()

    def _on_timeout(self) -> None:
        self._cause = "the TLS handshake took longer than detect_timeout"
        self._break_off()

    def _break_off(self) -> None:
        client: Any = self._client
        client.attach_stage()
        client.transport.abortConnection()


def _record_cut(record: ConnectionRecord) -> None:
    record.note(tls_truncated="yes")
