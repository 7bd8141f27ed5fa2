"""QUIC clients and servers that speak by ports of the reactor."""

from __future__ import annotations

import ssl
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, StreamDataReceived
from aioquic.quic.packet import pull_quic_header
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from tests.support.certificates import make_authority
from tests.support.peers import reactor

Address = tuple[str, int]


class _Ear(DatagramProtocol):
    """A port of an end, as long as it is the one that it has."""

    def __init__(self, end: _End) -> None:
        self._end = end

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        if self._end.ear is self:
            self._end.hears(datagram, addr)


class _End:
    def __init__(self, test: TestCase) -> None:
        self._test = test
        self._port: Any = None
        self._timer: IDelayedCall | None = None
        self.ear: _Ear | None = None
        self.connection: Any = None
        test.addCleanup(self._stop)

    def listen(self, host: str = "127.0.0.1") -> int:
        if self._port is not None:
            self._port.stopListening()
        self.ear = _Ear(self)
        self._port = reactor.listenUDP(0, self.ear, host, maxPacketSize=65535)
        return int(self._port.getHost().port)

    def _stop(self) -> Any:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.connection = None
        return self._port.stopListening()

    def hears(self, datagram: bytes, addr: Address) -> None:
        if self.connection is not None:
            self.connection.receive_datagram(datagram, addr, now=reactor.seconds())
            self.go_on()

    def go_on(self) -> None:
        connection = self.connection
        while (event := connection.next_event()) is not None:
            self.happened(event)
        for data, address in connection.datagrams_to_send(now=reactor.seconds()):
            self._port.write(data, address)
        at = None if self.connection is None else connection.get_timer()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if at is not None:
            self._timer = reactor.callLater(max(0.0, at - reactor.seconds()), self._woken)

    def _woken(self) -> None:
        self.connection.handle_timer(now=reactor.seconds())
        self.go_on()

    def happened(self, event: Any) -> None:
        """Act on an event."""


class QuicServer(_End):
    def __init__(self, test: TestCase, given: bytes) -> None:
        super().__init__(test)
        self._given = given
        self.senders: list[Address] = []

    def hears(self, datagram: bytes, addr: Address) -> None:
        self.senders.append(addr)
        if self.connection is None:
            identity = make_authority().issue("www.example.com")
            header = pull_quic_header(Buffer(data=datagram), host_cid_length=8)
            self.connection = QuicConnection(
                configuration=QuicConfiguration(
                    is_client=False,
                    alpn_protocols=["h3"],
                    certificate=identity.certificate,
                    private_key=identity.key,
                ),
                original_destination_connection_id=header.destination_cid,
            )
        super().hears(datagram, addr)

    def happened(self, event: Any) -> None:
        if isinstance(event, StreamDataReceived) and event.end_stream:
            self.connection.send_stream_data(event.stream_id, self._given, end_stream=True)


class QuicClient(_End):
    def __init__(self, test: TestCase) -> None:
        super().__init__(test)
        self.got = bytearray()
        self.whole: Deferred[bytes] = Deferred()
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self.moves: list[tuple[int, str]] = []
        """When it has so many bytes, it gets another address, before it says that it has got the last of them."""

    def ask(self, port: int, name: str = "www.example.com") -> None:
        self.connection = QuicConnection(
            configuration=QuicConfiguration(
                is_client=True, alpn_protocols=["h3"], server_name=name, verify_mode=ssl.CERT_NONE
            )
        )
        self.listen()
        self.connection.connect(("127.0.0.1", port), now=reactor.seconds())
        self.go_on()

    def keep_alive(self) -> None:
        """Say something twenty times a second, as browsers do while they wait for something."""

        def ping() -> None:
            self.connection.send_ping(0)
            self.go_on()

        looping = LoopingCall(ping)
        self._test.addCleanup(looping.stop)
        looping.start(0.05)

    async def has(self, count: int) -> None:
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        await waiting

    def happened(self, event: Any) -> None:
        if isinstance(event, HandshakeCompleted):
            stream = self.connection.get_next_available_stream_id()
            self.connection.send_stream_data(stream, b"please", end_stream=True)
        if isinstance(event, StreamDataReceived):
            self.got += event.data
            if self.moves and len(self.got) >= self.moves[0][0]:
                self.listen(self.moves.pop(0)[1])
            for count, waiting in [*self._waiting]:
                if len(self.got) >= count:
                    self._waiting.remove((count, waiting))
                    reactor.callLater(0, waiting.callback, None)
            if event.end_stream:
                reactor.callLater(0, self.whole.callback, bytes(self.got))
