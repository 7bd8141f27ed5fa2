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


class CutTests(SynchronousTestCase):
    def test_header(self) -> None:
        """The IDs of an unknown version are read as soon as they are there in full."""
        data = bytes([0xC0]) + UNKNOWN.to_bytes(4, "big") + b"\2ab\1c"
        header = read_long_header(data)
        self.assertEqual((header.destination, header.source, header.end), (b"ab", b"c", len(data)))
        for wrong in (*(data[:end] for end in range(len(data))), b"\x40" + data[1:]):
            self.assertRaises(MalformedError, read_long_header, wrong)

    @given(st.integers(-1, 2**20), st.integers(1, 2), st.data())
    def test_number(self, largest: int, size: int, data: st.DataObject) -> None:
        """A number that is near the next one is known by its last bytes."""
        half = 1 << 8 * size - 1
        ends = max(0, largest + 2 - half), largest + 1 + half
        for number in (*ends, data.draw(st.integers(*ends))):
            datagram = initial(b"\1", number=number, size=size)
            keys, header = ClientKeys(V1, DESTINATION), read_long_header(datagram)
            frames, now_largest = keys.unprotect(datagram, 0, header, largest)
            self.assertEqual((frames[0], now_largest), (1, max(number, largest)))


class OpensTests(SynchronousTestCase):
    def test_initial(self) -> None:
        """An Initial packet of each version, in a datagram that a server would not drop."""
        for version in (V1, V2, V29):
            self.assertTrue(opens_connection(initial(b"\1", version=version)), version)
        self.assertTrue(opens_connection(VERSION_1))
        self.assertTrue(opens_connection(VERSION_2))
        self.assertFalse(opens_connection(initial(b"\1", pad=1199)))

    def test_early_data(self) -> None:
        """Packets of type 0-RTT that have overtaken it, of any length."""
        for kind, version in ((1, V1), (2, V2)):
            self.assertTrue(opens_connection(packet(kind, version=version, size=100)), version)

    def test_later_packets(self) -> None:
        """None that belongs to a connection: Handshake packets, short headers, and those of servers."""
        for datagram in (
            packet(2), packet(3, version=V2), b"\x41".ljust(1200, b"\x55"), SERVER_1, RETRY_1, b"",
            b"\xc0",
        ):  # fmt: skip
            self.assertFalse(opens_connection(datagram))

    def test_lengths(self) -> None:
        """A client makes up an ID of at least 8 bytes; a shorter one is that of a server."""
        for length in range(25):
            opens = opens_connection(initial(b"\1", destination=bytes(length)))
            self.assertEqual(opens, 8 <= length <= 20, length)
            self.assertEqual(opens_connection(initial(b"\1", source=bytes(length))), length <= 20)

    def test_only_who_has_a_token_may_clear_the_fixed_bit_of_rfc_9287(self) -> None:
        self.assertFalse(opens_connection(initial(b"\1", fixed=False)))
        self.assertTrue(opens_connection(initial(b"\1", fixed=False, token=b"token")))

    def test_other_versions(self) -> None:
        """Of other versions a long datagram does, but only where the client speaks QUIC already: it may be one of RTP."""
        datagram = packet(0, version=UNKNOWN)
        self.assertFalse(opens_first_connection(datagram))
        self.assertTrue(opens_connection(datagram))
        self.assertFalse(opens_connection(datagram[:1199]))
        self.assertFalse(opens_connection(packet(0, version=0)))

    def test_after_another_protocol(self) -> None:
        """There, what a server must drop opens one, too, if it is an Initial packet: no other route decides about it."""
        for datagram in (
            initial(b"\1"), initial(b"\1", pad=0), initial(b"\1", fixed=False), packet(1, size=100),
            initial(b"\1", destination=b""), packet(2, size=100) + initial(b"\1"),
        ):  # fmt: skip
            self.assertTrue(opens_first_connection(datagram))
        for datagram in (packet(2), packet(3), b"\x41".ljust(1200, b"\x55"), b"", b"\xc0\0\0\0\1"):
            self.assertFalse(opens_first_connection(datagram))

    @given(
        st.lists(
            st.sampled_from([b"\xc0\0\0\0\1", b"\x6b\x33\x43\xcf", b"\0\0\0\1", b"abcde"]),
            max_size=9,
        ),
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
