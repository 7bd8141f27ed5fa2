import ssl
from typing import Any

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
    sized,
    sslv2_hello,
    versions,
)
from txmux.testing import calls_in
from txmux.wire.client_hello import (
    LONGEST_HELLO,
    VERSIONS,
    ClientHello,
    HelloReader,
    parse_client_hello,
)


def read(message: bytes) -> HelloReader:
    return parse_client_hello(records(message), None)


def offered(*extensions: bytes, **more: Any) -> ClientHello:
    hello = read(client_hello(*extensions, **more)).hello
    assert hello is not None
    return hello


def assert_ruled_out(
    test: SynchronousTestCase, good: bytes, change: dict[int, int], at: int
) -> None:
    """See that a stream with these bytes changed is malformed, and that no more than the byte that shows it was read."""
    bad = bytearray(good)
    for index, value in change.items():
        bad[index] = value
    reader, length = byte_by_byte(bytes(bad))
    test.assertTrue(reader.malformed, change)
    test.assertEqual(length, at + 1, change)


_HELLO = client_hello(server_name("a"), alpn(b"h2", b"x"), versions(0x0304))
HELLO = sslv2_hello()


class ClientHelloTests(SynchronousTestCase):
    def test_first(self) -> None:
        """Names of other kinds do not count; of several host names in datagrams the first does, as for servers."""
        for carrier in "qd":
            reader = HelloReader(carrier=carrier)
            reader.read_message(client_hello(server_name("a", "b")))
            self.assertEqual(reader.sni, "a")
        self.assertIsNone(offered(server_name("a", "", kind=1)).sni)
        mixed = extension(0, sized(2, b"\x01" + sized(2, b"x") + b"\x00" + sized(2, b"a")))
        # An address is a name like any other; bytes that belong in none are kept, one character a byte.
        for part, name in (
            (mixed, "a"), (server_name("192.0.2.1"), "192.0.2.1"), (server_name("A\x00\xc9"), "a\x00\xc9"),
        ):  # fmt: skip
            self.assertEqual(offered(part).sni, name)

    def test_empty_names_and_protocols_that_only_test_the_servers_tolerance(self) -> None:
        """An extension without a name, and a name without a character, name nothing, and spoil nothing else."""
        for part in (extension(0, b""), extension(0, b"\x00\x00"), server_name("")):
            self.assertEqual(offered(part, alpn(b"h2")), ClientHello(None, ("h2",), "1.2"), part)
        hello = offered(alpn(b"\x0a\x0a", b"h2", b"\xfa\xfa", b"\x0a\x1a", b"\x0b\x0b"))
        self.assertEqual(hello.alpn, ("h2", "\x0a\x1a", "\x0b\x0b"))

    def test_version_of_the_field_or_the_highest_known_of_those_offered(self) -> None:
        """Without the extension it is that of the hello, which cannot go beyond TLS 1.2."""
        for number, name in (
            (0x0300, "ssl3"), (0x0301, "1.0"), (0x0302, "1.1"), (0x0303, "1.2"), (0x0304, "1.2"), (0x03FF, "1.2"),
        ):  # fmt: skip
            self.assertEqual(offered(legacy_version=number).version, name)
        for numbers, name in (
            ((0x0304,), "1.3"), ((0x0A0A, 0x0303, 0x0304, 0x0302), "1.3"),
            ((0x0301, 0x0302), "1.1"), ((0x0303, 0x7F1C), "1.2"), ((0x0002, 0x0301), "1.0"),
            ((0x0002,), "1.2"), ((0x0300,), "ssl3"), ((0x0403,), "1.2"),
        ):  # fmt: skip
            self.assertEqual(offered(versions(*numbers)).version, name, numbers)

    def test_a_hello_need_not_have_extensions_nor_a_length_of_them(self) -> None:
        """A session ID has up to 32 bytes."""
        for message in (client_hello(), client_hello(with_extensions=False)):
            self.assertEqual(read(message).hello, ClientHello(None, (), "1.2"))
        self.assertIsNotNone(read(client_hello(session_id=b"s" * 32)).hello)
        self.assertTrue(read(client_hello(session_id=b"s" * 33)).malformed)

    def test_cut_hello(self) -> None:
        """No beginning of a hello is malformed or the whole, and more than the whole is not looked at."""
        parts = server_name("a.example"), alpn(b"h2", b"x"), versions(0x0304)
        message = client_hello(*parts, extension(PADDING, b"\0" * 9))
        data = records(message)
        reader, at = byte_by_byte(data + b"\xff\xff")
        self.assertEqual(reader.hello, ClientHello("a.example", ("h2", "x"), "1.3"))
        self.assertEqual(at, len(data))
        self.assertEqual(parse_client_hello(data + b"\xff", None).hello, reader.hello)
        self.assertEqual(read(message + b"junk").hello, reader.hello)

    def test_early_facts(self) -> None:
        """Server name, protocols and version are known at the end of their extension."""
        parts = (server_name("a.example"), alpn(b"h2"), versions(0x0304))
        data = records(client_hello(*parts, extension(PADDING, b"\0" * 20)))
        for part, fact in zip(parts, ("sni", "alpn", "version"), strict=True):
            end = data.index(part) + len(part)
            self.assertIsNone(getattr(parse_client_hello(data[: end - 1], None), fact))
            self.assertIsNotNone(getattr(parse_client_hello(data[:end], None), fact))

    def test_the_byte_that_rules_a_hello_out_is_the_one_that_shows_it(self) -> None:
        body = 5 + 4
        session, ciphers = body + 2 + 32, body + 2 + 32 + 1
        compression, extensions = ciphers + 2 + 2, ciphers + 2 + 2 + 2
        first = extensions + 2
        good = records(client_hello(extension(PADDING, b"\0" * 5)))
        for change, at in (
            ({0: 0x17}, 0), ({1: 0x02}, 1), ({2: 0x05}, 2), ({3: 0x40}, 4), ({3: 0x41}, 3), ({3: 0x00, 4: 0x00}, 4),
            ({5: 0x02}, 5), ({6: 0x01}, 6), ({7: 0x00, 8: 40}, 8), ({body: 0x02}, body), ({session: 33}, session),
            ({session: 20}, session), ({ciphers: 0xFF}, ciphers), ({ciphers + 1: 0}, ciphers + 1),
            ({ciphers + 1: 3}, ciphers + 1), ({ciphers + 1: 14}, ciphers + 1), ({compression: 0}, compression),
            ({compression: 11}, compression), ({compression: 13}, compression), ({extensions: 1}, extensions),
            ({extensions + 1: 8}, extensions + 1), ({extensions + 1: 10}, extensions + 1), ({first + 2: 1}, first + 2),
            ({first + 3: 6}, first + 3), ({first + 3: 4}, first + 3),
        ):  # fmt: skip
            assert_ruled_out(self, good, change, at)

    def test_malformed_extensions(self) -> None:
        """The same for the extensions that are looked into."""
        junk = extension(PADDING, b"\0" * 9)
        for bad, at in (
            (extension(0, b"\x00"), 3), (extension(0, b"\x00\x02\x00\x00"), 3),
            (extension(0, b"\x00\x09\x00\x00\x03abc"), 5), (extension(0, b"\x00\x05\x00\x00\x03abc"), 5),
            (extension(0, b"\x00\x06\x00\x00\x04abc"), 8), (extension(0, b"\x00\x06\x00\x00\x02abc"), 8),
            (extension(0, b"\x00\x04\x00\x00\x00a"), 8), (extension(0, b"\x00\x06\x00\xff\x00abc"), 7),
            (extension(16, b""), 3), (extension(16, b"\x00\x01\x00"), 3), (extension(16, b"\x00\x04\x02h2"), 5),
            (extension(16, b"\x00\x03\x03h2"), 6), (extension(16, b"\x00\x03\x01h2"), 6),
            (extension(16, b"\x00\x04\x00abc"), 6), (extension(43, b""), 3), (extension(43, b"\x00"), 3),
            (extension(43, b"\x03\x03\x04\x03"), 3), (extension(43, b"\x04\x03\x04"), 4),
            (server_name("a") + server_name("a"), len(server_name("a")) + 1),
            (alpn(b"h2") + junk + alpn(b"h2"), len(alpn(b"h2") + junk) + 1), (server_name("a", "b"), 10),
            (server_name("", "a"), 9), (versions(0x0304) * 2, len(versions(0x0304)) + 1),
        ):  # fmt: skip
            message = client_hello(bad, junk, junk)
            reader, length = byte_by_byte(records(message))
            self.assertTrue(reader.malformed, bad)
            self.assertEqual(length, 5 + message.index(bad) + at + 1, bad)

    def test_too_many(self) -> None:
        """A hello with more than 128 extensions and names ends at the first one too many, however long it is."""
        many = range(100, 15_100)
        of_alpn, names = alpn(*[b"x"] * 15_000), server_name(*["x"] * 10_000, kind=7)
        for parts in ([of_alpn], [names], [extension(kind, b"") for kind in many]):
            message = client_hello(*parts)
            _, length = byte_by_byte(records(message))
            self.assertLess(length, 128 * 4 + 100)
            self.assertTrue(read(message).malformed)
        offers = [b"%d" % number for number in range(127)]
        expected = ClientHello(None, tuple(map(bytes.decode, offers)), "1.2")
        self.assertEqual(offered(alpn(*offers)), expected)
        self.assertIsNone(read(client_hello(alpn(*offers, b"x"))).hello)

    def test_every_record_has_to_carry_some_of_a_handshake_within_bounds(self) -> None:
        padding = 0xFFFF - len(client_hello()) + 4 - 4
        longest = records(client_hello(extension(PADDING, b"\0" * padding)), 1)
        self.assertEqual(len(longest), LONGEST_HELLO)
        self.assertIsNotNone(parse_client_hello(longest, None).hello)
        data = records(client_hello(), [10, 10])
        for index, value in ((0, 0x15), (1, 0x02), (2, 0x05), (3, 0x41)):
            assert_ruled_out(self, data, {15 + index: value}, 15 + index)
        empty = records(client_hello(), 10)
        reader = parse_client_hello(empty[:15] + b"\x16\x03\x01\x00\x00" + empty[15:], None)
        self.assertTrue(reader.malformed)

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
        self.assertEqual((reader.hello, parse_client_hello(data, None).hello), (expected, expected))

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


class HelloTests(SynchronousTestCase):
    def test_version(self) -> None:
        """The version is read at its end; there is no name, and no protocol."""
        for version, name in ((0x0002, "ssl2"), (0x0300, "ssl3"), (0x0301, "1.0"), (0x0303, "1.2")):
            data = sslv2_hello(version=version)
            reader, at = byte_by_byte(data + b"\x16\x03")
            self.assertEqual((reader.hello, at), (ClientHello(None, (), name), len(data)))
            self.assertIsNone(reader.ja4())
        for parts in ({"session_id": 16}, {"challenge": 32}, {"cipher_suites": 450}):
            data = sslv2_hello(**{name: bytes(size) for name, size in parts.items()})  # type: ignore[arg-type]
            self.assertIsNotNone(parse_client_hello(data, None).hello)

    def test_the_byte_that_rules_it_out_is_the_one_that_shows_it(self) -> None:
        for change, at in (
            ({0: 0x82}, 0), ({1: 27}, 1), ({2: 0}, 2), ({2: 2}, 2), ({3: 1}, 3), ({3: 4}, 3),
            ({3: 0}, 4), ({4: 5}, 4), ({5: 1}, 5), ({6: 0}, 6), ({6: 20}, 6), ({6: 24}, 6),
            ({6: 3}, 8), ({7: 1}, 7), ({8: 1}, 8), ({8: 16}, 8), ({9: 1}, 9), ({10: 15}, 10),
        ):  # fmt: skip
            assert_ruled_out(self, HELLO, change, at)
