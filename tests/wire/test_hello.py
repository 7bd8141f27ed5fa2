"""A hello that has come whole is read in one go, to the same result."""

import ssl
import struct
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name, versions
from txmux.testing import calls_in
from txmux.wire.client_hello import ClientHello, HelloReader, parse_client_hello, read_hello
from txmux.wire.cursor import IllegalHelloError, MalformedError
from txmux.wire.hello.second import SecondHello, is_not_read
from txmux.wire.hello.whole import read_whole

_MOST = 128

_EXTENSIONS = st.one_of(
    st.builds(server_name, st.sampled_from(["a.example", "B.example.", ".", "\xe9"])),
    st.builds(
        lambda names: alpn(*names),
        st.lists(st.sampled_from([b"h2", b"\x0a\x0a", b"x" * 90]), min_size=1, max_size=4),
    ),
    st.builds(
        lambda numbers: versions(*numbers),
        st.lists(st.sampled_from([0x0304, 0x0303, 0x2A2A, 0x0999]), max_size=4),
    ),
    st.builds(
        extension, st.sampled_from([0, 10, 13, 16, 43, 0xFE0D, 0x1A1A]), st.binary(max_size=9)
    ),
    st.just(extension(13, bytes.fromhex("0004 0403 0804"))),
)


def _careful(data: bytes) -> HelloReader:
    reader = HelloReader()
    try:
        reader.read(data)
    except MalformedError:
        reader.malformed = True
    return reader


def _seen(reader: HelloReader) -> object:
    if reader.malformed:
        return None  # what was read before it was is nobody's
    return (reader.hello, reader.sni, reader.alpn, reader.version, reader.ech, reader.ja4())


class WholeHelloTest(SynchronousTestCase):
    @settings(max_examples=scaled(300))
    @given(st.data())
    def test_same(self, draw: st.DataObject) -> None:
        """Whatever is in a hello, right or wrong, both say the same of it, and so does whatever follows it."""
        message = client_hello(
            *draw.draw(st.lists(_EXTENSIONS, max_size=5)),
            legacy_version=draw.draw(st.sampled_from([0x0301, 0x0303, 0x0304])),
            session_id=draw.draw(st.sampled_from([b"", bytes(32)])),
        )
        data = bytearray(records(message, draw.draw(st.sampled_from([16384, 50]))))
        for _ in range(draw.draw(st.integers(0, 2))):
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
        stream = bytes(data) + draw.draw(st.binary(max_size=8))
        stream = stream[: draw.draw(st.sampled_from([len(stream), len(stream) - 5]))]
        self.assertEqual(_seen(parse_client_hello(stream, None)), _seen(_careful(stream)))

    def test_usual(self) -> None:
        """The hello of this Python's OpenSSL is read in one go; one that is cut, in pieces or too long is not."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = ssl.create_default_context().wrap_bio(
            incoming, outgoing, server_hostname="a.example"
        )
        self.assertRaises(ssl.SSLWantReadError, secure.do_handshake)
        data = outgoing.read()
        found = read_whole(data, _MOST)
        assert found is not None
        self.assertEqual((found.sni, found.end), ("a.example", len(data)))
        short = read_whole(records(client_hello(server_name("a"))), _MOST)
        self.assertEqual(short and short.sni, "a")
        self.assertIsNone(read_whole(data[:-1], _MOST))
        self.assertIsNone(read_whole(records(data[5:], 100), _MOST))
        self.assertIsNone(read_whole(data, 5))

    def test_cost(self) -> None:
        """However many extensions and names a hello has, it costs few calls for each of its bytes."""
        for shape, parts in {
            "names of protocols": extension(16, struct.pack(">H", 15_000) + b"\1x" * 7500),
            "extensions": b"".join(extension(1000 + number, b"") for number in range(4000)),
            "names": extension(0, struct.pack(">H", 16_000) + b"\0\0\1a" * 4000),
            "one extension": extension(1000, bytes(16_000)),
        }.items():
            data = records(client_hello(parts), 16384)
            calls = calls_in(partial(parse_client_hello, data, None))
            self.assertLess(calls, len(data) // 8, shape)
        data = records(client_hello(extension(21, bytes(1000))))

        def read_byte_by_byte() -> None:
            earlier = None
            for end in range(1, len(data)):
                earlier = parse_client_hello(data[:end], earlier)

        self.assertLess(calls_in(read_byte_by_byte), 6 * len(data))


_CHANGED, _EARLY = b"\x14\3\3\0\1\1", b"\x17\3\3\0\3abc"
_ECH = extension(0xFE0D, b"\1")


def message(*more: bytes, name: str = "a.test", version: int = 0x0304) -> bytes:
    return client_hello(server_name(name), versions(version), *more)


def first(*more: bytes) -> ClientHello | None:
    return read_hello(message(*more))


class SecondHelloTest(SynchronousTestCase):
    @given(
        st.lists(st.sampled_from([_CHANGED, _EARLY]), max_size=3),
        st.integers(1, 400),
        st.lists(st.integers(1, 40), max_size=30),
        st.sampled_from([b"", b"more", records(message(name="vip.test"))]),
    )
    def test_the_same_passes_whole(
        self, before: list[bytes], size: int, cuts: list[int], after: bytes
    ) -> None:
        stream = b"".join(before) + records(message(name="A.test"), size) + after
        second, passed, rest = SecondHello(first()), b"", stream
        for cut in (*cuts, len(stream)):
            passed += rest[:cut] if second.is_over else second.receive(rest[:cut])
            rest = rest[cut:]
        self.assertEqual((passed, second.is_over, second.rest), (stream, True, b""))
        self.assertFalse(second.is_opened)

    @given(st.integers(1, 400), st.lists(st.integers(1, 40), max_size=30))
    def test_no_byte_of_another_passes(self, size: int, cuts: list[int]) -> None:
        for before, other, what in (
            ((), message(name="vip.test"), "other server name than"),
            ((), message(alpn(b"x")), "other application protocols than"),
            ((alpn(b"x"),), message(), "other application protocols than"),
            ((), message(version=0x0303), "other versions than"),
            ((_ECH,), message(), "other encrypted hellos than"),
            ((), message(server_name("vip.test")), "is malformed"),
            ((), b"\x0b" + message()[1:], "is malformed"),
        ):
            second, passed = SecondHello(first(*before)), b""
            rest = _CHANGED + records(other, size)
            with self.assertRaises(IllegalHelloError) as raised:
                for cut in (*cuts, len(rest)):
                    passed += second.receive(rest[:cut])
                    rest = rest[cut:]
            self.assertIn(passed, {b"", _CHANGED})
            self.assertEqual(raised.exception.alert, bytes.fromhex("1503030002022f"))
            self.assertIn(what, str(raised.exception))

    def test_what_follows_no_hello_is_the_servers(self) -> None:
        second = SecondHello(first())
        self.assertEqual(second.receive(b"\x15\3\3\0\2\2\x2f"), b"\x15\3\3\0\2\2\x2f")
        self.assertFalse(second.is_over)
        self.assertEqual(second.receive(b"\x18\3\3"), b"\x18\3\3")
        self.assertTrue(second.is_over)
        self.assertRaises(IllegalHelloError, SecondHello(None).receive, records(message()))

    def test_what_a_server_may_read(self) -> None:
        whole = records(message())
        for data, expected in (
            (whole, False), (whole + b"more", False), (whole[:-1], True), (whole[:2], True),
            (b"\x16", True), (whole[:2] + b"\x09" + whole[3:], True),
            (b"\x16\x02" + whole[2:], True),  # Java, Go
            (b"\x16\xff", True),
            (b"\x16\3\1\0\0" + whole, True),  # OpenSSL, Java
            (b"\x15\3\1\0\2\1\x64" + whole, True),  # Go
            (b"\x15\0\0\0", True),
            (_CHANGED + whole, True),  # GnuTLS
            (b"\x14", True), (b"\x16\3\1\0\5\2", False), (b"\x16\3\1\0\0\1", False),
            (b"\x15\3\1\0\3", False),
            (b"\x14\3\1\0\0" + whole, True),  # OpenSSL
            (b"\x16\3\1\0\0\x14\3\1\0\0" + whole, True), (b"\x14\3\1\1\0", False),
            (b"\x17\3\3\0\3", False), (b"", False), (b"SSH-2.0-x", False),
        ):  # fmt: skip
            self.assertEqual(is_not_read(data), expected, data)
