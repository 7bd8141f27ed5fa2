from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire import http2_builder as h2
from txmux.testing import calls_in
from txmux.wire.http2_opening import FRAMES_LIMIT, OPENING_LIMIT, PREFACE, Opening, parse_opening

GET = ((":method", "GET"), (":scheme", "http"), (":path", "/a"), (":authority", "a.example"))
SECTION = h2.headers(*GET, ("x", "1"), ("x", "2"))
BEGINNING = PREFACE + h2.SETTINGS
DATA, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0, 2, 3, 4, 5, 6, 7, 8, 9),
)


def byte_by_byte(data: bytes) -> tuple[Opening, int]:
    """Send a sample byte by byte; gives the last answer and the byte that decided, or their number."""
    known = None
    for length in range(1, len(data) + 1):
        known = parse_opening(data[:length], known)
        if known.refused or known.fields is not None:
            return known, length
    assert known is not None
    return known, len(data)


class RequestTests(SynchronousTestCase):
    def check(self, *frames: bytes) -> None:
        data = BEGINNING + b"".join(frames)
        known, at = byte_by_byte(data + h2.frame(DATA, b"x", stream=1))
        self.assertEqual((known.fields, at), ({**dict(GET), "x": "1"}, len(data)))
        self.assertEqual(parse_opening(data, None), known)

    def test_whole(self) -> None:
        """It is known at the end of its HEADERS; of several fields of a name the first counts."""
        for section, more in (
            (SECTION, {}), (SECTION, {"stream": 13}),
            # The bit before the stream's number does not count.
            (SECTION, {"stream": 0x80000001}),
            # Padding and priority are no part of the header section.
            (b"\x03" + SECTION + bytes(3), {"flags": 0xD}),
            (bytes(5) + SECTION, {"flags": 0x24}),
            (b"\x02" + bytes(5) + SECTION + bytes(2), {"flags": 0x2C}),
        ):  # fmt: skip
            self.check(h2.request(section, **more))

    def test_other_frames_may_come_before(self) -> None:
        """It may go on in CONTINUATION frames, of any size; other frames may stand before it: more SETTINGS, what sets priorities and windows, and unknown ones."""
        pieces = [h2.frame(CONTINUATION, SECTION[i : i + 3], stream=1) for i in range(4, 30, 3)]
        last = h2.frame(CONTINUATION, SECTION[31:], flags=4, stream=1)
        self.check(h2.request(SECTION[:4], flags=1), *pieces, last)
        priorities = h2.frame(PRIORITY, bytes(5), stream=3), h2.frame(0x10, b"\0\0\0\1u=1")
        others = *priorities, h2.frame(0xFA, b"x", flags=0xFF, stream=2), h2.request(SECTION)
        self.check(h2.WINDOW_UPDATE, h2.PING, h2.settings(1), *others)

    def test_real_client_and_its_settings_are_read(self) -> None:
        """So is that of a real client."""
        known, at = byte_by_byte(h2.CURL)
        self.assertEqual(at, len(h2.CURL))
        assert known.fields is not None
        self.assertEqual(known.fields[":authority"], "localhost:46261")
        self.assertEqual(known.fields[":path"], "/api/x?q=1")
        data = PREFACE + h2.settings(1, 0xFE03)
        self.assertEqual(parse_opening(data[:-1], None).settings, frozenset())
        self.assertEqual(parse_opening(data, None).settings, {1, 0xFE03})
        known = parse_opening(data + h2.settings(9) + b"\xff", None)
        self.assertEqual((known.settings, known.refused), ({1, 9, 0xFE03}, True))


class RefusedTests(SynchronousTestCase):
    def check(self, data: bytes, at: int | None = None) -> None:
        known, length = byte_by_byte(data)
        self.assertTrue(known.refused, data)
        self.assertEqual(length, len(data) if at is None else at, data)
        self.assertTrue(parse_opening(data, None).refused)

    def test_what_no_client_sends_is_refused(self) -> None:
        """The first byte off the preface refuses, and a first frame that is not SETTINGS."""
        self.check(b"PRI * HTTP/1.1\r\n", 12)
        self.check(b"POST", 2)
        for kind in (0, 1, 2, 6, 8, 0x10):
            self.check(PREFACE + h2.frame(kind, bytes(6)), 24 + 4)
        # Those that need an open stream or an answer of the server, or have a size or a stream that theirs cannot have, and others within a header section.
        for kind in (DATA, RST_STREAM, PUSH_PROMISE, GOAWAY, CONTINUATION):
            self.check(BEGINNING + h2.frame(kind, stream=1))
        for kind, size in ((SETTINGS, 0), (PING, 8)):
            self.check(BEGINNING + h2.frame(kind, bytes(size), flags=1)[:9])
        for kind, size, stream in (
            (SETTINGS, 5, 0), (SETTINGS, 6, 1), (PING, 7, 0), (PING, 8, 1), (WINDOW_UPDATE, 5, 0),
            (WINDOW_UPDATE, 4, 1), (PRIORITY, 4, 1), (PRIORITY, 5, 0), (1, 9, 0), (1, 9, 2),
        ):  # fmt: skip
            self.check(BEGINNING + h2.frame(kind, bytes(size), stream=stream)[:9])
        self.check(BEGINNING + b"\x00\x40\x01", len(BEGINNING) + 3)
        begun = BEGINNING + h2.request(SECTION[:4], flags=1)
        self.check(begun + h2.PING, len(begun) + 4)
        self.check(begun + h2.frame(CONTINUATION, stream=3))

    def test_a_header_section_has_to_be_right_of_a_request_and_not_too_large(self) -> None:
        entry = b"\x40\x01a" + b"\x7f\x81\x1d" + b"b" * 3840
        for section in (
            b"", b"\x80", b"\x82\x20", b"\x3f\xff\xff\xff\xff\xff\xff", b"\x20\x3f\xe1\x1f\x20\x82",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00\x7f", b"\x82\x04\x88\xff\xff",
            b"\x82" + entry + b"\xbe" * 40, h2.headers((":method", "GET"), (":method", "GET")),
            h2.headers((":path", "/")),
        ):  # fmt: skip
            self.check(BEGINNING + h2.request(section))
        # Padding and priority have to leave room for it.
        for content, flags in ((b"\x09" + bytes(8), 0xC), (bytes(4), 0x24), (b"", 0xC)):
            self.check(BEGINNING + h2.request(content, flags=flags))

    def test_a_request_ends_within_32_kib_and_200_frames(self) -> None:
        filler = h2.frame(0xFF, bytes(8000)) * 3
        request = h2.request(SECTION)
        rest = OPENING_LIMIT - len(BEGINNING + filler + request) - 9
        data = BEGINNING + filler + h2.frame(0xFF, bytes(rest)) + request
        self.assertEqual(len(data), OPENING_LIMIT)
        self.assertIsNotNone(parse_opening(data, None).fields)
        late = BEGINNING + filler + h2.frame(0xFF, bytes(rest + 1)) + request
        self.assertFalse(parse_opening(late[: OPENING_LIMIT - 1], None).refused)
        self.assertTrue(parse_opening(late, None).refused)
        begun = BEGINNING + h2.PING * (FRAMES_LIMIT - 2)
        self.assertIsNotNone(parse_opening(begun + h2.request(SECTION), None).fields)
        pieces = h2.request(b"", flags=1) + h2.frame(CONTINUATION, stream=1) * FRAMES_LIMIT
        for late in (begun + h2.PING, BEGINNING + pieces[: 9 * (FRAMES_LIMIT - 1)]):
            self.assertFalse(parse_opening(late[:-1], None).refused)
            opening, at = byte_by_byte(late + h2.request(SECTION))
            self.assertEqual((opening.refused, at), (True, len(late)))

    def test_many_small_frames_cost_the_same_for_each_byte_as_few(self) -> None:
        begun = BEGINNING + h2.request(b"", flags=1)
        for begin, repeated in ((BEGINNING, h2.PING), (begun, h2.frame(9, b"a", stream=1))):
            few, many = begin + repeated * 20, begin + repeated * 100
            cost = calls_in(partial(byte_by_byte, few)) / len(few)
            self.assertLess(calls_in(partial(byte_by_byte, many)) / len(many), 1.2 * cost)

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.binary(max_size=60).map(BEGINNING.__add__)
        | st.builds(lambda section: BEGINNING + h2.request(section), st.binary(max_size=60))
        | st.builds(
            lambda data, at, junk: data[:at] + junk + data[at + len(junk) :],
            st.sampled_from([h2.CURL, h2.NODE, BEGINNING + h2.request(SECTION)]),
            st.integers(0, 170),
            st.binary(max_size=3),
        )
    )
    def test_property_resuming(self, data: bytes) -> None:
        """Going on after any beginning gives what beginning again does, and nothing is raised."""
        earlier = None
        for length in range(len(data) + 1):
            earlier = parse_opening(data[:length], earlier)
            afresh = parse_opening(data[:length], None)
            found = (earlier.refused, earlier.settings, earlier.fields)
            self.assertEqual(found, (afresh.refused, afresh.settings, afresh.fields))
