from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.support.mux import MuxTestCase
from tests.wire.proxyprotocol.vectors import (
    DESTINATION,
    SOURCE,
    V2_WITH_CHECKSUM,
    address,
)
from txmux.rules.embedding import route
from txmux.rules.model import Clients, NetworkSet, Senders, UnixClients
from txmux.tcp.stages import reading_proxy_header
from txmux.tcp.stages.reading_proxy_header import is_sender
from txmux.wire.proxyprotocol.decode import decode
from txmux.wire.proxyprotocol.encode import encode_ssl, encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import Command, ProxyHeader, SslClient, SslInfo, Tlv, TlvType

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

    async def test_v4_mapped_address_is_its_ipv4_address(self) -> None:
        routes = [route("any", "close", name="here", from_=["192.0.2.0/24"])]
        port = self.mux(routes, accept_proxy_from=SENDERS)
        client = await self.connect(port)
        header = ProxyHeader.between(
            address("::ffff:192.0.2.7", 1000), address("::ffff:192.0.2.1", 443)
        )
        client.send(encode_v2(header) + b"x")
        await self.assert_ended(
            client, client="192.0.2.7:1000", local="192.0.2.1:443", route="here"
        )

    async def test_routes_see_the_real_address(self) -> None:
        routes = [
            route("any", "close", name="sender", from_=["127.0.0.0/8"]),
            route("any", "close", name="client", from_=["192.168.0.1"]),
        ]
        await self.connect_until_lost(self.mux(routes, accept_proxy_from=SENDERS), LINE + b"x")
        await self.assert_logged(route="client")

    async def test_admission_sees_the_real_address(self) -> None:
        for number, (clients, reason) in enumerate(
            [
                (Clients(excluded=NetworkSet([ip_network("192.168.0.0/24")])), "denied"),
                (Clients(allowed=SENDERS), "denied"),
                (Clients(excluded=SENDERS), "no-route"),
                (Clients(allowed=NetworkSet([ip_network("192.168.0.1")])), "no-route"),
            ],
            1,
        ):
            port = self.ssh_mux(accept_proxy_from=SENDERS, clients=clients)
            await self.connect_until_lost(port, LINE + b"xxx")
            await self.assert_logged(number, reason=reason, client=str(SOURCE))
        self.assertEqual(self.backend.peers, [])

    async def test_connection_counts_once_from_its_header_on(self) -> None:
        port = self.ssh_mux(accept_proxy_from=SENDERS, max_connections=1)
        first = await self.connect(port, LINE + b"SSH-2.0-")
        await self.backend.peer()
        await self.connect_until_lost(port, LINE)
        await self.assert_logged(reason="limit", client=str(SOURCE))
        first.close()
        (await self.backend.peer()).close()
        await self.logged(2)
        await self.connect(port, LINE + b"SSH-2.0-")
        await self.backend.peer(1)

    async def test_fields_become_printable_facts(self) -> None:
        ssl = SslInfo(
            SslClient.SSL | SslClient.CERT_CONN,
            0,
            (
                Tlv(TlvType.SSL_VERSION, b"TLSv1.3"),
                Tlv(TlvType.SSL_CN, b"J\xc3\xbcrgen"),
                Tlv(TlvType.SSL_CIPHER, b"TLS_AES_128_GCM_SHA256"),
            ),
        )
        tlvs = (
            Tlv(TlvType.ALPN, b"h2"), Tlv(TlvType.AUTHORITY, b"www.example.com"),
            Tlv(TlvType.UNIQUE_ID, b"\x00id"), Tlv(TlvType.NOOP, b"..."), Tlv(0xE0, b"custom"),
            encode_ssl(ssl),
        )  # fmt: skip
        port = self.mux([route("ssh", "close")], accept_proxy_from=SENDERS)
        client = await self.connect(port)
        client.send(
            encode_v2(ProxyHeader.between(SOURCE, DESTINATION, tlvs), checksum=True) + b"SSH-"
        )
        await client.is_lost()
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
        port = self.mux([route("http host=here", "close")], accept_proxy_from=SENDERS)
        client = await self.connect(port)
        tlvs = (Tlv(TlvType.AUTHORITY, b"there"),)
        header = ProxyHeader.between(SOURCE, DESTINATION, tlvs)
        client.send(encode_v2(header) + b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await client.is_lost()
        facts = {**(await self.logged()).facts}
        self.assertEqual((facts["authority"], facts["host"]), ("there", "here"))

    async def test_fields_of_local_headers_are_ignored(self) -> None:
        port = self.mux([route("ssh", "close")], accept_proxy_from=SENDERS)
        client = await self.connect(port)
        header = ProxyHeader(Command.LOCAL, tlvs=(Tlv(TlvType.AUTHORITY, b"there"),))
        client.send(encode_v2(header) + b"SSH-")
        await client.is_lost()
        self.assertEqual([*(await self.logged()).facts], ["proxy_peer"])

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

    async def test_header_of_an_untrusted_client_is_payload(self) -> None:
        networks = NetworkSet([ip_network("192.0.2.0/24")])
        routes = [route("proxy", "close", name="header"), route("ssh", "close", name="ssh")]
        port = self.mux(routes, accept_proxy_from=networks)
        for number, (said, name) in enumerate([(LINE, "header"), (b"SSH-", "ssh")], 1):
            await self.connect_until_lost(port, said)
            record = await self.assert_logged(number, route=name, bytes_in=len(said))
            self.assertTrue(record.client.startswith("127.0.0.1:"))


class SenderTest(SynchronousTestCase):
    def test_networks(self) -> None:
        self.assertTrue(is_sender(IPv6Address("TCP", "::ffff:127.0.0.1", 1), SENDERS))
        self.assertFalse(is_sender(IPv4Address("TCP", "127.0.0.2", 1), SENDERS))
        self.assertFalse(is_sender(UNIXAddress(None), SENDERS))
        self.assertFalse(is_sender(UNIXAddress(None), Senders([ip_network("127.0.0.1")])))

    def test_unix(self) -> None:
        self.assertTrue(is_sender(UNIXAddress(None), Senders([UnixClients.UNIX])))
        self.assertFalse(is_sender(HostnameAddress(b"x", 1), Senders([UnixClients.UNIX])))
