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
from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.cursor import MalformedError
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
