from __future__ import annotations

import contextlib
import itertools
import select
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.net.relay.reactors import PrivateReactor
from tests.support.examples import scaled
from tests.support.kit import PATIENCE, Peer, close
from tests.support.mux import ListLog, MuxTestCase, backend_at
from tests.wire.proxyprotocol.test_codec_properties import PAYLOADS, WITH_ENCODED
from tests.wire.proxyprotocol.vectors import DESTINATION, SIGNATURE, SOURCE, V2_WITH_CHECKSUM
from txmux.rules.embedding import route
from txmux.rules.model import Clients, Listener, NetworkSet, Senders, UnixClients
from txmux.tcp.listener import MuxFactory
from txmux.tcp.stages import reading_proxy_header
from txmux.tcp.stages.reading_proxy_header import is_sender
from txmux.telemetry.record import ConnectionRecord
from txmux.transport import unmapped
from txmux.wire.proxyprotocol.decode import Decoded, decode, parse_ssl
from txmux.wire.proxyprotocol.encode import encode_ssl, encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import (
    Address,
    Command,
    InvalidHeader,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
)

SENDERS = NetworkSet([ip_network("127.0.0.1")])
LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"


class AcceptedTest(MuxTestCase):
    async def test_header_and_payload_may_come_byte_by_byte(self) -> None:
        """Of version 2, it is read when its length is known, and when it is whole."""
        port, lengths = self.ssh_mux(accept_proxy_from=SENDERS), list[int]()

        def counted(data: bytes) -> Any:
            lengths.append(len(data))
            return decode(data)

        self.patch(reading_proxy_header, "decode", counted)
        client = await self.connect(port)
        for byte in [*V2_WITH_CHECKSUM, *b"SSH-2.0-"]:
            client.send(bytes([byte]))
            await self.turn(2)
        server = await self.backend.heard(8)
        self.assertEqual(bytes(server.received), b"SSH-2.0-")
        self.assertLessEqual(len([one for one in lengths if one > 16]), 1)

    async def test_routes_see_the_real_address_of_trusted_senders_alone(self) -> None:
        """The header of an untrusted client is payload."""
        routes = [
            route("any", "close", name="sender", from_=["127.0.0.0/8"]),
            route("any", "close", name="client", from_=["192.168.0.1"]),
        ]
        await self.connect_until_lost(self.mux(routes, accept_proxy_from=SENDERS), LINE + b"x")
        await self.assert_logged(route="client")
        networks = NetworkSet([ip_network("192.0.2.0/24")])
        routes = [route("proxy", "close", name="header"), route("ssh", "close", name="ssh")]
        port = self.mux(routes, accept_proxy_from=networks)
        for number, (said, name) in enumerate([(LINE, "header"), (b"SSH-", "ssh")], 2):
            await self.connect_until_lost(port, said)
            record = await self.assert_logged(number, route=name, bytes_in=len(said))
            self.assertTrue(record.client.startswith("127.0.0.1:"))

    async def test_admission_sees_the_real_address(self) -> None:
        rows = [
            (Clients(excluded=NetworkSet([ip_network("192.168.0.0/24")])), "denied"),
            (Clients(allowed=SENDERS), "denied"), (Clients(excluded=SENDERS), "no-route"),
            (Clients(allowed=NetworkSet([ip_network("192.168.0.1")])), "no-route"),
        ]  # fmt: skip
        for number, (clients, reason) in enumerate(rows, 1):
            port = self.ssh_mux(accept_proxy_from=SENDERS, clients=clients)
            await self.connect_until_lost(port, LINE + b"xxx")
            await self.assert_logged(number, reason=reason, client=str(SOURCE))
        self.assertEqual(self.backend.peers, [])

    async def test_connection_counts_once_from_its_header_on(self) -> None:
        limits = {"max_connections": 1, "max_connections_per_source": 1}
        port = self.ssh_mux(accept_proxy_from=SENDERS, **limits)
        for _ in range(2):  # as long as they have told of nobody, nobody is counted
            await self.connect(port)
        first = await self.connect(port, LINE + b"SSH-2.0-")
        await self.backend.peer()
        await self.connect_until_lost(port, LINE)
        await self.assert_logged(reason="limit", client=str(SOURCE))
        close(first, await self.backend.peer())
        await self.logged(2)
        await self.connect(port, LINE + b"SSH-2.0-")
        await self.backend.peer(1)

    async def test_fields_become_printable_facts(self) -> None:
        name, cipher = b"J\xc3\xbcrgen", Tlv(TlvType.SSL_CIPHER, b"TLS_AES_128_GCM_SHA256")
        parts = Tlv(TlvType.SSL_VERSION, b"TLSv1.3"), Tlv(TlvType.SSL_CN, name), cipher
        ssl = SslInfo(SslClient.SSL | SslClient.CERT_CONN, 0, parts)
        tlvs = (
            Tlv(TlvType.ALPN, b"h2"), Tlv(TlvType.AUTHORITY, b"www.example.com"), Tlv(TlvType.UNIQUE_ID, b"\x00id"),
            Tlv(TlvType.NOOP, b"..."), Tlv(0xE0, b"custom"), encode_ssl(ssl),
        )  # fmt: skip
        port = self.mux([route("ssh", "close")], accept_proxy_from=SENDERS)
        header = encode_v2(ProxyHeader.between(SOURCE, DESTINATION, tlvs), checksum=True)
        await self.connect_until_lost(port, header + b"SSH-")
        facts = {**(await self.logged()).facts}
        del facts["proxy_peer"]
        self.assertEqual(
            facts,
            {
                "alpn": "h2", "authority": "www.example.com", "unique_id": r"\x00id",
                "ssl_version": "TLSv1.3", "ssl_cn": r"J\xc3\xbcrgen",
                "ssl_cipher": "TLS_AES_128_GCM_SHA256", "ssl_verified": "yes",
            },
        )  # fmt: skip

    async def test_facts_of_detection_join_those_of_the_header(self) -> None:
        """Fields of LOCAL headers are ignored."""
        port = self.mux([route("http host=here", "close")], accept_proxy_from=SENDERS)
        tlvs = (Tlv(TlvType.AUTHORITY, b"there"),)
        for header, expected in self.anew((
            (ProxyHeader.between(SOURCE, DESTINATION, tlvs), "there"), (ProxyHeader(Command.LOCAL, tlvs=tlvs), None),
        )):  # fmt: skip
            said = encode_v2(header) + b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
            await self.connect_until_lost(port, said)
            facts = (await self.logged()).facts
            self.assertEqual((facts.get("authority"), facts["host"]), (expected, "here"))
            self.assertEqual({*facts} - {"authority"}, {"proxy_peer", "host", "method", "version"})

    async def test_protocol_in_process_sees_the_real_addresses(self) -> None:
        asked: list[IAddress] = []

        class Tells(Protocol):
            def connectionMade(self) -> None:
                asked.extend([self.transport.getPeer(), self.transport.getHost()])  # type: ignore[union-attr]
                self.transport.loseConnection()  # type: ignore[union-attr]

        class Tellers(ServerFactory):
            noisy = False

            def buildProtocol(self, addr: IAddress | None) -> Protocol:
                asked.append(addr)  # type: ignore[arg-type]
                return Tells()

        port = self.mux(accept_proxy_from=SENDERS, routes=[route("any", Tellers())])
        for header in (ProxyHeader.between(SOURCE, DESTINATION), ProxyHeader()):
            client = await self.connect(port, encode_v1(header) + b"x")
            own = ("127.0.0.1", client.transport.getHost().port)
            await client.is_lost()
        await self.logged(2)
        seen = [(end.host, end.port) for end in asked]  # type: ignore[attr-defined]
        real = (str(SOURCE.host), SOURCE.port)
        self.assertEqual(
            seen,
            [real, real, (str(DESTINATION.host), DESTINATION.port), own, own, ("127.0.0.1", port)],
        )

    async def introduce_after(self, seconds: float, port: int, data: bytes = b"") -> Any:
        client = await self.connect(port)
        await self.accepted()
        self.time.advance(seconds)
        client.send(LINE + data)
        await self.turn(5)
        return client

    async def test_detect_timeout_includes_the_time_of_the_header(self) -> None:
        """That may take all of it."""
        silent = {"accept_proxy_from": SENDERS, "silent": backend_at(self.backend_port())}
        client = await self.introduce_after(2, self.ssh_mux(detect_timeout=5.0, **silent))
        self.time.advance(2.9)
        await self.turn(3)
        self.assertEqual(self.backend.peers, [])
        self.time.advance(0.1)
        server = await self.backend.peer()
        await server.tell(client, b"220 welcome\r\n")
        await self.assert_closed(client, server, reason="done", detect_ms=5000.0, connect_ms=0.0)
        await self.introduce_after(2, self.ssh_mux(detect_timeout=1, **silent))
        await self.backend.peer(1)

    async def test_bytes_with_a_late_header_decide(self) -> None:
        routes = [route("payload text=ab", "close", name="ab"), route("any", "close", name="any")]
        port = self.mux(accept_proxy_from=SENDERS, routes=routes, detect_timeout=1)
        for count, (data, name) in enumerate([(b"ab", "ab"), (b"a", "any")], 1):
            client = await self.introduce_after(2, port, data)
            await self.assert_ended(client, count, route=name)


class SenderTest(SynchronousTestCase):
    def test_senders(self) -> None:
        local, unix = SENDERS, Senders([UnixClients.UNIX])
        for address, senders, expected in (
            (IPv6Address("TCP", "::ffff:127.0.0.1", 1), local, True),
            (IPv4Address("TCP", "127.0.0.2", 1), local, False), (UNIXAddress(None), local, False),
            (UNIXAddress(None), Senders([ip_network("127.0.0.1")]), False), (UNIXAddress(None), unix, True),
            (HostnameAddress(b"x", 1), unix, False),
        ):  # fmt: skip
            self.assertEqual(is_sender(address, senders), expected, (address, senders))


class RefusedTest(MuxTestCase):
    async def refused(self, *pieces: bytes, count: int = 1) -> ConnectionRecord:
        client = await self.connect(self.port)
        for piece in pieces:
            client.send(piece)
            await self.turn(2)
        await client.is_lost()
        record = await self.logged(count)
        self.assertEqual(self.backend.peers, [])
        return record

    def setUp(self) -> None:
        super().setUp()
        backend = backend_at(self.backend_port())
        leads: dict[str, Any] = {"routes": [route("any", backend)], "default": backend}
        self.port = self.mux(accept_proxy_from=SENDERS, silent=backend, **leads)

    async def test_malformed_header(self) -> None:
        addresses = "c0a80001c0a8000bdc0401bb"
        wrong = [
            b"SSH-2.0-test\r\n", b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
            *(
                SIGNATURE + bytes.fromhex(rest)
                for rest in (
                    f"1111000c{addresses}",  # version
                    f"21110013{addresses}0300041c1ae9c7",  # a wrong checksum
                    f"21110011{addresses}2000020100",  # an SSL field that is too short
                    f"21110017{addresses}2000080100000000210001",  # a field that overruns in it
                )
            ),
        ]  # fmt: skip
        begun = b"S", b"PROXY TCP5", b"\r\n\r\r", SIGNATURE + b"\x11"  # to the first wrong byte
        pieces = *((header, b"SSH-2.0-") for header in wrong), *((one,) for one in begun)
        for count, (header, *more) in enumerate(pieces, 1):
            record = await self.refused(header, *more, count=count)
            self.assert_story(record, reason="proxy-header", bytes_in=0, route=None, backend=None)
            self.assertIn("proxy_error", record.facts, header)

    async def test_header_must_be_complete_within_proxy_timeout_of_accept(self) -> None:
        for count, sent in enumerate([b"", LINE[:-1]], 1):
            client = await self.connect(self.port, sent)
            await self.accepted()
            await self.turn(5)
            self.time.advance(2.9)
            await self.turn(3)
            self.assertIsNone(client.lost)
            self.time.advance(0.2)
            record = await self.assert_ended(
                client, count, reason="proxy-header", duration_ms=3100.0
            )
            self.assertIn("3 s", record.facts["proxy_error"])
        self.assertEqual(self.backend.peers, [])

    async def test_stream_that_ends_inside_the_header(self) -> None:
        """One without a byte is no error; a drain does not wait for the header."""
        for sent, reason in ((LINE[:-1], "proxy-header"), (b"", "client-gone"), (b"", "drained")):
            for end in self.anew((Peer.finish, Peer.reset)):
                client = await self.connect(self.port, sent)
                await self.accepted()
                if reason == "drained":
                    self.factory.abort("drained")
                    await self.is_reset(client)
                else:
                    await self.turn(5)
                    end(client)
                await self.assert_logged(reason=reason)
        self.assertEqual(self.backend.peers, [])


CUTS = st.lists(st.floats(0, 1), max_size=4)


def address_of(name: tuple[str, int]) -> Address:
    return Address(ip_address(name[0]), name[1])


class AnyHeaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.private = PrivateReactor("select")
        self.addCleanup(self.private.close)
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.backend.close)
        leads_to = backend_at(self.backend.getsockname()[1], proxy_protocol="v2")
        self.log = ListLog()
        listener = Listener("public", accept_proxy_from=SENDERS)
        factory = MuxFactory(
            [route("any", leads_to)], listener, access_log=self.log, reactor=self.private.reactor
        )
        with socket.create_server(("127.0.0.1", 0)) as opened:
            self.address = opened.getsockname()
            port = factory.listen(opened)
        self.addCleanup(port.stopListening)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.private.turn()

    def check(self, header: ProxyHeader, encoded: bytes, payload: bytes, cuts: list[float]) -> None:
        records = self.log.records
        before = len(records)
        with socket.create_connection(self.address) as client:
            own = ProxyHeader.between(address_of(client.getsockname()), address_of(self.address))
            data = encoded + payload
            at = sorted({0, len(data), *(round(cut * len(data)) for cut in cuts)})
            # A header that cannot be read may be refused before all of it has been sent.
            with contextlib.nullcontext() if valid(header) else contextlib.suppress(OSError):
                for start, end in itertools.pairwise(at):
                    client.send(data[start:end])
                    for _ in range(3):
                        self.private.turn()
                client.shutdown(socket.SHUT_WR)
            if not valid(header):
                self.until(lambda: len(records) > before)
                self.assertEqual(records[-1].reason, "proxy-header")
                return
            received = self.served()
        answer = decode(received)
        assert isinstance(answer, Decoded)
        self.assertEqual(received[answer.length :], payload)
        self.assertEqual(answer.header, expected(header, own))
        self.until(lambda: len(records) > before)
        record = records[-1]
        ends = (expected(header, own).source, expected(header, own).destination)
        shown = [str(attrs.evolve(end, host=unmapped(end.host))) for end in ends if end]
        self.assertEqual([record.client, record.local], shown)
        self.assertEqual((record.bytes_in, record.reason), (len(payload), "done"))
        self.assertEqual(record.facts["proxy_peer"], str(own.source))

    def served(self) -> bytes:
        def ready(one: socket.socket) -> socket.socket:
            self.until(lambda: bool(select.select([one], (), (), 0)[0]))
            return one

        received = b""
        with ready(self.backend).accept()[0] as accepted:
            while data := ready(accepted).recv(65536):
                received += data
        return received

    @settings(deadline=None, max_examples=scaled(180))
    @given(WITH_ENCODED, PAYLOADS.filter(bool), CUTS)
    def test_every_header(
        self, encoded: tuple[ProxyHeader, bytes], payload: bytes, cuts: list[float]
    ) -> None:
        self.check(*encoded, payload, cuts)


def valid(header: ProxyHeader) -> bool:
    """Tell whether the SSL field of a header, which counts for a client's connection alone, can be read."""
    ssl = header.value_of(TlvType.SSL)
    if ssl is None or header.command is Command.LOCAL:
        return True
    try:
        parse_ssl(ssl)
    except InvalidHeader:
        return False
    return True


def expected(header: ProxyHeader, own: ProxyHeader) -> ProxyHeader:
    """Give the header that must come out."""
    if header.command is Command.LOCAL:
        return own
    tlvs = tuple(tlv for tlv in header.tlvs if tlv.type != TlvType.NOOP)
    if header.source is None or header.destination is None:
        return attrs.evolve(own, tlvs=tlvs)
    source, destination = (
        attrs.evolve(end, host=unmapped(end.host)) for end in (header.source, header.destination)
    )
    return ProxyHeader.between(source, destination, tlvs)
