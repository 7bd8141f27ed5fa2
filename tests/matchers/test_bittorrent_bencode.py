"""Dictionaries of BitTorrent."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.bittorrent import read_dictionary
from txmux.wire.cursor import Cursor, MalformedError, ShortError

Value = int | bytes | list["Value"] | dict[bytes, "Value"]

VALUES = st.recursive(
    st.integers(-(10**19), 10**19) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def encoded(value: Value) -> bytes:
    """Write a value (BEP 3, "bencoding")."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%b" % (len(value), value)
    if isinstance(value, list):
        return b"l%be" % b"".join(map(encoded, value))
    return b"d%be" % b"".join(encoded(name) + encoded(value[name]) for name in sorted(value))


class DictionaryTests(SynchronousTestCase):
    @given(st.dictionaries(st.binary(max_size=5), VALUES, max_size=4), st.binary(max_size=5))
    def test_read(self, value: dict[bytes, Value], rest: bytes) -> None:
        """Strings are given as they are, all else as it is encoded; what follows is left."""
        data = encoded(value)
        cursor = Cursor(data + rest)
        self.assertEqual(
            read_dictionary(cursor),
            {name: one if isinstance(one, bytes) else encoded(one) for name, one in value.items()},
        )
        self.assertEqual(cursor.at, len(data))
        for cut in range(len(data)):
            self.assertRaises((ShortError, MalformedError), read_dictionary, Cursor(data[:cut]))

    @given(st.sampled_from((b"", b"d", b"d1:a", b"d1:al", b"d1:ad")), st.binary(max_size=60))
    def test_anything(self, start: bytes, data: bytes) -> None:
        """Any bytes are read, or refused in one of two ways."""
        with contextlib.suppress(ShortError, MalformedError):
            read_dictionary(Cursor(start + data))

    def test_many_values_and_deep_ones_are_malformed(self) -> None:
        self.assertEqual(len(read_dictionary(Cursor(b"d1:al" + b"0:" * 63 + b"ee"))), 1)
        self.assertRaises(MalformedError, read_dictionary, Cursor(b"d1:al" + b"0:" * 64 + b"ee"))
        self.assertRaises(MalformedError, read_dictionary, Cursor(b"d1:a" + b"l" * 60000))
