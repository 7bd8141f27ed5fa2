"""Which streams and datagrams two matchers match, and whom a matcher holds though it is another's, by search."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers import searching
from tests.matchers.asking import over_udp
from tests.matchers.searching import flows, overlap, overlaps, streams
from tests.support.examples import scaled
from txmux.detection.ambiguities import AMBIGUITIES, DATAGRAM_AMBIGUITIES, ambiguities_over
from txmux.detection.overlaps import DATAGRAM_OVERLAPS, OVERLAPS
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Transport, Verdict
from txmux.wire import Cursor
from txmux.wire.messages import Message

_AGAIN = "python -m tests.matchers.searching writes the table again; see whether one of the two can be narrowed instead"
_WAITS_FOR_MORE = {("grpc", "http2"), ("grpc", "http"), ("dicom", "mysqlx")}
"""HTTP/2 behind gRPC, and MySQL behind DICOM, as the reference says."""
_GOES_ON = frozenset({"http", "memcached", "rtmp"})
"""Whose first message is longer than what decides: a head, a header of 24 bytes, and 1537 bytes."""


def _held(name: str, data: bytes) -> list[str]:
    """Name the matchers before one, in the order of the reference, that are undecided about its client."""
    asked = streams()
    own = asked[name]
    if not data or data[0] not in own.first or own.about(data) is not Verdict.MATCH:
        return []
    heard = data if name in _GOES_ON else data[: own.decides_at(data)]
    names = list(asked)
    return [
        before
        for before in names[: names.index(name)]
        if data[0] in asked[before].first
        and asked[before].about(heard) is Verdict.NEED_MORE
        and (before, name) not in _WAITS_FOR_MORE
    ]


class TableTests(SynchronousTestCase):
    def test_streams(self) -> None:
        """Both matchers of a pair match the bytes beside it, and are in the order of the reference."""
        asked = streams()
        names = list(asked)
        for (one, other), digits in OVERLAPS.items():
            data = bytes.fromhex(digits)
            self.assertLess(names.index(one), names.index(other), (one, other))
            for name in (one, other):
                self.assertIs(asked[name].about(data), Verdict.MATCH, (name, digits, _AGAIN))

    def test_datagrams(self) -> None:
        """The same of datagrams."""
        asked = flows()
        names = list(asked)
        for (one, other), digits in DATAGRAM_OVERLAPS.items():
            self.assertLess(names.index(one), names.index(other), (one, other))
            for name in (one, other):
                self.assertTrue(asked[name].takes(bytes.fromhex(digits)), (name, digits, _AGAIN))

    def test_pairs_with_a_reason_are_among_them_each_once(self) -> None:
        for transport, told, found in (
            (Transport.TCP, AMBIGUITIES, OVERLAPS),
            (Transport.UDP, DATAGRAM_AMBIGUITIES, DATAGRAM_OVERLAPS),
        ):
            for pair in told:
                self.assertIn((pair.first, pair.second), found)
            every = [(pair.first, pair.second) for pair in ambiguities_over(transport)]
            self.assertEqual(sorted(every), sorted(found))

    @pytest.mark.by_turns(each=True)
    def test_a_short_search_finds_no_other_pairs_of_streams(self) -> None:
        self.assertEqual(overlaps(kept=4, seeds=1, known=OVERLAPS), {}, _AGAIN)

    def test_finds(self) -> None:
        """The search finds what two matchers share, and nothing where they share only the first byte."""
        asked = streams()
        shared = bytes.fromhex(OVERLAPS["http2", "http"])
        self.assertEqual(overlap(asked["http2"], asked["http"]), shared)
        self.assertIsNone(overlap(asked["rdp"], asked["rtmp"]))

    def test_finds_datagrams(self) -> None:
        """It finds queries by an ID, flags and a length that no sample has, and requests by a time."""

        def read_initiation(cursor: Cursor) -> dict[str, str]:
            cursor.literal(b"\1\0\0\0")
            cursor.take(148 - 4)
            cursor.end()
            return {}

        def read_call(cursor: Cursor) -> dict[str, str]:
            cursor.take(4)
            cursor.literal(b"\0\0\0\0\0\0\0\2")
            cursor.number(4, 1, 0xFFFFFFFF)
            cursor.take(8)
            cursor.literal(bytes(16))
            return {}

        asked = flows()
        for read, own, name, size in (
            (read_initiation, "wireguard", "dns", 148), (read_call, "sunrpc", "ntp", 48),
        ):  # fmt: skip
            wide = searching.Asked(Message(read), asked[own].samples, Transport.UDP)
            other = over_udp(installed_matchers()[name])
            found = searching.shared_datagram(
                wide, searching.Asked(other, asked[name].samples[:3], Transport.UDP)
            )
            self.assertEqual(found and len(found), size)

    def test_held_neighbours(self) -> None:
        """None is held that has sent what its own needs, be it a sample, or one with a byte changed, added or left out."""
        for name, own in streams().items():
            for sample in own.samples:
                # Behind what decides, a change changes nothing of what is heard.
                most = len(sample) if name in _GOES_ON else own.decides_at(sample)
                for data in dict.fromkeys(searching.neighbours(sample, most)):
                    self.assertEqual((name, data, _held(name, data)), (name, data, []))


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class SearchTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Import all tests that have samples, which hypothesis has to do outside of its own."""
        streams()

    def test_streams(self) -> None:
        """It finds no pair of matchers for TCP that is not in the table."""
        self.assertEqual(overlaps(kept=24, seeds=2, known=OVERLAPS), {}, _AGAIN)

    def test_datagrams(self) -> None:
        """Nor of matchers for UDP."""
        self.assertEqual(
            searching.datagram_overlaps().keys() - DATAGRAM_OVERLAPS.keys(), set(), _AGAIN
        )

    @settings(max_examples=scaled(2000))
    @given(st.data())
    def test_spliced(self, data: st.DataObject) -> None:
        """A sample with bytes of another in it, or any bytes, is matched by no pair that is not known, and holds nobody."""
        asked = streams()
        name = data.draw(st.sampled_from(sorted(asked)))
        sample = data.draw(st.sampled_from(asked[name].samples))
        other = data.draw(st.sampled_from(asked[data.draw(st.sampled_from(sorted(asked)))].samples))
        start = data.draw(st.integers(0, min(len(sample), 40)))
        piece = data.draw(
            st.binary(max_size=4)
            | st.builds(lambda length: other[start : start + length], st.integers(0, 8))
        )
        skipped = data.draw(st.sampled_from((len(piece), 0)))
        spliced = sample[:start] + piece + sample[start + skipped :]
        taken = [
            one
            for one, its in asked.items()
            if spliced and spliced[0] in its.first and its.about(spliced) is Verdict.MATCH
        ]
        for at, first in enumerate(taken):
            for second in taken[at + 1 :]:
                self.assertIn((first, second), OVERLAPS, (first, second, _AGAIN))
        if len(taken) == 1:
            held = [by for by in _held(taken[0], spliced) if (by, taken[0]) not in OVERLAPS]
            self.assertEqual((spliced, held), (spliced, []))
