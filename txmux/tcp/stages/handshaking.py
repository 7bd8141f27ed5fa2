"""A stage: the handshake of TLS that is terminated here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from twisted.internet.interfaces import IHandshakeListener
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.access import per_source
from txmux.access.per_source import PATIENCE, source_of
from txmux.classes import define
from txmux.rules.installed import watchers_of
from txmux.rules.model import Refusal
from txmux.tcp.stage import Stage
from txmux.tcp.transitions import Finished, Opened, Outcome, TurnedAway
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.facts import printable
from txmux.wire.hello.records import HANDSHAKE

if TYPE_CHECKING:
    from txmux.client.configuration import RuleLayer
    from txmux.client.tls.client_transport import ClientTLSTransport
    from txmux.client.tls.terminator import CertificateSource, TlsTerminator
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionState
    from txmux.wire.client_hello import HelloReader

_LONGEST_HELLO = 2**15  # bytes that are waited for; OpenSSL says what is wrong with a longer one
_LONGEST = 3 * 2**10  # bytes that are kept of a client that waits; more than a hello has
_LACKING = "the certificate cannot be used yet"
_OF_CLIENT = ("tls_client", "tls_client_names", "client_cert", "client_cert_error")


@implementer(IHandshakeListener)
@define(eq=False, slots=False)
class Handshaking(Stage):
    """Waits for the client's TLS. It is the protocol on top of TLS until the handshake is complete.

    OpenSSL takes 50 KiB for a handshake. So it begins when the client's hello is complete, and when others of its source have made
    room. What follows is decided by that hello, and not by what the client may say later.
    """

    state: ClassVar[ConnectionState] = "handshaking"

    _terminator: TlsTerminator[CertificateSource]
    _inside: RuleLayer
    _layer: RuleLayer  # by which it was decided that TLS ends here
    _received: bytes = attrs.field(default=b"", init=False)
    _reason: EndReason = attrs.field(default="tls-failed", init=False)
    _tls: ClientTLSTransport | None = attrs.field(default=None, init=False)
    _key: tuple[str, int] | None = attrs.field(default=None, init=False)  # listener, source
    _reader: HelloReader | None = attrs.field(default=None, init=False)
    _waits_until: float = attrs.field(default=0.0, init=False)
    _cause = ""

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        outcome = self.on_finished() if client.has_finished else self.on_data()
        if outcome is None and self._key is None:  # its hello is not whole
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
        client = self._client
        settings, address = client.configuration.settings, client.address
        if self._key is None:
            self._key = settings.name, source_of(address.host) if address else -1
            # A source that may have more undecided connections is many clients.
            most = max(per_source.MOST_PER_SOURCE, settings.max_undecided_per_source)
            limit = most if address else 0
            pause = client.runtime.handshakes.enter(self._key, self, limit)
            if not pause:
                return self._start()
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
        self._client.transport.abortConnection()

    def _start(self) -> Outcome | None:
        client = self._client
        store = self._terminator.store
        if store.may_lack and store.is_lacking():
            client.record.note(tls_error=_LACKING)
            return TurnedAway(Refusal.CLOSE, "tls-failed")
        below: Any = client.transport
        settings = client.configuration.settings
        self.wait(settings.detect_timeout, self._on_timeout)
        hello = None if self._reader is None else self._reader.hello
        self._tls = tls = self._terminator.make_transport(self, hello, client.second_hello)
        if tls.name is None and (local := client.local) is not None:
            tls.address = str(local.host)
        client.end_layer()
        tls.strict = settings.tls_strict
        if isinstance(below, ProtocolWrapper):
            below.wrappedProtocol = tls
        else:
            below.protocol = tls
        self._received, client.received = client.received, b""
        has_finished, client.has_finished = client.has_finished, False
        tls.accept(below, self._received)
        if has_finished:
            tls.readConnectionLost()
        return None

    @override
    def leave(self) -> None:
        super().leave()
        if self._key is not None:
            self._client.runtime.handshakes.leave(self._key, self)

    def handshakeCompleted(self) -> None:
        client, tls = self._client, self._tls
        assert tls is not None  # noqa: S101 - it reports its own handshake
        agreed = self._terminator.agreed(tls)
        inner: Any = tls
        client.transport, inner.wrappedProtocol = inner, client
        record = client.record
        if agreed.found is not None:
            record.forget(*_OF_CLIENT)  # shown further out
        elif client.agreed_tls is not None:
            agreed = attrs.evolve(agreed, found=client.agreed_tls.found)
        client.agreed_tls = agreed
        if facts := tls.facts:
            record.note(facts)
        client.note_decided({k: printable(v) for k, v in agreed.facts().items()})
        # From here on what is inside TLS is counted.
        record.bytes_in = 0
        for watch in watchers_of(agreed.alpn):
            watch(client, self._received, self._layer, self._inside)
        client.advance(Opened(self._inside))

    def connectionLost(self, reason: Failure) -> None:
        self.connection_lost(reason)

    @override
    def connection_lost(self, reason: Failure) -> None:
        client = self._client
        if self._reason == "tls-failed":
            cause = self._cause or self._terminator.cause_of(reason.value, self._tls)
            client.record.note(tls_error=printable(cause))
        client.advance(Finished(self._reason))

    @override
    def abort(self, reason: AbortReason) -> None:
        self._reason = reason
        self._client.transport.abortConnection()

    def _on_timeout(self) -> None:
        self._cause = "the TLS handshake took longer than detect_timeout"
        self._client.transport.abortConnection()
