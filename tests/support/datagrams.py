from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.peers import reactor
from txmux.rules.model import Listener, Route
from txmux.tcp.listener import MuxFactory
from txmux.telemetry.access_log import AccessLog
from txmux.udp import ancillary
from txmux.udp.listener import UDPListener

Address = tuple[str, int]


async def turn(times: int = 1) -> None:
    for _ in range(times):
        await deferLater(reactor, 0.01)


def udp_listener(
    routes: Iterable[Route], settings: Listener, reactor: Any, access_log: AccessLog | None = None
) -> UDPListener:
    # Makes the configuration, and what it needs.
    mux = MuxFactory(routes, settings, reactor=reactor)
    return UDPListener(mux.configuration, mux.runtime, mux.upstreams, access_log)


class Talker(DatagramProtocol):
    def __init__(self, answer: Callable[[bytes], bytes] = lambda _: b"") -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self.senders: list[Address] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []

    @classmethod
    def listening(
        cls, test: TestCase, host: str = "127.0.0.1", port: int = 0, **options: Any
    ) -> "Talker":
        talker = cls(**options)
        bound: Any = reactor.listenUDP(port, talker, host, maxPacketSize=65535)
        test.addCleanup(bound.stopListening)
        return talker

    @property
    def port(self) -> int:
        transport: Any = self.transport
        return int(transport.getHost().port)

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        self.heard.append(datagram)
        self.senders.append(addr)
        answer = self.answer(datagram)
        if answer:
            self.say(answer, addr[1], addr[0])
        for count, waiting in [*self._waiting]:
            if len(self.heard) >= count:
                self._waiting.remove((count, waiting))
                waiting.callback(None)

    def say(self, data: bytes, port: int, host: str = "127.0.0.1") -> None:
        transport: Any = self.transport
        transport.write(data, (host, port))

    def bulk(self, data: bytes, size: int, port: int) -> None:
        transport: Any = self.transport
        least = min(ancillary.MOST_AT_ONCE, ancillary.MOST_BYTES_AT_ONCE // size) * size
        for start in range(0, len(data), least):
            transport.socket.sendmsg(
                [data[start : start + least]], ancillary.cut_into(size), 0, ("127.0.0.1", port)
            )

    async def hears(self, count: int) -> list[bytes]:
        if len(self.heard) < count:
            waiting: Deferred[None] = Deferred()
            self._waiting.append((count, waiting))
            await waiting
        return self.heard

    async def asks(self, data: bytes, port: int, host: str = "127.0.0.1") -> bytes:
        self.say(data, port, host)
        return (await self.hears(len(self.heard) + 1))[-1]

    async def repeats(self, data: bytes, port: int, times: int = 10) -> None:
        for _ in range(times):
            self.say(data, port)
            await turn()

    async def insists(self, data: bytes, port: int) -> None:
        count = len(self.heard)
        while len(self.heard) == count:
            self.say(data, port)
            await turn()
