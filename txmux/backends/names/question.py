"""Queries to name servers (RFC 1035, section 4, and RFC 6891): over UDP, and again over TCP if the answer is too long."""

import errno
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import attrs
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import Factory
from twisted.names import dns
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from txmux.backends.names.dns_codes import code_name
from txmux.classes import define
from txmux.errors import MuxError, cause_of
from txmux.net.sockets.descriptors import SHORTAGE
from txmux.telemetry.sources import Source
from txmux.transport import bracketed

ServerAddress = tuple[str, int]  # the IP address and the port of a name server
_PATIENCE = (1.0, 3.0)
"""Seconds that each server has for its answer, in the first round and in the second."""

_MOST_AT_ONCE = 200  # queries that are open at the same time: two for a name; each has a socket
_UDP_SIZE = 1232
"""Bytes of the longest answer over UDP: what passes every network without fragments (DNS flag day 2020)."""

_MOST_DATAGRAM = 4096  # bytes of an answer over UDP that are looked at
_MOST_READ = 10  # messages with the number of a query that are looked at: each may take 10 ms
_MOST_WAITING = 256  # datagrams that are read once the time of a query is over
_AGAIN = 10.0  # seconds until a name server without an answer is asked again whether it has one

_WITHOUT_EDNS = {dns.EFORMAT, dns.ENOTIMP, dns.EBADVERSION}
"""Response codes of a server that does not know EDNS (RFC 6891, section 7), or another version of it."""


class LookupFailedError(MuxError):
    """A name could not be looked up."""


class ServerFailureError(LookupFailedError):
    """A name server has failed for this name (SERVFAIL and the like), and no other has an answer."""


class _QueryError(Exception):
    """A server gave no usable answer."""


class _FailureAnswerError(_QueryError):
    """The server has answered with a code that says nothing about the name."""


class _StreamError(_QueryError):
    """The answer over TCP is incomplete; some firewalls block it."""


class _QueryTimeoutError(_QueryError):
    """The server has not answered, but may do so in the next round."""


class _Response(dns.Message):
    # An answer of 64 KiB has up to 4,000 records, each of which may have a pointer.
    maxCompressionPointers = 20_000


@define
class _DnsQuery:
    """One query to one server; its name is in lower case and without the final dot."""

    name: bytes
    kind: int
    edns: bool  # some old servers and firewalls drop such queries
    number: int = attrs.field(factory=lambda: secrets.randbelow(1 << 16))
    _read: int = attrs.field(default=0, init=False)

    def encoded(self) -> bytes:
        message = dns.Message(self.number, recDes=1)
        message.addQuery(self.name, self.kind)
        if self.edns:
            # The OPT pseudo-record of RFC 6891, section 6.1.2: its class is the size.
            empty = dns.UnknownRecord(b"")
            message.additional = [dns.RRHeader(b"", dns.OPT, _UDP_SIZE, 0, empty)]
        return message.toStr()

    def answer(self, data: bytes, *, is_stream: bool = False) -> dns.Message | None:
        """Read a message; ``None`` if it is no answer to this query, and `_QueryError` after too many such, or of one by TCP that is cut off."""
        if data[:2] != self.number.to_bytes(2, "big"):
            return None
        if self._read >= _MOST_READ:
            raise _QueryError("its answers are to other questions")
        self._read += 1
        message = _Response()
        try:
            message.fromStr(data)
        except Exception:  # noqa: BLE001 - each type of record has a decoder, and each its own errors
            return None
        if not message.answer:
            return None
        queries = [(query.name.name.lower(), query.type) for query in message.queries]
        # A server that could not read the query may not repeat it.
        if queries != [(self.name, self.kind)] and (queries or message.rCode == dns.OK):
            return None
        if len(message.answers) != int.from_bytes(data[6:8], "big"):  # Twisted leaves out the rest
            if is_stream:
                raise _QueryError("its answer is not whole")
            message.trunc = 1
        return message


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
            message = self._question.answer(self._socket.recv(_MOST_DATAGRAM))
        except BlockingIOError:  # its checksum was wrong
            return
        except OSError as error:
            self._fail(error.errno)
        except _QueryError as error:
            self.answer.errback(error)
        else:
            if message is not None:
                self.answer.callback(message)

    def received(self) -> dns.Message | None:
        """Return the answer that has come, and is not read yet; it may be an `OSError` or a `_QueryError`."""
        with suppress(BlockingIOError):
            for _ in range(_MOST_WAITING):
                message = self._question.answer(self._socket.recv(_MOST_DATAGRAM))
                if message is not None:
                    return message
        return None

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002 - the interface's
        self._fail(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _fail(self, number: int | None) -> None:
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
        if self.answer.called:
            return
        try:
            message = self._question.answer(string, is_stream=True)
        except _QueryError as error:
            self.answer.errback(error)
            return
        if message is not None:
            self.answer.callback(message)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002 - the interface's
        if not self.answer.called:
            self.answer.errback(_QueryError("has closed the connection"))
        self.closed.callback(None)


class _TrackedServer:
    """Whether one name server answers.

    Any answer is a good one, but a refusal from one that has never given another: what an answer says is about the name.
    No answer may be the fault of the servers of the name's domain, and clients choose names. So the server is asked about
    the root then, and fails only if that has no answer, too.
    """

    def __init__(self, reactor: Any, address: ServerAddress, source: Source) -> None:
        self._reactor = reactor
        self._address = address
        self.source = source
        self._answered_at = 0.0
        self._probe: Deferred[None] | None = None
        self._due: IDelayedCall | None = None
        self._is_stopped = False

    async def ask(self, query: _DnsQuery, seconds: float, *, is_probe: bool = False) -> dns.Message:
        asked_at = self._reactor.seconds()
        self.source.requested()
        try:
            message = await _query(self._reactor, self._address, query, seconds)
        except (defer.TimeoutError, _StreamError) as error:
            if is_probe and self._answered_at <= asked_at:
                is_late = isinstance(error, defer.TimeoutError)
                self._failed(f"no answer within {seconds:g} s" if is_late else str(error))
            else:
                if self._answered_at <= asked_at and self._due is None:
                    self._probe_now()
                self.source.dropped()
            raise
        except (_QueryError, OSError) as error:
            if getattr(error, "errno", None) in SHORTAGE:  # of this machine
                self.source.dropped()
            else:
                self._failed(cause_of(error))
            raise
        except CancelledError:
            self.source.dropped()
            raise
        if _response_code(message) == dns.EREFUSED and self.source.state().age is None:
            self._failed("it answers REFUSED")
        else:
            self._answered_at = self._reactor.seconds()
            self.source.answered()
        return message

    def _failed(self, why: str) -> None:
        self.source.failed(why)
        if self._due is None and not self._is_stopped:
            self._due = self._reactor.callLater(_AGAIN, self._probe_again)

    def _probe_again(self) -> None:
        self._due = None
        if not self.source.up:
            self._probe_now()

    def _probe_now(self) -> None:
        if self._probe is None and not self._is_stopped:
            probe = Deferred.fromCoroutine(self._ask_about_root())
            if not probe.called:
                self._probe = probe

    async def _ask_about_root(self) -> None:
        with suppress(CancelledError, defer.TimeoutError, _QueryError, OSError):
            await self.ask(_DnsQuery(b"", dns.NS, edns=False), _PATIENCE[-1], is_probe=True)
        self._probe = None

    def stop(self) -> None:
        self._is_stopped = True  # a look-up may continue
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._probe is not None:
            self._probe.cancel()


class TrackedServers:
    """The name servers of a process, each shared by all look-ups."""

    def __init__(self, reactor: Any, effect: str, *, logs: bool = True) -> None:
        self._reactor = reactor
        self._effect = effect
        self._logs = logs
        self._servers: dict[ServerAddress, _TrackedServer] = {}

    def server(self, address: ServerAddress) -> _TrackedServer:
        if address not in self._servers:
            source = Source(
                "names", _shown(address), self._effect, self._reactor.seconds, logs=self._logs
            )
            self._servers[address] = _TrackedServer(self._reactor, address, source)
        return self._servers[address]

    @property
    def are_up(self) -> bool:
        return all(server.source.up for server in self._servers.values())

    def sources(self, *used: Iterable[ServerAddress]) -> Iterator[Source]:
        """Return the servers at these addresses, and forget the others."""
        for address in self._servers.keys() - {*chain(*used)}:
            self._servers.pop(address).stop()
        return (server.source for server in self._servers.values())

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers.clear()


class NameServers:
    """Queries one name server after another."""

    def __init__(self, reactor: Any, tracked: TrackedServers | None = None) -> None:
        self._reactor = reactor
        self._tracked = tracked
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
                said = " answered" if isinstance(answer, _FailureAnswerError) else ":"
                why = f"the name server {_shown(address)}{said} {cause_of(answer)}"
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
        if self._tracked is None:
            message = await _query(self._reactor, address, query, seconds)
        else:
            message = await self._tracked.server(address).ask(query, seconds)
        code = _response_code(message)
        if code in {dns.OK, dns.ENAME}:
            return message
        if query.edns and code in _WITHOUT_EDNS:
            return await self._ask_one(address, attrs.evolve(query, edns=False), seconds)
        raise _FailureAnswerError(code_name(code))


def _shown(address: ServerAddress) -> str:
    host, port = address
    return f"{bracketed(host)}:{port}"


async def _query(
    reactor: Any, address: ServerAddress, query: _DnsQuery, seconds: float
) -> dns.Message:
    message = await _over_udp(reactor, address, query, seconds)
    if not message.trunc:
        return message
    asking = Deferred.fromCoroutine(_over_tcp(reactor, address, query))
    try:
        return await asking.addTimeout(_PATIENCE[-1], reactor)
    except (_QueryError, ConnectError, OSError) as error:
        raise _StreamError(cause_of(error)) from None


async def _over_tcp(reactor: Any, address: ServerAddress, query: _DnsQuery) -> dns.Message:
    stream = _TcpQuery(query)
    factory = Factory.forProtocol(lambda: stream)
    factory.noisy = False  # or Twisted would log each query
    try:
        await TCP4ClientEndpoint(reactor, *address).connect(factory)
    except ConnectingCancelledError:
        raise CancelledError from None
    try:
        return await stream.answer
    finally:
        # Once it has answered, the connection need not be closed cleanly.
        transport: Any = stream.transport
        transport.abortConnection()
        await stream.closed


async def _over_udp(
    reactor: Any, address: ServerAddress, query: _DnsQuery, seconds: float
) -> dns.Message:
    datagrams = _UdpQuery(reactor, address, query)
    try:
        return await datagrams.answer.addTimeout(seconds, reactor)
    except defer.TimeoutError:
        # After a long turn of the loop, the timer comes before what has been received meanwhile.
        if (message := datagrams.received()) is not None:
            return message
        raise
    finally:
        datagrams.close()


def _response_code(message: dns.Message) -> int:
    upper = next((it.ttl >> 24 for it in message.additional if it.type == dns.OPT), 0)
    return upper << 4 | int(message.rCode)
