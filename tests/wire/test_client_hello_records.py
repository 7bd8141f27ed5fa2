import ssl

from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire.hello_builder import (
    PADDING,
    alpn,
    byte_by_byte,
    client_hello,
    extension,
    records,
    server_name,
    versions,
)
from txmux.testing import calls_in
from txmux.wire.client_hello import LONGEST_HELLO, VERSIONS, ClientHello, parse_client_hello


class RecordTests(SynchronousTestCase):
    def test_every_record_has_to_carry_a_handshake(self) -> None:
        data = bytearray(records(client_hello(), [10, 10]))
        for index, value in ((0, 0x15), (1, 0x02), (2, 0x05), (3, 0x41)):
            bad = bytearray(data)
            bad[15 + index] = value
            reader, length = byte_by_byte(bytes(bad))
            self.assertTrue(reader.malformed)
            self.assertEqual(length, 15 + index + 1)

    def test_a_record_that_carries_nothing_is_malformed(self) -> None:
        data = records(client_hello(), 10)
        reader = parse_client_hello(data[:15] + b"\x16\x03\x01\x00\x00" + data[15:], None)
        self.assertTrue(reader.malformed)

    def test_the_longest_hello_in_the_shortest_records_is_within_the_bound(self) -> None:
        padding = 0xFFFF - len(client_hello()) + 4 - 4
        data = records(client_hello(extension(PADDING, b"\0" * padding)), 1)
        self.assertEqual(len(data), LONGEST_HELLO)
        self.assertIsNotNone(parse_client_hello(data, None).hello)

    @settings(max_examples=scaled(100), deadline=None)
    @given(st.data())
    def test_round_trip(self, draw: st.DataObject) -> None:
        """What a client offers is what is read, whatever stands around it and however it is cut."""
        name = draw.draw(st.none() | st.text("aBc.-", min_size=1, max_size=9))
        protocols = draw.draw(st.lists(st.binary(min_size=3, max_size=9), max_size=4))
        numbers = draw.draw(
            st.lists(st.sampled_from([0x0301, 0x0303, 0x0304, 0x1A1A, 0x7F1C]), max_size=4)
        )
        extensions = [
            extension(0xFF00, body) for body in draw.draw(st.lists(st.binary(max_size=9)))
        ]
        extensions += [server_name(name)] if name else []
        extensions += [alpn(*protocols)] if protocols else []
        extensions += [versions(*numbers)] if numbers else []
        message = client_hello(*draw.draw(st.permutations(extensions)))
        data = records(message, draw.draw(st.lists(st.integers(1, 60), min_size=1)))

        reader, at = byte_by_byte(data)
        self.assertEqual(at, len(data))
        highest = max((n for n in numbers if n in VERSIONS), default=0x0303)
        expected = ClientHello(
            name and name.lower().removesuffix("."),
            tuple(protocol.decode("latin-1") for protocol in protocols),
            VERSIONS[highest],
        )
        self.assertEqual(reader.hello, expected)
        self.assertEqual(parse_client_hello(data, None).hello, expected)


class RealClientTests(SynchronousTestCase):
    def test_pythons_own_client_is_understood_in_records_of_every_size(self) -> None:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="www.example.com")
        self.assertRaises(ssl.SSLWantReadError, client.do_handshake)
        self.check(outgoing.read(), ClientHello("www.example.com", ("h2", "http/1.1"), "1.3"))

    def test_so_is_the_one_of_pyopenssl_here_limited_to_tls_1_2(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_alpn_protos([b"imap"])
        client = SSL.Connection(context, None)
        client.set_connect_state()
        client.set_tlsext_host_name(b"mail.example.com")
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        self.check(client.bio_read(65536), ClientHello("mail.example.com", ("imap",), "1.2"))

    def check(self, data: bytes, expected: ClientHello) -> None:
        self.assertEqual(parse_client_hello(data, None).hello, expected)
        for size in range(1, len(data)):
            self.assertEqual(parse_client_hello(records(data[5:], size), None).hello, expected)
        reader, at = byte_by_byte(data)
        self.assertEqual((reader.hello, at), (expected, len(data)))


_HELLO = client_hello(server_name("a"), alpn(b"h2", b"x"), versions(0x0304))


class CostTests(SynchronousTestCase):
    def cost(self, data: bytes) -> float:
        """Count calls for each byte of a sample that is sent byte by byte."""
        return calls_in(lambda: byte_by_byte(data)) / len(data)

    def test_one_byte_records(self) -> None:
        """A hello of 32 KiB in records of one byte costs the same for each byte as a short one."""
        short = records(client_hello(extension(PADDING, b"\0" * 600)), 1)
        long = records(client_hello(extension(PADDING, b"\0" * 5_450)), 1)
        self.assertGreater(len(long), 32 * 1024)
        self.assertLess(self.cost(long), 1.1 * self.cost(short))

    def test_many_items(self) -> None:
        """So does one of countless extensions, names or protocols."""
        for few, many in (
            ([extension(PADDING, b"")] * 200, [extension(PADDING, b"")] * 2_000),
            ([server_name(*["a"] * 200)], [server_name(*["a"] * 2_000)]),
            ([alpn(*[b"a"] * 400)], [alpn(*[b"a"] * 4_000)]),
        ):
            cost = self.cost(records(client_hello(*few)))
            self.assertLess(self.cost(records(client_hello(*many))), 1.1 * cost)

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.binary(max_size=40)
        | st.builds(
            lambda data, at, junk: data[:at] + junk + data[at + len(junk) :],
            st.sampled_from([records(_HELLO, size) for size in (1, 7, 9999)]),
            st.integers(0, 300),
            st.binary(max_size=3),
        )
    )
    def test_property_resuming(self, data: bytes) -> None:
        """Going on after any beginning gives what beginning again does."""
        earlier = None
        for length in range(len(data) + 1):
            afresh = parse_client_hello(data[:length], None)
            earlier = parse_client_hello(data[:length], earlier)
            self.assertEqual(
                (earlier.hello, earlier.malformed, earlier.sni, earlier.alpn, earlier.version),
                (afresh.hello, afresh.malformed, afresh.sni, afresh.alpn, afresh.version),
            )
