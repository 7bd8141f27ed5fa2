"""Which datagrams may open a QUIC connection at an address that has said something before."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.quic_builder import DESTINATION, V1, V2, V29, initial
from tests.wire.quic_vectors import RETRY_1, SERVER_1, VERSION_1, VERSION_2
from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import (
    has_known_version,
    opens_connection,
    opens_first_connection,
    read_long_header,
)
from txmux.wire.quic.initial import ClientKeys

UNKNOWN = 0x1A2A3A4A


def packet(
    kind: int, *, version: int = V1, destination: bytes = DESTINATION, size: int = 1200
) -> bytes:
    ids = bytes([len(destination)]) + destination + b"\6client"
    head = bytes([0xC0 | kind << 4]) + version.to_bytes(4, "big") + ids
    return (head + (0x4000 | size - len(head) - 2).to_bytes(2, "big")).ljust(size, b"\x55")


_SHORT = b"\x41".ljust(1200, b"\x55")
_PARTS = b"\xc0\0\0\0\1", b"\x6b\x33\x43\xcf", b"\0\0\0\1", b"abcde"


class HeaderTests(SynchronousTestCase):
    def test_which(self) -> None:
        """Where the client speaks QUIC already; and after another protocol, where an Initial packet that a server must drop does, too, since no other route decides about it, and what is of another version may be of RTP."""
        other = packet(0, version=UNKNOWN)
        rows: tuple[tuple[bool, tuple[bytes, ...]], ...] = (
            # An Initial packet of each version, in a datagram that a server would not drop.
            (True, (*(initial(b"\1", version=version) for version in (V1, V2, V29)), VERSION_1, VERSION_2)),
            (False, (initial(b"\1", pad=1199),)),
            # Packets of type 0-RTT that have overtaken it, of any length.
            (True, (packet(1, size=100), packet(2, version=V2, size=100))),
            # None that belongs to a connection: Handshake packets, short headers, and those of servers.
            (False, (packet(2), packet(3, version=V2), _SHORT, SERVER_1, RETRY_1, b"", b"\xc0")),
            # Only who has a token may clear the fixed bit (RFC 9287).
            (False, (initial(b"\1", fixed=False),)), (True, (initial(b"\1", fixed=False, token=b"token"),)),
            # Of other versions, a long datagram does.
            (True, (other,)), (False, (other[:1199], packet(0, version=0))),
        )  # fmt: skip
        for opens, datagrams in rows:
            for datagram in datagrams:
                self.assertEqual(opens_connection(datagram), opens, datagram[:40])
        for datagram in (
            initial(b"\1"), initial(b"\1", pad=0), initial(b"\1", fixed=False), packet(1, size=100),
            initial(b"\1", destination=b""), packet(2, size=100) + initial(b"\1"),
        ):  # fmt: skip
            self.assertTrue(opens_first_connection(datagram))
        other = packet(0, version=UNKNOWN)
        for datagram in (packet(2), packet(3), _SHORT, other, b"", b"\xc0\0\0\0\1"):
            self.assertFalse(opens_first_connection(datagram))

    def test_lengths(self) -> None:
        """A client makes up an ID of at least 8 bytes; a shorter one is that of a server."""
        for length in range(25):
            opens = opens_connection(initial(b"\1", destination=bytes(length)))
            self.assertEqual(opens, 8 <= length <= 20, length)
            self.assertEqual(opens_connection(initial(b"\1", source=bytes(length))), length <= 20)

    @given(
        st.lists(st.sampled_from(_PARTS), max_size=9),
        st.integers(0, 12),
        st.integers(1, 30),
    )
    def test_known_version_among_joined_datagrams(
        self, parts: list[bytes], size: int, length: int
    ) -> None:
        """One is never missed, and nothing else is taken for it."""
        data = memoryview(bytearray(b"".join(parts) + bytes(40)))[:length]
        step = size or length or 1
        joined = [bytes(data[at : at + step]) for at in range(0, length, step)]
        known = {b"\0\0\0\1", b"\x6b\x33\x43\xcf", b"\xff\0\0\x1d"}
        if size > 4 or size == 0:
            expected = any(one[1:5] in known for one in joined)
            self.assertEqual(has_known_version(data, size), expected)
        else:
            has_known_version(data, size)

    @given(st.binary(max_size=40))
    def test_any_bytes_can_come(self, datagram: bytes) -> None:
        for opens in (opens_connection, opens_first_connection):
            opens(datagram)
            opens(b"\xc0\0\0\0\1" + datagram)

    def test_cut_header(self) -> None:
        """The IDs of an unknown version are read as soon as they are there in full; a Retry is the rest of its datagram."""
        data = bytes([0xC0]) + UNKNOWN.to_bytes(4, "big") + b"\2ab\1c"
        header = read_long_header(data)
        self.assertEqual((header.destination, header.source, header.end), (b"ab", b"c", len(data)))
        for wrong in (*(data[:end] for end in range(len(data))), b"\x40" + data[1:]):
            self.assertRaises(MalformedError, read_long_header, wrong)
        self.assertEqual(read_long_header(RETRY_1).end, len(RETRY_1))

    @given(st.integers(-1, 2**20), st.integers(1, 2), st.data())
    def test_cut_number(self, largest: int, size: int, data: st.DataObject) -> None:
        """A number that is near the next one is known by its last bytes."""
        half = 1 << 8 * size - 1
        ends = max(0, largest + 2 - half), largest + 1 + half
        for number in (*ends, data.draw(st.integers(*ends))):
            datagram = initial(b"\1", number=number, size=size)
            keys, header = ClientKeys(V1, DESTINATION), read_long_header(datagram)
            frames, now_largest = keys.unprotect(datagram, 0, header, largest)
            self.assertEqual((frames[0], now_largest), (1, max(number, largest)))
