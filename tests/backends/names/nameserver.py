import socket
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any, Self

import attrs
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.names import dns, server

from tests.support.kit import free_port, reactor
from tests.support.undone import Cleans
from txmux.backends.names.question import ServerAddress

SILENCE = -1  # instead of a response code: no answer at all
HANG_UP = -3  # instead of a response code: the TCP connection is closed
GARBAGE = -2  # instead of a response code: before the answer, what is none to the question
CUT = -5  # instead of a response code: the answer is cut off, and does not say so
FLOOD = -4  # instead of a response code: the same, ten times


def a(*addresses: str, ttl: int = 30) -> list[dns.IRecord]:
    return [dns.Record_A(address, ttl) for address in addresses]


def aaaa(*addresses: str, ttl: int = 30) -> list[dns.IRecord]:
    return [dns.Record_AAAA(address, ttl) for address in addresses]


def cname(name: str, ttl: int = 30) -> list[dns.IRecord]:
    return [dns.Record_CNAME(name, ttl)]


def srv(target: str, port: int = 22, priority: int = 0, weight: int = 0, ttl: int = 30) -> Any:
    return dns.Record_SRV(priority, weight, port, target, ttl)


@attrs.define
class NameServer(server.DNSServerFactory):
    zone: dict[str, list[Any]] = attrs.field(factory=dict)  # the records of each name
    codes: dict[tuple[str, int], int] = attrs.field(factory=dict)  # answered instead
    asked: Counter[tuple[str, int]] = attrs.field(factory=Counter)  # how often, by name and type
    asked_by_tcp: Counter[tuple[str, int]] = attrs.field(factory=Counter)
    with_edns: Counter[tuple[str, int]] = attrs.field(factory=Counter)
    edns: int = dns.OK  # to questions with EDNS: a response code or SILENCE
    by_tcp: int = dns.OK  # instead of answering
    by_udp: int = dns.OK
    most_names: int = 10  # of a chain of aliases that are in one answer
    ports: list[Any] = attrs.field(factory=list)
    place: ServerAddress = ("", 0)

    def __attrs_post_init__(self) -> None:
        super().__init__()
        self.noisy = False

    @classmethod
    def started(cls, test: Cleans) -> Self:
        made = cls()
        made.listen()
        test.addCleanup(made.stop)
        return made

    def listen(self, host: str = "127.0.0.1") -> None:
        """Listen on a port that is free for UDP and TCP, and that nobody else gets when it stops listening."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        has_both = False
        while not has_both:
            port = free_port(host, family, socket.SOCK_DGRAM)
            with suppress(CannotListenError):
                udp = reactor.listenUDP(port, dns.DNSDatagramProtocol(self), interface=host)
                self.ports.append(udp)
                self.ports.append(reactor.listenTCP(port, self, interface=host))
                self.place = (host, port)
                has_both = True

    @property
    def shown(self) -> str:
        return "{}:{}".format(*self.place)

    def stop(self) -> Any:
        for connection in self.connections:
            connection.transport.abortConnection()
        ports, self.ports = self.ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    def fail(self, name: str, code: int, *kinds: int) -> None:
        for kind in kinds or (dns.A, dns.AAAA, dns.SRV):
            self.codes[name, kind] = code

    def handleQuery(self, message: Any, protocol: Any, address: Any) -> None:
        query = message.queries[0]
        question = (str(query.name).lower(), query.type)
        self.asked[question] += 1
        if address is None:
            self.asked_by_tcp[question] += 1
        options = [it for it in message.additional if it.type == dns.OPT]
        if options:
            self.with_edns[question] += 1
        code = self.codes.get(question, self.by_udp if address else self.by_tcp)
        if options and self.edns:
            code = self.edns
        if code == HANG_UP:
            protocol.transport.abortConnection()
        if code in {HANG_UP, SILENCE}:
            return
        if code in {GARBAGE, FLOOD}:
            for _ in range(1 if code == GARBAGE else 10):
                self._send_garbage(message, protocol, address)
            code = dns.OK
        is_cut, code = code == CUT, max(code, dns.OK)
        records = [] if code else self._records(*question)
        if not code and question[0] not in self.zone:
            code = dns.ENAME
        # A message with a size is cut off there, and says so.
        size = 0 if address is None or is_cut else max(512, *(it.cls for it in options), 0)
        reply: Any = dns.Message(message.id, answer=1, rCode=code & 15, maxSize=size)
        reply.queries = message.queries
        if options:
            upper = dns.RRHeader(b"", dns.OPT, 4096, code >> 4 << 24, dns.UnknownRecord(b""))
            reply.additional = [upper]
        reply.answers = records
        reply.toStr = partial(bytes, reply.toStr()[: -16 if is_cut and records else None])
        protocol.writeMessage(reply, *filter(None, [address]))

    def _records(self, name: str, kind: int) -> list[dns.RRHeader]:
        found = []
        for _ in range(self.most_names):
            records = [it for it in self.zone.get(name, ()) if it.TYPE in {kind, dns.CNAME}]
            found += [dns.RRHeader(name, it.TYPE, dns.IN, it.ttl, it) for it in records]
            if not records or records[0].TYPE != dns.CNAME:
                break
            name = str(records[0].name)
        return found

    def _send_garbage(self, message: Any, protocol: Any, address: Any) -> None:
        other_id = dns.Message(message.id ^ 1, answer=1, rCode=dns.ESERVER)
        other_id.queries = message.queries
        other_name = dns.Message(message.id, answer=1, rCode=dns.OK)
        other_name.queries = [dns.Query("other.test", dns.A)]
        query = dns.Message(message.id)
        query.queries = message.queries
        for wrong in (other_id, other_name, query):
            protocol.writeMessage(wrong, *filter(None, [address]))
        if address is not None:
            protocol.transport.write(b"\x00", address)
