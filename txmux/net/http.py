"""One request over HTTP, on a connection of its own, of which nothing is left when it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import (
    URI,
    Agent,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from txmux.errors import MuxError, printable
from txmux.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IDelayedCall, IProtocolFactory
    from twisted.internet.protocol import Factory
    from twisted.python.failure import Failure

_TO_CONNECT = 5.0  # seconds
_LONGEST_HEAD = 1 << 16
"""Bytes before the body: interim answers, the status line and all headers."""

_LONGEST_REASON = 200


class RequestFailedError(MuxError):
    """There is no answer, or not a whole one; the message tells why."""


class NotConnectedError(RequestFailedError):
    """There is no connection to ask on."""


class TooLateError(RequestFailedError):
    """The answer has not come in its time."""


@attrs.frozen
class Answer:
    """An answer.

    Attributes:
        status: The status code.
        headers: By name in lower case; of several of one name, the last.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


async def get(
    reactor: Any,
    url: str,
    headers: Mapping[str, str],
    *,
    seconds: float,
    most: int,
    address: str | None = None,
    body_seconds: float | None = None,
) -> Answer:
    """Ask for a resource by GET (RFC 9110, section 9.3.1).

    Args:
        reactor: Connects and tells the time.
        url: Of the scheme ``http`` or ``https``; by the latter, the certificate of the host is verified.
        headers: Beside those that belong to every request.
        seconds: For all together.
        most: The most bytes of the answer's body.
        address: The IP address of the host, or the path of a UNIX socket; without it, the host is looked up.
        body_seconds: For the body alone, from its beginning on; `seconds` are then for what comes before it.

    Raises:
        NotConnectedError: The host is not found, or does not let itself be connected to.
        TooLateError: The time is over.
        RequestFailedError: There is no answer, or not a whole one, for another reason.
        CancelledError: Nobody waits any more. The connection is gone then, too.
    """
    endpoints = _Endpoints(reactor, address)
    agent = Agent.usingEndpointFactory(reactor, endpoints)
    sent = Headers({"User-Agent": [f"txmux/{__version__}"], **{k: [v] for k, v in headers.items()}})

    def begins() -> None:
        endpoints.is_in_body = True
        if body_seconds is not None:
            deadline.reset(body_seconds)

    asking = Deferred.fromCoroutine(_ask(agent, url, sent, most, begins))
    deadline: IDelayedCall = reactor.callLater(seconds, asking.cancel)
    try:
        return await asking
    except CancelledError:
        if deadline.active():
            raise
        raise TooLateError(f"no answer within {seconds:g} s") from None
    except (ConnectError, DNSLookupError) as error:
        raise NotConnectedError(str(error).rstrip(".")) from None
    except RequestFailedError:
        if endpoints.is_too_long:
            raise RequestFailedError(f"its headers are longer than {_LONGEST_HEAD} bytes") from None
        raise
    finally:
        if deadline.active():
            deadline.cancel()
        await endpoints.left()


async def _ask(
    agent: Agent, url: str, headers: Headers, most: int, begins: Callable[[], None]
) -> Answer:
    try:
        response: Any = await agent.request(b"GET", url.encode(), headers)
        begins()
        body = _Body(most)
        response.deliverBody(body)
        data = await body.whole
    except ConnectingCancelledError:
        raise CancelledError from None
    except (ResponseFailed, RequestTransmissionFailed) as error:
        # How the end of a connection is told that was ended here, too.
        if any(reason.check(CancelledError) for reason in error.reasons):
            raise CancelledError from None
        raise RequestFailedError(f"no whole answer: {_reason(error)}") from None
    told = {
        name.decode("ascii", "replace").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }
    return Answer(response.code, told, data)


def _reason(error: ResponseFailed | RequestTransmissionFailed) -> str:
    reasons = [reason for reason in error.reasons if not reason.check(ResponseDone)]
    text = reasons[0].getErrorMessage().rstrip(".") if reasons else "it has ended early"
    return printable(text, _LONGEST_REASON)


class _Body(Protocol):
    """Takes the body of an answer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()
        self.whole: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        if self.whole.called:
            return
        self._data += data
        if len(self._data) > self._most:
            self.whole.errback(RequestFailedError(f"its answer is longer than {self._most} bytes"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.whole.called:
            return
        if reason is not None and reason.check(ResponseDone):
            self.whole.callback(bytes(self._data))
        else:
            self.whole.errback(RequestFailedError("its answer is not whole"))


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Connects to the address, or else to the host of the URL, and knows when that connection is gone."""

    def __init__(self, reactor: Any, address: str | None) -> None:
        self._reactor = reactor
        self._address = address
        self._ends: list[_End] = []
        self._heard = 0
        self.is_in_body = False

    @property
    def is_too_long(self) -> bool:
        """Whether more has come before the body than may."""
        return self._heard > _LONGEST_HEAD

    def hear(self, count: int) -> None:
        """Count bytes that have come, and break off if there are too many."""
        if not self.is_in_body:
            self._heard += count
            if self.is_too_long:
                for end in self._ends:
                    end.abortConnection()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """Return where the connection goes."""
        endpoint: Any
        if self._address is None:
            host = uri.host.decode("ascii")
            endpoint = HostnameEndpoint(self._reactor, host, uri.port, _TO_CONNECT)
        elif self._address.startswith("/"):
            endpoint = UNIXClientEndpoint(self._reactor, self._address, _TO_CONNECT)
        else:
            endpoint = TCP4ClientEndpoint(self._reactor, self._address, uri.port, _TO_CONNECT)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(optionsForClientTLS(uri.host.decode("ascii")), endpoint)
        return _Watched(endpoint, self._ends, self.hear)

    async def left(self) -> None:
        """Break off the connection that there still is, and wait until it is gone."""
        for end in self._ends:
            await end.leave()


@implementer(IStreamClientEndpoint)
class _Watched:
    def __init__(self, endpoint: Any, ends: list[_End], hear: Callable[[int], object]) -> None:
        self._endpoint = endpoint
        self._ends = ends
        self._hear = hear

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect."""
        factory = WrappingFactory(protocolFactory)
        factory.noisy = False
        factory.protocol = self._end
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda wrapper: wrapper.wrappedProtocol)

    def _end(self, factory: Factory, wrapped: Protocol) -> _End:
        end = _End(factory, wrapped, self._hear)
        self._ends.append(end)
        return end


class _End(ProtocolWrapper):
    """This end of the connection."""

    def __init__(self, factory: Any, wrapped: Any, hear: Callable[[int], object]) -> None:
        super().__init__(factory, wrapped)
        self._hear = hear
        self._gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._hear(len(data))

    def connectionLost(self, reason: Failure | None = None) -> None:
        super().connectionLost(reason)
        self._gone.callback(None)

    async def leave(self) -> None:
        """Break the connection off, unless it is gone."""
        if not self._gone.called and self.transport is not None:
            self.abortConnection()
            await self._gone
