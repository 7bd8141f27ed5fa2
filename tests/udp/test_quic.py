from __future__ import annotations

import hashlib
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

from tests.backends.pool.test_balance import order
from tests.support.certificates import make_authority
from tests.support.changes import change_constants
from tests.support.datagrams import Talker, turn
from tests.support.peers import reactor
from tests.udp.flow_case import LISTEN, FlowCase
from txmux.udp import migration

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


_RULES = f"""{LISTEN}[route site]
match = quic sni=*.example.com
backend = udp:127.0.0.1:%d
[route other]
match = quic
backend = udp:127.0.0.1:%d
"""
_HASHED = f"""{LISTEN}[route site]
match = quic
backend = b
[backend b]
server = %s
balance = sni-hash
"""
_GIVEN = hashlib.shake_128(b"given").digest(600_000)


class QuicTests(FlowCase):
    def begin_site(self) -> tuple[QuicServer, Talker, int]:
        server, other = QuicServer(self, _GIVEN), Talker.listening(self)
        [port] = self.run_service(_RULES % (server.listen(), other.port))
        return server, other, port

    async def test_client_is_routed_by_name_and_gets_all_bytes(self) -> None:
        server, _, port = self.begin_site()
        client = QuicClient(self)
        client.ask(port)
        self.assertEqual(await client.whole, _GIVEN)
        self.assertEqual(len(set(server.senders)), 1)
        [line] = await self.stopped()
        facts = line["facts"]
        assert isinstance(facts, dict)
        self.assertEqual(
            (line["route"], facts["sni"], facts["quic"]), ("site", "www.example.com", "1")
        )

    async def test_other_name_gets_the_datagram_as_it_came(self) -> None:
        server, other, port = self.begin_site()
        QuicClient(self).ask(port, "www.example.org")
        [first, *_] = await other.hears(1)
        self.assertEqual((len(first), first[0] & 0xC0, server.senders), (1200, 0xC0, []))

    async def test_sni_hash(self) -> None:
        servers = [Talker.listening(self) for _ in range(4)]
        lines = "\n    ".join(f"udp:127.0.0.1:{server.port}" for server in servers)
        [port] = self.run_service(_HASHED % lines)
        texts = {f"udp:127.0.0.1:{server.port}": server for server in servers}
        names = [f"{letter}.example.com" for letter in "abcdef"]
        for name in names:
            server = texts[order("sni-hash", name, dict.fromkeys(texts, 1))[0]]
            before = {*server.senders}
            QuicClient(self).ask(port, name)
            while {*server.senders} == before:  # what others say again is not it
                await turn()
        for line in await self.stopped(len(names)):
            facts = line["facts"]
            assert isinstance(facts, dict)
            expected = order("sni-hash", facts["sni"], dict.fromkeys(texts, 1))[0]
            self.assertEqual(line["server"], expected)

    async def test_client_that_changes_its_port_twice_gets_the_rest(self) -> None:
        change_constants(self, migration, SILENCE=0.1)
        server, other, port = self.begin_site()
        client = QuicClient(self)
        client.ask(port)
        client.keep_alive()
        for part in (1, 2):
            await client.has(len(_GIVEN) * part // 3)
            client.listen()
        self.assertEqual(await client.whole, _GIVEN)
        self.assertEqual((len(set(server.senders)), other.heard), (1, []))
        [line] = await self.stopped()
        facts = line["facts"]
        assert isinstance(facts, dict)
        self.assertIn("moved_to", facts)

    async def test_client_that_gets_other_ip_addresses_gets_the_rest(self) -> None:
        """With nothing to say at each but that it has got what it has, once."""
        server, other, port = self.begin_site()
        client = QuicClient(self)
        client.moves = [(len(_GIVEN) * part // 3, f"127.0.0.{1 + part}") for part in (1, 2)]
        client.ask(port)
        self.assertEqual(await client.whole, _GIVEN)
        self.assertEqual((len(set(server.senders)), other.heard), (3, []))
