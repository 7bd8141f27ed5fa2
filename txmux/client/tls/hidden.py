"""TLS that ends here, of a client with a hidden name: OpenSSL gets the hello that was hidden, and a second one, too (RFC 9849)."""

from typing import Any

from OpenSSL.SSL import Error
from twisted.python.failure import Failure

from txmux.net.tls.transport import TLSTransport
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.ech import ILLEGAL_PARAMETER, SecondHello
from txmux.wire.hello_records import asks_again

_MOST = 2**15  # bytes of the second hello, and of what comes before it


class HiddenTLSTransport(TLSTransport):
    """Opens the hello that follows a HelloRetryRequest of OpenSSL's."""

    _is_retry: bool | None = None  # until the first answer

    def __init__(self, factory: Any, protocol: Any, second: SecondHello) -> None:
        super().__init__(factory, protocol, _connectWrapped=False)
        self._second = second

    def _encrypted(self) -> bytes:
        data = super()._encrypted()
        if self._is_retry is None and data:
            self._is_retry = asks_again(data)
        return data

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
            self.is_opened_again = second.is_opened
        if data:
            super().dataReceived(data)
