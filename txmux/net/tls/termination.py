"""What ends the TLS of the clients of one route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from txmux.net.tls.agreed import AgreedTLS
from txmux.net.tls.causes import cause_of
from txmux.net.tls.transport import TLSTransport

if TYPE_CHECKING:
    from txmux.net.tls.store import CertificateStore


@implementer(IOpenSSLServerConnectionCreator)
class Termination:
    """The TLS that one route ends.

    Args:
        reactor: The clock that Twisted's factory wants.

    Attributes:
        factory: What transports belong to.
    """

    def __init__(self, store: CertificateStore, reactor: Any) -> None:
        self.store = store
        nothing: Any = None
        self.factory = TLSMemoryBIOFactory(self, False, nothing, reactor)  # noqa: FBT003 - Twisted's signature

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:  # noqa: ARG002
        return SSL.Connection(self.store.context(), None)

    def transport(self, protocol: Any) -> TLSTransport:
        """Make what shakes hands with a client, and is then its transport.

        Args:
            protocol: Is told when the handshake is complete, and of the end.
        """
        return TLSTransport(self.factory, protocol, _connectWrapped=False)

    def agreed(self, transport: TLSTransport) -> AgreedTLS:
        """Return what the handshake, which is complete, has come to."""
        return AgreedTLS.of(transport.getHandle())

    def cause_of(self, problem: object, transport: TLSTransport) -> str:
        return cause_of(problem, transport.distrusted)
