"""Queries to name servers (RFC 1035, section 4, and RFC 6891): over UDP, and again over TCP if the answer is too long."""

import errno
import secrets
import socket
from collections.abc import Coroutine, Sequence
from typing import Any

import attrs
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.errors import MuxError, cause_of

ServerAddress = tuple[str, int]  # the IP address and the port of a name server
_PATIENCE = (1.0, 3.0)
"""Seconds that each server has for its answer, in the first round and in the second."""

_MOST_AT_ONCE = 200  # queries that are open at the same time: two for a name; each has a socket
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
    """A name server has failed for this name (SERVFAIL and the like), and no other has an answer."""


class _QueryError(Exception):
    """A server has no answer."""


class _FailureAnswerError(_QueryError):
    """It has answered with a response code that says nothing about the name."""


class _QueryTimeoutError(_QueryError):
    """It has not answered, but may do so in the next round."""


class _Response(dns.Message):
    # An answer of 64 KiB has up to 4,000 records, each of which may have a pointer.
    maxCompressionPointers = 20_000


@attrs.frozen
class _DnsQuery:
    """One query to one server; its name is in lower case and without the final dot."""

    name: bytes
    kind: int
    edns: bool  # some old servers and firewalls drop such queries
    number: int = attrs.field(factory=lambda: secrets.randbelow(1 << 16))

    def encoded(self) -> bytes:
        message = dns.Message(self.number, recDes=1)
        message.addQuery(self.name, self.kind)
        if self.edns:
            # The OPT pseudo-record of RFC 6891, section 6.1.2: its class is the size.
            empty = dns.UnknownRecord(b"")
            message.additional = [dns.RRHeader(b"", dns.OPT, _UDP_SIZE, 0, empty)]
        return message.toStr()

    def answer(self, data: bytes) -> dns.Message | None:
        message = _Response()
        try:
            message.fromStr(data)
        except Exception:  # noqa: BLE001 - each type of record has a decoder, and each its own errors
            return None
        if message.id != self.number or not message.answer:
            return None
        queries = [(query.name.name.lower(), query.type) for query in message.queries]
        # A server that could not read the query may not repeat it.
        if queries == [(self.name, self.kind)] or (not queries and message.rCode != dns.OK):
            return message
        return None


@implementer(IReadDescriptor)
class _UdpQuery:
    """A query over a connected UDP socket, which gets only the server's datagrams; Twisted's port would log each."""

    def __init__(self, reactor: Any, address: ServerAddress, query: _DnsQuery) -> None:
        self.answer: Deferred[dns.Message] = Deferred()
        self._reactor = reactor
        self._question = query
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - its only way
            self._socket.connect(address)
            self._socket.send(query.encoded())
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
        self.answer.errback(_QueryError(cause_of(OSError(number or errno.ECONNREFUSED, ""))))

    def close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


class _TcpQuery(Int16StringReceiver):
    def __init__(self, query: _DnsQuery) -> None:
        self.answer: Deferred[dns.Message] = Deferred()
        self.closed: Deferred[None] = Deferred()
        self._question = query

    def connectionMade(self) -> None:
        self.sendString(self._question.encoded())

    def stringReceived(self, string: bytes) -> None:
        message = self._question.answer(string)
        if message is not None and not self.answer.called:
            self.answer.callback(message)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002 - the interface's
        if not self.answer.called:
            self.answer.errback(_QueryError("has closed the connection"))
        self.closed.callback(None)


class NameServers:
    """Queries one name server after another."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._turns = DeferredSemaphore(_MOST_AT_ONCE)

    async def ask(self, servers: Sequence[ServerAddress], name: bytes, kind: int) -> dns.Message:
        """Query servers in their order until one answers with records, or that there are none.

        Raises:
            ServerFailureError: No server has an answer, and at least one has reported a failure.
            LookupFailedError: No server has an answer; the message says why the last one has none.
        """
        left = list(servers)
        why = "no name server is configured"
        problem = LookupFailedError
        for seconds in _PATIENCE:
            is_first = seconds == _PATIENCE[0]
            for address in tuple(left):
                answer = await self._try(address, _DnsQuery(name, kind, is_first), seconds)
                if isinstance(answer, dns.Message):
                    return answer
                if not isinstance(answer, _QueryTimeoutError):
                    left.remove(address)
                if isinstance(answer, _FailureAnswerError):
                    problem = ServerFailureError
                why = f"the name server {address[0]}: {cause_of(answer)}"
        raise problem(why)

    async def _try(
        self, address: ServerAddress, query: _DnsQuery, seconds: float
    ) -> dns.Message | Exception:
        try:
            async with self._turns:
                return await self._ask_one(address, query, seconds)
        except defer.TimeoutError:
            return _QueryTimeoutError(f"no answer within {seconds:g} s")
        except (_QueryError, ConnectError, OSError) as error:
            return error

    async def _ask_one(
        self, address: ServerAddress, query: _DnsQuery, seconds: float
    ) -> dns.Message:
        message = await self._within(seconds, self._over_udp(address, query))
        if message.trunc:
            message = await self._within(_PATIENCE[-1], self._over_tcp(address, query))
        code = _response_code(message)
        if code in {dns.OK, dns.ENAME}:
            return message
        if query.edns and code in _WITHOUT_EDNS:
            return await self._ask_one(address, attrs.evolve(query, edns=False), seconds)
        raise _FailureAnswerError(_FAILURES.get(code, f"response code {code}"))

    def _within(
        self, seconds: float, query: Coroutine[Any, Any, dns.Message]
    ) -> Deferred[dns.Message]:
        return Deferred.fromCoroutine(query).addTimeout(seconds, self._reactor)

    async def _over_udp(self, address: ServerAddress, query: _DnsQuery) -> dns.Message:
        datagrams = _UdpQuery(self._reactor, address, query)
        try:
            return await datagrams.answer
        except CancelledError:
            datagrams.close()
            raise

    async def _over_tcp(self, address: ServerAddress, query: _DnsQuery) -> dns.Message:
        stream = _TcpQuery(query)
        factory = Factory.forProtocol(lambda: stream)
        factory.noisy = False  # or each query would be in the log
        try:
            await TCP4ClientEndpoint(self._reactor, *address).connect(factory)
        except ConnectingCancelledError:
            raise CancelledError from None
        try:
            return await stream.answer
        finally:
            # After the answer the server needs no clean end.
            transport: Any = stream.transport
            transport.abortConnection()
            await stream.closed


def _response_code(message: dns.Message) -> int:
    upper = next((it.ttl >> 24 for it in message.additional if it.type == dns.OPT), 0)
    return upper << 4 | int(message.rCode)
