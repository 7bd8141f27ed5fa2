"""Replay name servers: one question over UDP, and again over TCP if its answer is too long.

The messages are those of RFC 1035, section 4, with the size of UDP messages that RFC 6891 (EDNS) negotiates.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from zope.interface import implementer

from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from twisted.python.failure import Failure

Place = tuple[str, int]
"""The IP address and the port of a name server."""

_PATIENCE = (1.0, 3.0)
"""Seconds that each server has for its answer, when it is asked for the first and for the second time."""

_MOST_AT_ONCE = 64
"""Questions that are open at the same time; each has a socket."""

_UDP_SIZE = 1232
"""Bytes of the longest answer over UDP: what passes every network without fragments (DNS flag day 2020)."""

_FAILURES = {
    dns.EFORMAT: "FORMERR",
    dns.ESERVER: "SERVFAIL",
    dns.ENOTIMP: "NOTIMP",
    dns.EREFUSED: "REFUSED",
}


_WITHOUT_EDNS = {dns.EFORMAT, dns.ENOTIMP, dns.EBADVERSION}
"""Response codes of a server that does not know EDNS (RFC 6891, section 7), or another version of it."""


class LookupFailedError(MuxError):
    """A name could not be looked up."""


class ServerFailureError(LookupFailedError):
    """A name server has answered that it failed for this name (SERVFAIL and its like), and none has the answer."""


class _NoAnswerError(Exception):
    """A server cannot answer."""


class _FailureAnswerError(_NoAnswerError):
    """It has answered with a response code that says nothing of the name."""


class _TooLateError(_NoAnswerError):
    """It has not answered, but may do so when it is asked again."""


class _Answer(dns.Message):
    # An answer of 64 KiB has up to 4,000 records, and each may point to where a name is.
    maxCompressionPointers = 20_000


@attrs.frozen
class _Question:
    """One question to one server.

    Attributes:
        name: The name, in lower case and without the final dot.
        kind: The type of the records.
        edns: Whether it tells the server how long an answer over UDP may be. Some old servers, and some firewalls,
            do not let such a question through.
        number: What tells its answer from others.
    """

    name: bytes
    kind: int
    edns: bool
    number: int = attrs.field(factory=lambda: secrets.randbelow(1 << 16))

    def encoded(self) -> bytes:
        """Return the bytes of it, without a length."""
        message = dns.Message(self.number, recDes=1)
        message.addQuery(self.name, self.kind)
        if self.edns:
            # The OPT pseudo-record of RFC 6891, section 6.1.2: its class is the size.
            nothing = dns.UnknownRecord(b"")
            message.additional = [dns.RRHeader(b"", dns.OPT, _UDP_SIZE, 0, nothing)]
        return message.toStr()

    def answer(self, data: bytes) -> dns.Message | None:
        """Read what has come; ``None`` if it is not an answer to this."""
        message = _Answer()
        try:
            message.fromStr(data)
        except Exception:  # noqa: BLE001 - each type of record has a decoder, and each its own errors
            return None
        if message.id != self.number or not message.answer:
            return None
        asked = [(query.name.name.lower(), query.type) for query in message.queries]
        # A server that could not read the question may not repeat it.
        if asked == [(self.name, self.kind)] or (not asked and message.rCode != dns.OK):
            return message
        return None


@implementer(IReadDescriptor)
class _Datagrams:
    """A question over UDP. Twisted's own UDP port would write two lines into the log for each.

    The socket is connected: only the server's datagrams come in, and a port without a server is known at once.

    Raises:
        OSError: No datagram can be sent there.
    """

    def __init__(self, reactor: Any, address: Place, question: _Question) -> None:
        self.answer: Deferred[dns.Message] = Deferred()
        self._reactor = reactor
        self._question = question
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - its only way
            self._socket.connect(address)
            self._socket.send(question.encoded())
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "names"

    def doRead(self) -> None:
        try:
            data = self._socket.recv(65_535)
        except BlockingIOError:  # its checksum was wrong
            return
        except OSError as error:
            self._fail(error.errno)
        else:
            message = self._question.answer(data)
            if message is not None:
                self.close()
                self.answer.callback(message)

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - the interface's
        self._fail(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _fail(self, number: int | None) -> None:
        self.close()
        self.answer.errback(_NoAnswerError(os.strerror(number or errno.ECONNREFUSED)))

    def close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(Int16StringReceiver):
    """A question over TCP."""

    def __init__(self, question: _Question) -> None:
        self.answer: Deferred[dns.Message] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._question = question

    def connectionMade(self) -> None:
        self.sendString(self._question.encoded())

    def stringReceived(self, string: bytes) -> None:
        message = self._question.answer(string)
        if message is not None and not self.answer.called:
            self.answer.callback(message)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002 - the interface's
        if not self.answer.called:
            self.answer.errback(_NoAnswerError("has closed the connection"))
        self.gone.callback(None)


class _StreamFactory(Factory):
    noisy = False  # else it would be in the log, each time

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def buildProtocol(self, addr: object) -> _Stream:  # noqa: ARG002 - the interface's
        return self._stream


class NameServers:
    """Asks one name server after the other.

    Args:
        reactor: Sends, receives and tells the time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._turns = DeferredSemaphore(_MOST_AT_ONCE)

    async def ask(self, servers: Sequence[Place], name: bytes, kind: int) -> dns.Message:
        """Ask until there is an answer: the records, or that there are none.

        Args:
            servers: The name servers, in the order in which they are asked.
            name: The name, in lower case and without the final dot.
            kind: The type of the records.

        Raises:
            ServerFailureError: No server has an answer, and at least one has said so.
            LookupFailedError: No server has an answer. It tells why the last one has none.
        """
        left = list(servers)
        why = "there is no name server"
        problem = LookupFailedError
        for seconds in _PATIENCE:
            is_first = seconds == _PATIENCE[0]
            for address in tuple(left):
                answer = await self._try(address, _Question(name, kind, is_first), seconds)
                if isinstance(answer, dns.Message):
                    return answer
                if not isinstance(answer, _TooLateError):
                    left.remove(address)
                if isinstance(answer, _FailureAnswerError):
                    problem = ServerFailureError
                why = f"the name server {address[0]}: {answer}"
        raise problem(why)

    async def _try(
        self, address: Place, question: _Question, seconds: float
    ) -> dns.Message | Exception:
        try:
            async with self._turns:
                return await self._ask_one(address, question, seconds)
        except defer.TimeoutError:
            return _TooLateError(f"no answer within {seconds:g} s")
        except (_NoAnswerError, ConnectError, OSError) as error:
            return error

    async def _ask_one(self, address: Place, question: _Question, seconds: float) -> dns.Message:
        message = await self._within(seconds, self._over_udp(address, question))
        if message.trunc:
            message = await self._within(_PATIENCE[-1], self._over_tcp(address, question))
        code = _response_code(message)
        if code in {dns.OK, dns.ENAME}:
            return message
        if question.edns and code in _WITHOUT_EDNS:
            return await self._ask_one(address, attrs.evolve(question, edns=False), seconds)
        raise _FailureAnswerError(_FAILURES.get(code, f"response code {code}"))

    def _within(
        self, seconds: float, asking: Coroutine[Any, Any, dns.Message]
    ) -> Deferred[dns.Message]:
        return Deferred.fromCoroutine(asking).addTimeout(seconds, self._reactor)

    async def _over_udp(self, address: Place, question: _Question) -> dns.Message:
        datagrams = _Datagrams(self._reactor, address, question)
        try:
            return await datagrams.answer
        except CancelledError:
            datagrams.close()
            raise

    async def _over_tcp(self, address: Place, question: _Question) -> dns.Message:
        stream = _Stream(question)
        try:
            await TCP4ClientEndpoint(self._reactor, *address).connect(_StreamFactory(stream))
        except ConnectingCancelledError:
            raise CancelledError from None
        try:
            return await stream.answer
        finally:
            # The answer is there, so the server need not be told politely.
            transport: Any = stream.transport
            transport.abortConnection()
            await stream.gone


def _response_code(message: dns.Message) -> int:
    """Return the response code; EDNS has its upper bits (RFC 6891, section 6.1.3)."""
    upper = next((it.ttl >> 24 for it in message.additional if it.type == dns.OPT), 0)
    return upper << 4 | int(message.rCode)
