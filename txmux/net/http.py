"""One HTTP request on a connection of its own, which is closed before the request returns."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IConsumer, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, RequestTransmissionFailed, ResponseDone, ResponseFailed
from twisted.web.http import OK
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import MuxError, cause_of, printable
from txmux.net.sockets.unixpath import owned_by_another
from txmux.net.tls.verification import ClientTLS
from txmux.version import __version__

for _encoding in ("ascii", "charmap", "idna", "latin-1"):
    codecs.lookup(_encoding)  # imported now: later, its user may be unable to read Python's files
_TO_CONNECT = 5.0  # seconds
_LONGEST_HEAD = 1 << 16  # bytes before the body: interim answers, the status line and all headers
_LONGEST_REASON = 200


class RequestFailedError(MuxError):
    """There is no complete response; the message says why."""


class NotConnectedError(RequestFailedError):
    """No connection could be established."""


class ResponseTimeoutError(RequestFailedError):
    """The response has not come in time."""


class DistrustedError(RequestFailedError):
    """The certificate of the host is not valid, or not of a trusted authority."""


@frozen
class HttpResponse:
    """A response; its headers by name in lower case, the last of each name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def request(  # noqa: PLR0913 - by name, and few need more than the first
    reactor: Any,
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    seconds: float,
    most: int | None,
    address: str | None = None,
    owner: int | None = None,
    body_seconds: float | None = None,
    take: Callable[[bytes], object] | None = None,
    body: bytes = b"",
    tls: Callable[[str], Any] = ClientTLS,
) -> HttpResponse:
    """Make a request (RFC 9110, section 9.3); no redirect is followed. For ``https``, the certificate of the host is verified.

    `body` is sent, unless it is empty. `tls` makes the options of TLS for a host. `address` is an IP address or the path
    of a UNIX socket, whose server has to be of the `owner`, if there is one; without it, the host is looked up. The seconds
    are for all, or for what precedes the body of the answer if that has `body_seconds` of its own. `most` are the bytes of that body; with ``None`` it is read until it
    ends, however that is, and discarded. `take` gets the parts of a body with status 200 as they come;
    the response has none then. What it raises ends the request.

    Raises:
        RequestFailedError: There is no complete response; the subclasses say why.
        CancelledError: The caller has cancelled it. The connection is closed then, too.
    """
    endpoints = _UrlEndpoint(reactor, address, tls, owner)
    agent = Agent.usingEndpointFactory(reactor, endpoints)
    sent = Headers({"User-Agent": [f"txmux/{__version__}"], **{k: [v] for k, v in headers.items()}})

    def begins() -> None:
        endpoints.is_in_body = True
        if body_seconds is not None:
            deadline.reset(body_seconds)

    pending = agent.request(method.encode(), url.encode(), sent, _Sent(body) if body else None)
    requesting = Deferred.fromCoroutine(_answer(pending, most, begins, take))
    deadline: IDelayedCall = reactor.callLater(seconds, requesting.cancel)
    try:
        return await requesting
    except CancelledError:
        if deadline.active():
            raise
        raise ResponseTimeoutError(f"no answer within {seconds:g} s") from None
    except (ConnectError, DNSLookupError) as error:
        raise NotConnectedError(cause_of(error)) from None
    except RequestFailedError:
        if endpoints.is_too_long:
            raise RequestFailedError(f"its headers are longer than {_LONGEST_HEAD} bytes") from None
        raise
    finally:
        if deadline.active():
            deadline.cancel()
        for connection in endpoints.connections:
            await connection.break_off()


async def _answer(
    pending: Deferred[Any],
    most: int | None,
    begins: Callable[[], None],
    take: Callable[[bytes], object] | None,
) -> HttpResponse:
    try:
        response = await pending
        begins()
        if take is not None and response.code != OK:
            most, take = _LONGEST_HEAD, None
        body = _Body(most, take)
        response.deliverBody(body)
        data = await body.whole
    except (ResponseFailed, RequestTransmissionFailed) as error:
        # A cancelled request fails like a connection that has ended.
        if any(reason.check(CancelledError) for reason in error.reasons):
            raise CancelledError from None
        why = reason_of(error)
        if "certificate verify failed" in why:
            raise DistrustedError(f"its certificate is not valid: {why}") from None
        raise RequestFailedError(f"no whole answer: {why}") from None
    fields = {
        name.decode("ascii", "replace").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }
    return HttpResponse(response.code, fields, data)


def reason_of(error: ResponseFailed | RequestTransmissionFailed) -> str:
    reasons = [reason for reason in error.reasons if not reason.check(ResponseDone)]
    text = cause_of(reasons[0].value) if reasons else "it has ended early"
    return printable(text, _LONGEST_REASON)


@implementer(IBodyProducer)
@frozen
class _Sent:
    """Sends a body as a whole."""

    _data: bytes

    @property
    def length(self) -> int:
        return len(self._data)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def stopProducing(self) -> None: ...  # all has been sent

    pauseProducing = resumeProducing = stopProducing


class _Body(Protocol):
    def __init__(self, most: int | None, take: Callable[[bytes], object] | None) -> None:
        self._most = most
        self._data = bytearray()
        self._take = take or self._data.extend
        self._size = 0
        self.whole: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self.whole.called or self._most is None:
            return
        self._size += len(data)
        if self._size > self._most:
            self.whole.errback(RequestFailedError(f"its answer is longer than {self._most} bytes"))
            return
        try:
            self._take(data)
        except Exception:  # noqa: BLE001 - the caller knows its own
            self.whole.errback(Failure())

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.whole.called:
            return
        if self._most is None or (reason is not None and reason.check(ResponseDone)):
            self.whole.callback(bytes(self._data))
        else:
            self.whole.errback(RequestFailedError("its answer is not whole"))


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _UrlEndpoint:
    """Connects to the address, or else to the host of the URL."""

    def __init__(
        self, reactor: Any, address: str | None, tls: Callable[[str], Any], owner: int | None
    ) -> None:
        self._reactor = reactor
        self._owner = owner
        self._address = address
        self._tls = tls
        self.connections: list[_WatchedConnection] = []
        self._head_size = 0
        self.is_in_body = False

    @property
    def is_too_long(self) -> bool:
        return self._head_size > _LONGEST_HEAD

    def count_received(self, count: int) -> None:
        if not self.is_in_body:
            self._head_size += count
            if self.is_too_long:
                for connection in self.connections:
                    connection.abortConnection()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        host = uri.host.decode("ascii")
        endpoint: Any
        if self._address is None:
            endpoint = HostnameEndpoint(self._reactor, host, uri.port, _TO_CONNECT)
        elif self._address.startswith("/"):
            endpoint = UNIXClientEndpoint(self._reactor, self._address, _TO_CONNECT)
        else:
            endpoint = TCP4ClientEndpoint(self._reactor, self._address, uri.port, _TO_CONNECT)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._tls(host), endpoint)
        self._endpoint = endpoint
        return self

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        protocolFactory.noisy = False  # else two lines in the log for each request
        factory = WrappingFactory(protocolFactory)
        factory.noisy = False
        factory.protocol = self._make_connection
        connecting: Deferred[Any] = self._endpoint.connect(factory)

        def cancel(waiting: Deferred[Any]) -> None:
            # First: Twisted says of a name whose look-up is cancelled that there is none.
            waiting.errback(CancelledError())
            connecting.cancel()

        def end(result: Any) -> None:
            if not waiting.called:
                waiting.callback(result)

        waiting: Deferred[Any] = Deferred(cancel)
        connecting.addCallback(self._connected).addBoth(end)
        return waiting

    def _connected(self, connection: _WatchedConnection) -> Any:
        transport: Any = connection.transport
        if self._owner is not None and (
            why := owned_by_another(transport.getHandle(), self._owner)
        ):
            raise ConnectError(string=why)
        return connection.wrappedProtocol

    def _make_connection(self, factory: Factory, wrapped: Protocol) -> _WatchedConnection:
        connection = _WatchedConnection(factory, wrapped, self.count_received)
        self.connections.append(connection)
        return connection


class _WatchedConnection(ProtocolWrapper):
    def __init__(self, factory: Any, wrapped: Any, count_received: Callable[[int], object]) -> None:
        super().__init__(factory, wrapped)
        self._count_received = count_received
        self._closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._count_received(len(data))

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._closed.callback(None)

    async def break_off(self) -> None:
        if not self._closed.called and self.transport is not None:
            self.abortConnection()
            await self._closed
