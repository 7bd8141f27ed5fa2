"""A stage: the handshake of TLS that is terminated here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from twisted.internet.interfaces import IHandshakeListener
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.tcp.stage import Stage
from txmux.tcp.transitions import Ended, TLSEstablished
from txmux.wire.facts import printable

if TYPE_CHECKING:
    from txmux.net.tls.termination import Termination
    from txmux.tcp.configuration import RuleLayer
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionState

_OF_CLIENT = ("tls_client", "tls_client_names", "client_cert", "client_cert_error")


@implementer(IHandshakeListener)
@attrs.define(eq=False, slots=False)
class Handshaking(Stage):
    """Waits for the client's TLS. It is the protocol on top of TLS until the handshake is complete."""

    state: ClassVar[ConnectionState] = "handshaking"

    _termination: Termination
    _inside: RuleLayer
    _reason: EndReason = attrs.field(default="tls-failed", init=False)
    _cause = ""

    @override
    def begin(self) -> None:
        client = self._client
        below: Any = client.transport
        self.wait(client.configuration.settings.detect_timeout, self._too_late)
        self._tls = tls = self._termination.make_transport(self)
        tls.strict = client.configuration.settings.tls_strict
        if isinstance(below, ProtocolWrapper):
            below.wrappedProtocol = tls
        else:
            below.protocol = tls
        hello, client.received = client.received, b""
        has_finished, client.has_finished = client.has_finished, False
        tls.accept(below, hello)
        if has_finished:
            tls.readConnectionLost()

    def handshakeCompleted(self) -> None:
        client, tls = self._client, self._tls
        agreed = self._termination.agreed(tls)
        inner: Any = tls
        client.transport, inner.wrappedProtocol = inner, client
        record = client.record
        facts = dict(record.facts)
        if agreed.found is not None:
            for name in _OF_CLIENT:
                facts.pop(name, None)  # shown further out
        elif client.agreed_tls is not None:
            agreed = attrs.evolve(agreed, found=client.agreed_tls.found)
        client.agreed_tls = agreed
        record.facts = facts | {k: printable(v) for k, v in agreed.facts().items()}
        # From here on what is inside of TLS is counted.
        record.bytes_in = 0
        client.advance(TLSEstablished(self._inside))

    def connectionLost(self, reason: Failure) -> None:
        self.connection_lost(reason)

    @override
    def connection_lost(self, reason: Failure) -> None:
        client = self._client
        if self._reason == "tls-failed":
            cause = self._cause or self._termination.cause_of(reason.value, self._tls)
            client.record.facts = {**client.record.facts, "tls_error": printable(cause)}
        client.advance(Ended(self._reason))

    @override
    def abort(self, reason: AbortReason) -> None:
        self._reason = reason
        self._client.transport.abortConnection()

    def _too_late(self) -> None:
        self._cause = "the TLS handshake took longer than detect_timeout"
        self._client.transport.abortConnection()
