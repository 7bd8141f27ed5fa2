from ipaddress import ip_network
from typing import Any

from tests.backends.names.test_destinations import names as allowed
from tests.support.kit import MuxTestCase, Peer, backend_at
from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name
from tests.wire.proxyprotocol.vectors import DESTINATION, SOURCE
from txmux.client.tls.terminator import AgreedTLS
from txmux.rules.embedding import route
from txmux.rules.model import Backend, NetworkSet, ServerTLS
from txmux.rules.reading.endpoints import server as read_server
from txmux.tcp.connection import MuxProtocol
from txmux.wire.proxyprotocol.decode import Decoded, decode
from txmux.wire.proxyprotocol.encode import encode_v2
from txmux.wire.proxyprotocol.header import ProxyHeader, Tlv, TlvType

SENDERS = NetworkSet([ip_network("127.0.0.1")])
HELLO = records(client_hello(server_name("www.Example.com"), alpn(b"h2", b"http/1.1")))
AUTHORITY = Tlv(TlvType.AUTHORITY, b"www.example.com")
ALPN = Tlv(TlvType.ALPN, b"h2")


def announcing_mux(
    test: MuxTestCase, *tlvs: str, match: str = "any", version: str = "v2", **settings: Any
) -> int:
    port = test.backend_port()
    backend: Any = backend_at(port, proxy_protocol=version, proxy_tlvs=tlvs)
    settings = {"default": backend, "silent": backend, "detect_timeout": 5.0, **settings}
    return test.mux([route(match, backend)], **settings)


async def header_heard(test: MuxTestCase, payload: bytes, index: int = 0) -> ProxyHeader:
    server = await test.backend.peer(index)
    await server.until(lambda: bool(server.received) and bytes(server.received).endswith(payload))
    answer = decode(bytes(server.received))
    assert isinstance(answer, Decoded)
    test.assertEqual(bytes(server.received[answer.length :]), payload)
    return answer.header


async def tlvs_reported(
    test: MuxTestCase, port: int, *pieces: bytes, index: int = 0
) -> tuple[Tlv, ...]:
    client = await test.connect(port)
    for piece in pieces:
        client.send(piece)
        await test.turn(2)
    payload = b"".join(pieces)
    answer = decode(payload) if payload.startswith(b"\r\n\r\n\0") else None
    rest = payload[answer.length :] if isinstance(answer, Decoded) else payload
    return (await header_heard(test, rest, index)).tlvs


class HelloTest(MuxTestCase):
    async def test_wanted_names_alone_are_passed_on_whether_routes_ask_or_not(self) -> None:
        for index, (names, expected) in enumerate(
            ((("authority", "alpn"), (AUTHORITY, ALPN)), (("alpn",), (ALPN,)))
        ):
            reported = await tlvs_reported(self, announcing_mux(self, *names), HELLO, index=index)
            self.assertEqual(reported, expected)

    async def test_fields_do_not_depend_on_how_the_hello_is_cut(self) -> None:
        port = announcing_mux(self, "authority", "alpn", match="tls")
        for index, cut in enumerate(range(1, len(HELLO))):
            reported = await tlvs_reported(self, port, HELLO[:cut], HELLO[cut:], index=index)
            self.assertEqual(reported, (AUTHORITY, ALPN))

    async def test_detection_lasts_until_all_fields_are_known(self) -> None:
        port = announcing_mux(self, "authority", match="tls")
        client = await self.connect(port)
        for count, byte in enumerate(HELLO, 1):
            client.send(bytes([byte]))
            await self.seen(count)
        client.send(b"more")
        self.assertEqual((await header_heard(self, HELLO + b"more")).tlvs, (AUTHORITY,))

    async def test_hello_without_names_has_no_fields(self) -> None:
        port = announcing_mux(self, "authority", "alpn")
        odd = records(client_hello(server_name("b\xfccher.example")))
        long = records(client_hello(server_name("a" * 256)))
        for index, said in enumerate([records(client_hello()), odd, long, b"SSH-2.0-", b"\x16x"]):
            self.assertEqual(await tlvs_reported(self, port, said, index=index), ())

    async def test_hello_has_what_is_left_of_detect_timeout(self) -> None:
        """Then what has come is passed on without fields, be the client silent, slow or none of the route's."""
        begun = HELLO[:20]
        for match, before, said in self.anew((
            ("any", 0, b""), ("tls", 0, begun), ("tls", 4, begun), ("tls sni=other", 0, begun),
        )):  # fmt: skip
            client = await self.connect(announcing_mux(self, "authority", match=match))
            await self.accepted_for(before)
            client.send(said)
            await self.seen(len(said))
            await self.assert_waits(5 - before)
            self.assertEqual((await header_heard(self, said)).tlvs, ())

    async def test_default_waits_for_the_hello(self) -> None:
        """One beyond `peek_limit` is not waited for."""
        port = announcing_mux(self, "authority", match="ssh")
        self.assertEqual(await tlvs_reported(self, port, HELLO[:20], HELLO[20:]), (AUTHORITY,))
        long = records(client_hello(extension(21, bytes(5000)), server_name("www.example.com")))
        port = announcing_mux(self, "authority", match="tls", peek_limit=1000)
        self.assertEqual(await tlvs_reported(self, port, long[:500], long[500:], index=1), ())

    async def test_end_of_a_client_whose_hello_is_waited_for(self) -> None:
        """One that has finished is not waited for."""
        for end, reason in self.anew((
            (Peer.reset, "client-gone"), (None, "drained"), (Peer.finish, "done"),
        )):  # fmt: skip
            port = announcing_mux(self, "authority", match="tls")
            client = await self.connect_read(port, HELLO[:20])
            end(client) if end else self.factory.abort("drained")
            if reason == "done":
                self.assertEqual((await header_heard(self, HELLO[:20])).tlvs, ())
                server = await self.backend.peer()
                await server.has_all()
                await client.is_lost(server.close)
            await self.assert_logged(reason=reason, bytes_in=20)
            self.assertEqual(len(self.backend.peers), reason == "done")

    async def test_name_that_is_denied(self) -> None:
        server = read_server("{sni}:443")
        backend = Backend("b", (server,), allow_names=allowed("*.test"), tls=ServerTLS())
        await self.connect_until_lost(self.mux([route("tls", backend)]), HELLO)
        await self.assert_logged(reason="name-denied", server="www.example.com:443")


class OwnFieldsTest(MuxTestCase):
    async def test_unique_id_is_that_of_the_access_log(self) -> None:
        """Version 1 has no fields; version 2 may have a checksum."""
        reported = await tlvs_reported(self, announcing_mux(self, "unique-id"), HELLO[:20])
        (connection,) = self.factory.connections
        self.assertEqual(reported, (Tlv(TlvType.UNIQUE_ID, connection.record.id.encode()),))
        port = announcing_mux(self, "authority", "unique-id", version="v1")
        self.assertEqual(await tlvs_reported(self, port, HELLO, index=1), ())
        await self.connect(announcing_mux(self, "crc32c"), b"x")
        await header_heard(self, b"x", 2)
        self.assertEqual(bytes(self.backend.peers[2].received)[28:31], b"\x03\x00\x04")

    async def test_terminated_tls_precedes_what_is_inside(self) -> None:
        agreed = AgreedTLS("TLSv1.3", "TLS_AES_256_GCM_SHA384", sni="outer", alpn=b"spoken")
        self.patch(MuxProtocol, "agreed_tls", agreed)
        name, spoken, ssl = agreed.fields()
        self.assertEqual((name.value, spoken.value), (b"outer", b"spoken"))
        port = announcing_mux(self, "ssl", "authority", match="tls")
        self.assertEqual(await tlvs_reported(self, port, HELLO), (name, ssl))
        port = announcing_mux(self, "alpn", match="tls")
        self.assertEqual(await tlvs_reported(self, port, HELLO[:20], index=1), (spoken,))


class ChainTest(MuxTestCase):
    async def passed_on(self, tlvs: tuple[Tlv, ...], *expected: str) -> tuple[Tlv, ...]:
        header = ProxyHeader.between(SOURCE, DESTINATION, tlvs)
        port = announcing_mux(self, *expected, accept_proxy_from=SENDERS)
        await self.connect(port, encode_v2(header) + HELLO)
        heard = await header_heard(self, HELLO)
        self.assertEqual((heard.source, heard.destination), (SOURCE, DESTINATION))
        return heard.tlvs

    async def test_fields_are_passed_on_without_padding(self) -> None:
        """Own fields replace those that came in; others are dropped if there is no room."""
        first, unique = Tlv(TlvType.AUTHORITY, b"first"), Tlv(TlvType.UNIQUE_ID, b"id")
        ssl, small = Tlv(TlvType.SSL, bytes([1, 0, 0, 0, 0])), Tlv(0xE1, b"small")
        passed, large = (Tlv(0xE3, b"custom"), first, unique), Tlv(0xE0, bytes(4040))
        padded = (Tlv(TlvType.NOOP, b"..."), *passed, Tlv(TlvType.UNIQUE_ID, bytes(129)))
        for came, own, expected in self.anew((
            (padded, (), passed), ((first, ssl), ("authority", "ssl"), (AUTHORITY, ssl)),
            ((large, small), ("authority", "crc32c"), (AUTHORITY, small)),
        )):  # fmt: skip
            self.assertEqual(await self.passed_on(came, *own), expected)

    async def test_incoming_alpn_is_not_that_of_what_is_inside_tls(self) -> None:
        """TLS that ends here has agreed on no protocol, whatever was spoken further out."""
        self.patch(MuxProtocol, "agreed_tls", AgreedTLS("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        self.assertEqual(await self.passed_on((AUTHORITY, ALPN)), (AUTHORITY,))
