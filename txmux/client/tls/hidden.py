"""TLS that ends here, of a client with a hidden name: OpenSSL gets the hello that was hidden, and a second one, too (RFC 9849)."""

from typing import Any

from OpenSSL.SSL import Error
from twisted.python.failure import Failure

from txmux.net.tls.transport import TLSTransport
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.ech import Unsealed
from txmux.wire.hello_records import asks_again, before_hello

_MOST = 2**15  # bytes of the second hello, and of what comes before it


class HiddenTLSTransport(TLSTransport):
    """Opens the hello that follows a HelloRetryRequest of OpenSSL's."""

    _is_retry: bool | None = None  # until the first answer
    _held = b""
    _passed = 0
    _hello: HelloReader | None = None

    def __init__(self, factory: Any, protocol: Any, unsealed: Unsealed) -> None:
        super().__init__(factory, protocol, _connectWrapped=False)
        self._unsealed = unsealed

    def _encrypted(self) -> bytes:
        data = super()._encrypted()
        if self._is_retry is None and data:
            self._is_retry = asks_again(data)
        return data

    def dataReceived(self, data: bytes) -> None:
        if not self._is_retry:
            super().dataReceived(data)
            return
        self._held += data
        others = before_hello(self._held)
        if others:
            self._passed += others
            others_data, self._held = self._held[:others], self._held[others:]
            super().dataReceived(others_data)
        self._hello = hello = parse_client_hello(self._held, self._hello)
        if hello.hello or hello.malformed or self._passed + len(self._held) > _MOST:
            self._open()

    def _open(self) -> None:
        self._is_retry, held, self._held = False, self._held, b""
        assert self._unsealed.opened is not None  # noqa: S101 - by that it is here
        try:
            second = self._unsealed.opened.open_again(held)
        except IllegalHelloError as illegal:
            self.transport.write(illegal.alert)
            self._tlsShutdownFinished(Failure(Error([("", "", str(illegal))])))  # as OpenSSL's are
        else:
            self.is_opened_again = True
            super().dataReceived(second)
