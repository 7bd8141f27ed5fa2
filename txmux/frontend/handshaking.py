"""The stage in which a client shakes hands with the TLS that is ended here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IHandshakeListener
from twisted.protocols.policies import ProtocolWrapper
from zope.interface import implementer

from txmux.proxyprotocol.encode import encode_ssl
from txmux.proxyprotocol.header import SslClient, SslInfo, Tlv, TlvType
from txmux.tls.agreed import AgreedTLS
from txmux.tls.causes import cause_of
from txmux.tls.transport import TLSTransport
from txmux.wire.facts import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.python.failure import Failure

    from txmux.frontend.connection import MuxProtocol
    from txmux.observe.record import EndReason
    from txmux.relay.interface import AbortReason
    from txmux.tls.termination import Termination

__all__ = ["Handshaking"]


@implementer(IHandshakeListener)
class Handshaking:
    """A stage: the client's TLS handshake.

    It is also the protocol on top of TLS until the handshake is complete.

    Args:
        connection: The client's.
        termination: What its TLS is ended with.
        go_on: Called when the plaintext is about to come.
    """

    def __init__(
        self, connection: MuxProtocol, termination: Termination, go_on: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._go_on = go_on
        self._tls = TLSTransport(termination.factory, self, _connectWrapped=False)
        self._reason: EndReason = "tls-failed"
        self._cause = ""
        self._deadline = connection.factory.clock.callLater(
            connection.factory.settings.detect_timeout, self._too_late
        )

    def start(self, pending: bytes, *, client_finished: bool) -> None:
        """Shake hands.

        Args:
            pending: What the client has sent so far: its hello, as far as it has come.
            client_finished: Whether it will send no more.
        """
        below: Any = self._connection.transport
        self._connection.enter(self)
        if isinstance(below, ProtocolWrapper):
            below.wrappedProtocol = self._tls
        else:
            below.protocol = self._tls
        self._tls.makeConnection(below)
        self._tls.dataReceived(pending)
        if client_finished:
            self._tls.readConnectionLost()

    def handshakeCompleted(self) -> None:
        """Step out of the way: TLS is now the client's transport."""
        self._deadline.cancel()
        connection = self._connection
        tls: Any = self._tls
        agreed = AgreedTLS.of(tls.getHandle())
        connection.transport, tls.wrappedProtocol = tls, connection
        connection.ended_tls = _as_fields(agreed)
        record = connection.record
        record.facts = {**record.facts, **{k: printable(v) for k, v in agreed.facts().items()}}
        # From here on what is inside of TLS is counted.
        record.bytes_in = 0
        self._go_on()

    def connectionLost(self, reason: Failure) -> None:
        """Learn from TLS that the connection is gone before the handshake was complete."""
        self._connection.connectionLost(reason)

    def lost(self, reason: Failure) -> None:
        """Log why there was no TLS."""
        if self._deadline.active():
            self._deadline.cancel()
        connection = self._connection
        if self._reason == "tls-failed":
            cause = self._cause or cause_of(reason.value, self._tls.distrusted)
            connection.record.facts = {**connection.record.facts, "tls_error": printable(cause)}
        connection.over(self._reason)

    def abort(self, reason: AbortReason) -> None:
        """Give up on the client."""
        self._reason = reason
        self._connection.transport.abortConnection()

    def _too_late(self) -> None:
        self._cause = "the TLS handshake took longer than detect_timeout"
        self._connection.transport.abortConnection()

    def data(self, data: bytes) -> None:
        """Nothing comes before the handshake is complete."""

    def finished(self) -> None:
        """Nothing comes before the handshake is complete."""


def _as_fields(agreed: AgreedTLS) -> tuple[Tlv, ...]:
    """Write what was agreed on as fields of a PROXY protocol header (section 2.2)."""
    # Names of the DNS are ASCII; whatever else is there would be no UTF-8, as the field wants it.
    name = agreed.sni if agreed.sni and agreed.sni.isascii() else None
    told = {TlvType.AUTHORITY: name, TlvType.ALPN: agreed.alpn}
    inner = {
        TlvType.SSL_VERSION: agreed.version,
        TlvType.SSL_CIPHER: agreed.cipher,
        TlvType.SSL_CN: agreed.common_name,
    }
    did, unverified = SslClient.SSL, 1
    if agreed.certificate is not None:
        did, unverified = did | SslClient.CERT_CONN | SslClient.CERT_SESS, 0
    ssl = SslInfo(did, unverified, tuple(_fields(inner)))
    return (*_fields(told), encode_ssl(ssl))


def _fields(values: Mapping[TlvType, str | bytes | None]) -> list[Tlv]:
    return [
        Tlv(kind, value.encode() if isinstance(value, str) else value)
        for kind, value in values.items()
        if value
    ]
