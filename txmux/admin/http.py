"""HTTP for the site, by Twisted, a request a connection, with limits for clients that are slow, send too much or connect in hundreds."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from typing_extensions import override

from txmux.admin.encoding import encoded
from txmux.admin.guard import Caller, RefusedError, network_of
from txmux.admin.resource import AnswerStream, ApiAnswer
from txmux.admin.site import Site, headers_of

_MOST_CONNECTIONS = 64
_LONGEST_BODY = 65536  # bytes
_TOO_MANY = 429
_SLOWED = 1.0
"""Delay of the answer to a client with too many wrong tokens, in seconds. It saves work; a client that hangs up does not wait."""
_IDLE = 30  # seconds that a connection may be quiet before its request, or not take the answer
_ARRIVING = 10.0  # seconds that a request may take to arrive


class _AdminRequest(Request):
    """Collects a request, and has the site answer it."""

    channel: AdminChannel
    _length = 0

    def __init__(self, channel: AdminChannel, *_: object) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)

    @override
    def gotLength(self, length: int | None) -> None:
        # Nothing is written to a file, however much a client announces.
        super().gotLength(min(length or 0, _LONGEST_BODY))

    @override
    def handleContentChunk(self, data: bytes) -> None:
        self._length += len(data)
        if self._length <= _LONGEST_BODY:
            super().handleContentChunk(data)

    @override
    def process(self) -> None:
        self.channel.clients.answering(Deferred.fromCoroutine(self._process()))

    async def _process(self) -> None:
        headers = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in self.requestHeaders.getAllRawHeaders()
        }
        site, target = self.channel.site, self.uri.decode("latin-1")
        method = self.method.decode("latin-1")
        if not site.is_of_process(target) and not await self.channel.clients.may_answer():
            message = "an upgrade has replaced this process, which has done nothing; connect again"
            answer = ApiAnswer.refusal(RefusedError(503, message))
        elif self._length > _LONGEST_BODY:
            answer = ApiAnswer.refusal(
                RefusedError(413, f"a body has at most {_LONGEST_BODY} bytes")
            )
        elif self.clientproto == b"HTTP/1.1" and "host" not in headers:
            answer = ApiAnswer.refusal(RefusedError(400, "there is no Host header"))
        else:
            assert self.content is not None  # noqa: S101 - it has been received
            body, caller = self.content.read(), self.channel.caller
            answer = await site.answer(method, target, headers, body, caller)
        if answer.status == _TOO_MANY:
            await self.channel.be_slowed()
        answer = await encoded(answer, method, headers)
        if not self._disconnected:
            self._send(answer)

    def _send(self, answer: ApiAnswer) -> None:
        self.setResponseCode(answer.status)
        for name, value in headers_of(answer).items():
            self.setHeader(name, value)
        if answer.stream is None:
            if answer.status != 304:
                self.setHeader("Content-Length", str(len(answer.body)))
            self.write(answer.body)
        elif self.method != b"HEAD":
            answer.stream(AnswerStream(self))
            return
        self.finish()


def _refusal_bytes(status: int, message: str) -> bytes:
    """Write the answer to bytes that are no request, after which the connection ends."""
    answer = ApiAnswer.refusal(RefusedError(status, message, (), {"Connection": "close"}))
    headers = {**headers_of(answer), "Content-Length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


class _Crowded(Protocol):
    """Answers a client that comes when there are too many."""

    @override
    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(_refusal_bytes(503, f"there are {_MOST_CONNECTIONS} connections already"))
        transport.loseConnection()


class AdminChannel(HTTPChannel):
    """One connection; `source` is the address or network whose connections are counted together."""

    requestFactory: Any = _AdminRequest
    timeOut = _IDLE
    site: Site
    caller: Caller
    _arriving: IDelayedCall | None = None
    _slowed: Deferred[None] | None = None
    is_new = True  # until its request has arrived

    def __init__(self, factory: AdminClients, source: str) -> None:
        super().__init__()
        self.clients = factory
        self.source = source
        self.__dict__["callLater"] = factory.reactor.callLater  # as Twisted's own factory does

    @property
    def is_busy(self) -> bool:
        return bool(self._handlingRequest) and self._slowed is None

    async def be_slowed(self) -> None:
        """Wait for `_SLOWED`, or until the connection has ended."""
        self._slowed = Deferred()
        late = self.clients.reactor.callLater(_SLOWED, self._slowed.callback, None)
        await self._slowed
        self._slowed = None
        if late.active():
            late.cancel()

    @override
    def connectionMade(self) -> None:
        super().connectionMade()
        self.site = self.clients.site
        self.caller = Caller.of(self.transport)
        self.clients.connected(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._arriving is None and not self.is_busy:
            self._arriving = self.clients.reactor.callLater(_ARRIVING, self._late)
        super().dataReceived(data)

    @override
    def allContentReceived(self) -> None:
        self._has_arrived()
        self.is_new = False
        super().allContentReceived()

    @override
    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """Close each connection after its answer: it needs no limits for pipelined requests, and no idle ones outlive this process."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    @override
    def requestDone(self, request: Request) -> None:
        self._handlingRequest = False
        self.setTimeout(_IDLE)
        super().requestDone(request)

    def _has_arrived(self) -> None:
        if self._arriving is not None and self._arriving.active():
            self._arriving.cancel()
        self._arriving = None

    def _late(self) -> None:
        self._arriving = None
        self._refuse(408, f"a request has to arrive within {_ARRIVING:g} s")

    @override
    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(431, f"a line of a request has at most {self.MAX_LENGTH} bytes")

    @override
    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse(400, "this is not a request of HTTP/1.1, or its head is too long (RFC 9112)")

    def _refuse(self, status: int, message: str) -> None:
        transport: Any = self.transport
        transport.write(_refusal_bytes(status, message))
        self.loseConnection()

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()

    timeoutConnection = abort  # Twisted's own would log it

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._has_arrived()
        self.clients.forget(self)
        super().connectionLost(reason)
        if self._slowed is not None:
            self._slowed.callback(None)


class AdminClients(ServerFactory):
    """The connections of one endpoint."""

    noisy = False

    def __init__(self, site: Site, reactor: Any) -> None:
        self.site = site
        self.reactor = reactor
        self.channels: dict[AdminChannel, None] = {}
        # Answers in progress; their clients may have left.
        self._answers: set[Deferred[None]] = set()
        self._empty: Deferred[None] | None = None
        self._is_replaced = False
        # Requests, while it is decided which process serves.
        self.held: list[Deferred[None]] | None = None

    def hold_requests(self) -> None:
        self.held = self.held or []

    def go_on(self) -> None:
        self._is_replaced = False
        self._release()

    def be_replaced(self) -> None:
        """Refuse all requests from now on, since another process serves; those that are being answered continue."""
        self._is_replaced = True
        self._release()

    def _release(self) -> None:
        held, self.held = self.held or (), None
        for request in held:
            request.callback(None)

    async def may_answer(self) -> bool:
        """Return whether this process is the one that serves, as soon as that is decided."""
        if self.held is not None:
            decided: Deferred[None] = Deferred()
            self.held.append(decided)
            await decided
        return not self._is_replaced

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        source = network_of(str(getattr(addr, "host", "")))
        if len(self.channels) >= _MOST_CONNECTIONS:
            other = self._makes_room(source)
            if other is None:
                return _Crowded()
            # It is lost only in the next turn, and more clients may come in this one.
            self.forget(other)
            other.abort()
        return AdminChannel(self, source)

    def _makes_room(self, source: str) -> AdminChannel | None:
        """Choose the connection to end: of the source with the most, the oldest.

        One that is being answered ends only if its source would still have more connections than the new one's.
        """
        have = Counter(channel.source for channel in self.channels)
        by_number = sorted(self.channels, key=lambda its: (-have[its.source], its.is_busy))
        for channel in by_number:
            if have[channel.source] >= have[source] + 2 * channel.is_busy:
                return channel
        return None

    def connected(self, channel: AdminChannel) -> None:
        self.channels[channel] = None

    def forget(self, channel: AdminChannel) -> None:
        self.channels.pop(channel, None)
        self._report_if_empty()

    def answering(self, answer: Deferred[None]) -> None:
        self._answers.add(answer)

        def done(result: object) -> object:
            self._answers.discard(answer)
            self._report_if_empty()
            return result

        answer.addBoth(done)

    def _report_if_empty(self) -> None:
        if self._empty is not None and not self.channels and not self._answers:
            empty, self._empty = self._empty, None
            empty.callback(None)

    async def end(self, seconds: float, first: float = 0.0) -> None:
        """End all connections, those with a request after its answer, for which there are these seconds; the others have `first` to send one."""
        if not self.channels and not self._answers:
            return
        empty: Deferred[None] = Deferred()
        self._empty = empty
        for channel in [*self.channels]:
            if first and channel.is_new:
                channel.setTimeout(first)
            elif not channel.is_busy:
                channel.loseConnection()
        late = self.reactor.callLater(seconds, self._abort)
        await empty
        if late.active():
            late.cancel()

    def _abort(self) -> None:
        self._answers.clear()
        for channel in [*self.channels]:
            channel.abort()
        self._report_if_empty()
