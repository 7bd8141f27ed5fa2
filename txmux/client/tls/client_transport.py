"""The TLS of a client, ended here: OpenSSL gets no second hello that asks for something else than the first (RFC 8446, section 4.1.2)."""

from collections.abc import Mapping
from typing import Any

from OpenSSL.SSL import Error
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from txmux.net.tls.transport import TLSTransport
from txmux.wire.client_hello import ClientHello
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.hello.records import asks_again
from txmux.wire.hello.second import ILLEGAL_PARAMETER, SecondHello

_MOST = 2**15  # bytes of the second hello, and of what comes before it


# Without it, `ProtocolWrapper` states what the transport below provides.
@implementer(IHalfCloseableProtocol)
class ClientTLSTransport(TLSTransport):
    """Checks the hello that follows a HelloRetryRequest of OpenSSL's; `second` may replace it.

    Args:
        hello: The hello by which the client was routed.
        second: Takes another one.

    Attributes:
        address: What the client has connected to, if it names no server.
    """

    address: str | None = None
    _is_retry: bool | None = None  # until the first answer

    def __init__(
        self, factory: Any, protocol: Any, hello: ClientHello | None, second: SecondHello
    ) -> None:
        super().__init__(factory, protocol, _connectWrapped=False)
        self.name = None if hello is None else hello.sni
        self.version = None if hello is None else hello.version
        self._second = second

    @override
    def _flushSendBIO(self) -> None:
        data = self._encrypted()
        if data:
            if self._is_retry is None:
                self._is_retry = asks_again(data)
            self.transport.write(data)

    @override
    def dataReceived(self, data: bytes) -> None:
        second = self._second
        if self._is_retry and not second.is_over:
            try:
                data = second.receive(data)
                if second.length > _MOST and not second.is_over:
                    raise IllegalHelloError(ILLEGAL_PARAMETER, "the second hello is too long")  # noqa: TRY301 - as those
            except IllegalHelloError as illegal:
                self.transport.write(illegal.alert)
                problem = Error([("", "", str(illegal))])  # as OpenSSL's are
                self._tlsShutdownFinished(Failure(problem))
                return
        if data:
            super().dataReceived(data)

    @property
    def facts(self) -> Mapping[str, str]:
        return self._second.facts if self._second.is_opened else {}
