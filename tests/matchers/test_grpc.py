"""The `grpc` matcher."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.segmentation import Decided, decided
from tests.wire import http2_builder as h2
from txmux.interfaces import Verdict
from txmux.matchers.grpc import grpc
from txmux.wire.http2_opening import OPENING_LIMIT, PREFACE

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SAMPLES = (h2.NODE, h2.GRPC_PYTHON)

POST = ((":method", "POST"), (":scheme", "http"), (":path", "/pkg.Service/Call"))


def said(data: bytes) -> Decided:
    """Give the verdict on a sample and the byte it came at."""
    return decided(grpc.predicate({}), data)


def typed(*content_types: str) -> bytes:
    """Make a request with these content types."""
    return h2.opening(*POST, *(("content-type", value) for value in content_types))


class ContentTypeTests(SynchronousTestCase):
    """The content type of the first request decides."""

    def test_match(self) -> None:
        """It is that of gRPC, with any format, at the end of the header section."""
        self.assertEqual(said(h2.NODE), (MATCH, len(h2.NODE) - 9))
        for value in (
            "application/grpc",
            "application/grpc+proto",
            "application/grpc+json",
            "application/grpc;charset=utf-8",
            "application/GRPC ; a=b",
        ):
            data = typed(value)
            self.assertEqual(said(data + b"\0"), (MATCH, len(data)), value)

    def test_no(self) -> None:
        """Any other is a no there, gRPC-Web included; so is none, or only a later one."""
        for values in (
            ("application/json",),
            ("application/grpc-web+proto",),
            ("application/grpcweb",),
            ("xapplication/grpc",),
            ("text/plain", "application/grpc"),
            (),
        ):
            data = typed(*values)
            self.assertEqual(said(data), (NO, len(data)), values)
        self.assertIs(said(h2.CURL).verdict, NO)

    def test_refused(self) -> None:
        """What can be no request is a no at once."""
        self.assertEqual(said(b"GET / HTTP/1.1\r\n"), (NO, 1))
        self.assertEqual(said(PREFACE + h2.PING), (NO, 24 + 4))
        too_long = PREFACE + h2.SETTINGS + h2.frame(0xFF, bytes(16000)) * 3
        self.assertEqual(said(too_long), (NO, OPENING_LIMIT))


class SettingTests(SynchronousTestCase):
    """Clients that send no request yet."""

    def test_own_setting(self) -> None:
        """A setting that only gRPC has is a match at the end of its frame, whatever follows."""
        at = len(PREFACE) + 9 + 36
        self.assertEqual(said(h2.GRPC_PYTHON), (MATCH, at))
        self.assertEqual(said(h2.GRPC_PYTHON[:at] + b"\xff" * 20), (MATCH, at))
        late = PREFACE + h2.settings(1) + h2.settings(2, 0xFE03)
        self.assertEqual(said(late), (MATCH, len(late)))

    def test_waiting(self) -> None:
        """Without it, a client that waits for the server's SETTINGS is undecided."""
        for frames in (h2.SETTINGS, h2.SETTINGS + h2.WINDOW_UPDATE, h2.frame(4)):
            data = PREFACE + frames
            self.assertEqual(said(data), (NEED_MORE, len(data)))


class PropertyTests(SynchronousTestCase):
    """The contract of a predicate."""

    @settings(max_examples=100, deadline=None)
    @given(
        st.binary(max_size=30)
        | st.builds(
            lambda data, at, junk: data[:at] + junk + data[at + len(junk) :],
            st.sampled_from([h2.NODE, h2.GRPC_PYTHON, typed("application/grpc")]),
            st.integers(0, 170),
            st.binary(max_size=3),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes at all get one answer, however they are cut."""
        said(data)
