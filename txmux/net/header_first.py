"""Sends a PROXY protocol header before what a client protocol of Twisted sends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, ITransport
from twisted.protocols.policies import WrappingFactory


class HeaderFirst(WrappingFactory):
    """A client factory whose connections begin with a header; the protocols are those of the wrapped factory.

    To have the header in clear before a TLS handshake, wrap the `twisted.protocols.tls.TLSMemoryBIOFactory`, not what that
    one wraps. A `twisted.protocols.policies.ProtocolWrapper` would not pass on `IHalfCloseableProtocol`: a server that
    finishes sending would end the whole connection. So the protocol's own `makeConnection` is replaced, for one call, and
    the header is written before the protocol learns of the connection: nothing can precede it. The protocol must not have
    ``__slots__``.

    Args:
        factory: It needs the methods of a `ClientFactory` if the reactor's ``connectTCP`` or ``connectUNIX`` is called
            with this object.
        header: The header, or a function that makes it for a connection's transport.
    """

    noisy = False

    def __init__(
        self, factory: IProtocolFactory, header: bytes | Callable[[ITransport], bytes]
    ) -> None:
        # Not that of the base class, which keeps a list of its protocols.
        self.wrappedFactory = factory
        self._header = header

    def __repr__(self) -> str:
        return f"<HeaderFirst {self.wrappedFactory!r}>"

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        protocol: Any = self.wrappedFactory.buildProtocol(addr)
        if protocol is None:
            return None
        make_connection = protocol.makeConnection

        def write_header_first(transport: ITransport) -> None:
            # Already gone when one HeaderFirst wraps another.
            vars(protocol).pop("makeConnection", None)
            header = self._header
            data = header if isinstance(header, bytes) else header(transport)
            if data:
                transport.write(data)
            make_connection(transport)

        protocol.makeConnection = write_header_first
        built: IProtocol = protocol
        return built
