"""Connections that begin with a PROXY protocol header."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.proxyprotocol.vectors import (
    DESTINATION,
    IPV4,
    SIGNATURE,
    SOURCE,
    V1,
    V2,
    V2_WITH_CHECKSUM,
    address,
)
from tests.support.mux import MuxTestCase, backend_at
from txmux.embedding import route
from txmux.frontend.introduction import is_sender
from txmux.proxyprotocol.encode import encode_ssl, encode_v1, encode_v2
from txmux.proxyprotocol.header import Command, Header, SslClient, SslInfo, Tlv, TlvType
from txmux.rules.networks import NetworkSet
from txmux.rules.senders import Senders, Unix

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IAddress

    from txmux.observe.record import ConnectionRecord

SENDERS = NetworkSet([ip_network("127.0.0.1")])
LINE = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"


class IntroducedTestCase(MuxTestCase):
    """Every client of the multiplexer has to begin with a header."""

    def introduced_mux(self, routes: Iterable[Any] | None = None, **settings: Any) -> int:
        """Listen with a multiplexer that leads SSH to the test's backend, unless it is told otherwise."""
        if routes is None:
            routes = [route("ssh", backend_at(self.backend_port()), name="ssh")]
        return self.mux(routes, accept_proxy_from=SENDERS, **settings)


class AcceptedTest(IntroducedTestCase):
    """Headers as they should be."""

    async def check(self, encoded: bytes, header: Header, port: int, number: int) -> None:
        """Check each cut of a header, with the client's bytes right behind it."""
        for cut in range(1, len(encoded) + 1):
            client = await self.connect(port)
            own = "127.0.0.1:" + str(client.transport.getHost().port)
            client.send(encoded[:cut])
            await self.turn(3)
            client.send(encoded[cut:] + b"SSH-2.0-")
            server = await self.backend.peer(number)
            await server.has(8)
            self.assertEqual(bytes(server.received), b"SSH-2.0-")
            server.close()
            await client.is_lost()
            number += 1
            record = await self.logged(number)
            self.assert_story(
                record,
                client=str(header.source or own),
                local=str(header.destination or f"127.0.0.1:{port}"),
                bytes_in=8,
                route="ssh",
                reason="done",
            )
            self.assertEqual(record.facts["proxy_peer"], own)

    async def test_every_cut(self) -> None:
        """The examples of the specification are read however they are cut; what follows is the client's."""
        port = self.introduced_mux()
        number = 0
        for encoded, header in [*V1.items(), *V2.items(), (V2_WITH_CHECKSUM, IPV4)]:
            await self.check(encoded, header, port, number)
            number += len(encoded)

    async def test_byte_by_byte(self) -> None:
        """A header may come one byte at a time, and so may what follows."""
        port = self.introduced_mux()
        client = await self.connect(port)
        for byte in [*V2_WITH_CHECKSUM, *b"SSH-2.0-"]:
            client.send(bytes([byte]))
            await self.turn(2)
        server = await self.backend.peer()
        await server.has(8)
        self.assertEqual(bytes(server.received), b"SSH-2.0-")

    async def test_v4_mapped(self) -> None:
        """A v4-mapped address is the IPv4 address that it stands for, for rules as for the log."""
        routes = [route("any", "close", name="here", from_=["192.0.2.0/24"])]
        port = self.introduced_mux(routes)
        client = await self.connect(port)
        header = Header.between(address("::ffff:192.0.2.7", 1000), address("::ffff:192.0.2.1", 443))
        client.send(encode_v2(header) + b"x")
        await client.is_lost()
        record = await self.logged()
        self.assert_story(record, client="192.0.2.7:1000", local="192.0.2.1:443", route="here")

    async def test_from(self) -> None:
        """Routes go by the real address, not by the sender's."""
        routes = [
            route("any", "close", name="sender", from_=["127.0.0.0/8"]),
            route("any", "close", name="client", from_=["192.168.0.1"]),
        ]
        port = self.introduced_mux(routes)
        client = await self.connect(port)
        client.send(LINE + b"x")
        await client.is_lost()
        self.assert_story(await self.logged(), route="client")

    async def test_allow_and_deny(self) -> None:
        """Admission goes by the real address, and asks no backend."""
        for number, (settings, reason) in enumerate(
            [
                ({"deny": NetworkSet([ip_network("192.168.0.0/24")])}, "denied"),
                ({"allow": SENDERS}, "denied"),
                ({"deny": SENDERS}, "no-route"),
                ({"allow": NetworkSet([ip_network("192.168.0.1")])}, "no-route"),
            ],
            1,
        ):
            port = self.introduced_mux(**settings)
            client = await self.connect(port)
            client.send(LINE + b"xxx")
            await client.is_lost()
            self.assert_story(await self.logged(number), reason=reason, client=str(SOURCE))
        self.assertEqual(self.backend.peers, [])

    async def test_limit(self) -> None:
        """A connection counts from its header on, and once."""
        port = self.introduced_mux(max_connections=1)
        first = await self.connect(port)
        first.send(LINE + b"SSH-2.0-")
        await self.backend.peer()
        second = await self.connect(port)
        second.send(LINE)
        await second.is_lost()
        self.assert_story(await self.logged(), reason="limit", client=str(SOURCE))
        first.close()
        (await self.backend.peer()).close()
        await self.logged(2)
        third = await self.connect(port)
        third.send(LINE + b"SSH-2.0-")
        await self.backend.peer(1)

    async def test_fields(self) -> None:
        """What a header tells beside the addresses is in the facts, and as safe there as anything else."""
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
            Tlv(TlvType.ALPN, b"h2"),
            Tlv(TlvType.AUTHORITY, b"www.example.com"),
            Tlv(TlvType.UNIQUE_ID, b"\x00id"),
            Tlv(TlvType.NOOP, b"..."),
            Tlv(0xE0, b"custom"),
            encode_ssl(ssl),
        )
        port = self.introduced_mux([route("ssh", "close")])
        client = await self.connect(port)
        client.send(encode_v2(Header.between(SOURCE, DESTINATION, tlvs), checksum=True) + b"SSH-")
        await client.is_lost()
        facts = (await self.logged()).facts
        del facts["proxy_peer"]
        self.assertEqual(
            facts,
            {
                "alpn": "h2",
                "authority": "www.example.com",
                "unique_id": r"\x00id",
                "ssl_version": "TLSv1.3",
                "ssl_cn": r"J\xc3\xbcrgen",
                "ssl_cipher": "TLS_AES_128_GCM_SHA256",
                "ssl_verified": "yes",
            },
        )

    async def test_facts_of_detection(self) -> None:
        """What detection learns stands beside what the header told."""
        port = self.introduced_mux([route("http host=here", "close")])
        client = await self.connect(port)
        tlvs = (Tlv(TlvType.AUTHORITY, b"there"),)
        header = Header.between(SOURCE, DESTINATION, tlvs)
        client.send(encode_v2(header) + b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        await client.is_lost()
        facts = (await self.logged()).facts
        self.assertEqual((facts["authority"], facts["host"]), ("there", "here"))

    async def test_local_tells_nothing(self) -> None:
        """The fields of a LOCAL header do not count, since it is on no client's behalf."""
        port = self.introduced_mux([route("ssh", "close")])
        client = await self.connect(port)
        header = Header(Command.LOCAL, tlvs=(Tlv(TlvType.AUTHORITY, b"there"),))
        client.send(encode_v2(header) + b"SSH-")
        await client.is_lost()
        self.assertEqual([*(await self.logged()).facts], ["proxy_peer"])

    async def test_in_process(self) -> None:
        """A protocol of this process is told the client's real addresses."""
        asked: list[IAddress] = []

        class Tells(Protocol):
            def connectionMade(self) -> None:
                asked.extend([self.transport.getPeer(), self.transport.getHost()])  # type: ignore[union-attr]
                self.transport.loseConnection()  # type: ignore[union-attr]

        class Factory(ServerFactory):
            noisy = False

            def buildProtocol(self, addr: IAddress | None) -> Protocol:
                asked.append(addr)  # type: ignore[arg-type]
                return Tells()

        port = self.introduced_mux([route("any", Factory())])
        for header in (Header.between(SOURCE, DESTINATION), Header()):
            client = await self.connect(port)
            client.send(encode_v1(header) + b"x")
            own = ("127.0.0.1", client.transport.getHost().port)
            await client.is_lost()
        await self.logged(2)
        seen = [(end.host, end.port) for end in asked]  # type: ignore[attr-defined]
        real = (str(SOURCE.host), SOURCE.port)
        self.assertEqual(
            seen,
            [real, real, (str(DESTINATION.host), DESTINATION.port), own, own, ("127.0.0.1", port)],
        )

    async def test_from_elsewhere(self) -> None:
        """Who is in none of the networks is a plain client, and its header is bytes like any others."""
        networks = NetworkSet([ip_network("192.0.2.0/24")])
        routes = [route("proxy", "close", name="header"), route("ssh", "close", name="ssh")]
        port = self.mux(routes, accept_proxy_from=networks)
        for number, (said, name) in enumerate([(LINE, "header"), (b"SSH-", "ssh")], 1):
            client = await self.connect(port)
            client.send(said)
            await client.is_lost()
            record = await self.logged(number)
            self.assert_story(record, route=name, bytes_in=len(said))
            self.assertTrue(record.client.startswith("127.0.0.1:"))


class SenderTest(SynchronousTestCase):
    """Who has to begin with a header."""

    def test_networks(self) -> None:
        """Whoever comes from the networks, by IPv4 or IPv6; who has no address comes from none."""
        mapped = IPv6Address("TCP", "::ffff:127.0.0.1", 1)
        self.assertTrue(is_sender(mapped, SENDERS))
        self.assertFalse(is_sender(IPv4Address("TCP", "127.0.0.2", 1), SENDERS))
        self.assertFalse(is_sender(UNIXAddress(None), SENDERS))
        self.assertFalse(is_sender(UNIXAddress(None), Senders([ip_network("127.0.0.1")])))

    def test_unix(self) -> None:
        """Whoever comes by a UNIX socket, if these are meant, too."""
        self.assertTrue(is_sender(UNIXAddress(None), Senders([Unix.UNIX])))
        self.assertFalse(is_sender(HostnameAddress(b"x", 1), Senders([Unix.UNIX])))


class RefusedTest(IntroducedTestCase):
    """Headers that are missing, wrong or late: the connection is closed, and no backend hears of it."""

    async def refused(self, *pieces: bytes, count: int = 1) -> ConnectionRecord:
        """Send pieces, and give what is logged."""
        client = await self.connect(self.port)
        for piece in pieces:
            client.send(piece)
            await self.turn(2)
        await client.is_lost()
        record = await self.logged(count)
        self.assertEqual(self.backend.peers, [])
        return record

    def setUp(self) -> None:
        """Everything that is let in would reach the backend."""
        super().setUp()
        backend = backend_at(self.backend_port())
        self.port = self.introduced_mux([route("any", backend)], silent=backend, default=backend)

    async def test_malformed(self) -> None:
        """What the specification calls malformed."""
        addresses = "c0a80001c0a8000bdc0401bb"
        wrong = [
            b"SSH-2.0-test\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\r\n",
            b"PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
            b"PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
            b"PROXY TCP4 ::1 ::1 56324 443\r\n",
            b"PROXY TCP6 127.0.0.1 127.0.0.1 56324 443\r\n",
            b"PROXY TCP6 1::2::3 ::1 56324 443\r\n",
            b"PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            b"proxy TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            b"PROXY UNKNOWN" + b" " * 100,
            SIGNATURE[:-1] + b"\r",
            *(
                SIGNATURE + bytes.fromhex(rest)
                for rest in (
                    f"1111000c{addresses}",  # version
                    f"2211000c{addresses}",  # command
                    f"2141000c{addresses}",  # family
                    f"2113000c{addresses}",  # transport
                    f"2111000b{addresses}",  # too short for its addresses
                    "21110ff1",  # more than 4096 bytes
                    f"2111000f{addresses}010001",  # a field that overruns
                    f"2111000e{addresses}0100",  # half a field
                    f"21110013{addresses}0300041c1ae9c7",  # a wrong checksum
                    f"21110012{addresses}0300031c1ae9",  # a checksum that is too short
                    f"21110011{addresses}2000020100",  # an SSL field that is too short
                    f"21110017{addresses}2000080100000000210001",  # a field that overruns in it
                )
            ),
        ]
        for count, header in enumerate(wrong, 1):
            record = await self.refused(header, b"SSH-2.0-", count=count)
            self.assert_story(record, reason="proxy-header", bytes_in=0, route=None, backend=None)
            self.assertIn("proxy_error", record.facts, header)

    async def test_at_the_first_wrong_byte(self) -> None:
        """It is refused as soon as it cannot become valid."""
        for count, wrong in enumerate([b"S", b"PROXY TCP5", b"\r\n\r\r", SIGNATURE + b"\x11"], 1):
            self.assert_story(await self.refused(wrong, count=count), reason="proxy-header")

    async def test_late(self) -> None:
        """A header has to be there in time, from accept, however much of it has come."""
        for count, sent in enumerate([b"", LINE[:-1]], 1):
            client = await self.connect(self.port)
            client.send(sent)
            while not self.factory.connections:
                await self.turn()
            await self.turn(5)
            self.time.advance(2.9)
            await self.turn(3)
            self.assertIsNone(client.lost)
            self.time.advance(0.2)
            await client.is_lost()
            record = await self.logged(count)
            self.assert_story(record, reason="proxy-header", duration_ms=3100.0)
            self.assertIn("3 s", record.facts["proxy_error"])
        self.assertEqual(self.backend.peers, [])

    async def test_ended_inside(self) -> None:
        """A stream that ends inside of the header has none."""
        client = await self.connect(self.port)
        client.send(LINE[:-1])
        client.finish()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="proxy-header")

    async def test_reset_inside(self) -> None:
        """So has one that breaks there."""
        client = await self.connect(self.port)
        client.send(LINE[:-1])
        while not self.factory.connections:
            await self.turn()
        await self.turn(5)
        client.reset()
        self.assert_story(await self.logged(), reason="proxy-header")

    async def test_port_scan(self) -> None:
        """Who goes without a byte, as the health checks of many balancers do, has done nothing wrong."""
        client = await self.connect(self.port)
        client.finish()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="client-gone")
        client = await self.connect(self.port)
        client.reset()
        self.assert_story(await self.logged(2), reason="client-gone")
        self.assertEqual(self.backend.peers, [])

    async def test_drained(self) -> None:
        """At the end of a drain it is not waited for."""
        client = await self.connect(self.port)
        while not self.factory.connections:
            await self.turn()
        self.factory.abort("drained")
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="drained")


class DetectionTimeTest(IntroducedTestCase):
    """How much time detection has."""

    async def introduce_after(self, seconds: float, port: int, data: bytes = b"") -> Any:
        client = await self.connect(port)
        while not self.factory.connections:
            await self.turn()
        self.time.advance(seconds)
        client.send(LINE + data)
        await self.turn(5)
        return client

    async def test_counts_from_accept(self) -> None:
        """The time that the header took is a part of it."""
        port = self.introduced_mux(silent=backend_at(self.backend_port()))
        client = await self.introduce_after(2, port)
        self.time.advance(2.9)
        await self.turn(3)
        self.assertEqual(self.backend.peers, [])
        self.time.advance(0.1)
        server = await self.backend.peer()
        server.send(b"220 welcome\r\n")
        await client.has(13)
        client.close()
        server.close()
        self.assert_story(await self.logged(), reason="done", detect_ms=5000.0)

    async def test_silent_when_none_is_left(self) -> None:
        """With a header later than that, a client that says nothing with it has said nothing in time."""
        port = self.introduced_mux(detect_timeout=1, silent=backend_at(self.backend_port()))
        await self.introduce_after(2, port)
        await self.backend.peer()

    async def test_decided_when_none_is_left(self) -> None:
        """With a header later than that, what comes with it decides."""
        routes = [route("payload text=ab", "close", name="ab"), route("any", "close", name="any")]
        port = self.introduced_mux(routes, detect_timeout=1)
        for count, (data, name) in enumerate([(b"ab", "ab"), (b"a", "any")], 1):
            client = await self.introduce_after(2, port, data)
            await client.is_lost()
            self.assert_story(await self.logged(count), route=name)
