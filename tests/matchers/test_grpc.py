"""The `grpc` matcher: the content type of the first request decides."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import verdicts_of
from tests.wire import http2_builder as h2
from txmux.interfaces import Verdict
from txmux.matchers.grpc import grpc
from txmux.wire.http2_opening import OPENING_LIMIT, PREFACE

MATCH, NO, NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE

SAMPLES = (h2.NODE, h2.GRPC_PYTHON)

POST = ((":method", "POST"), (":scheme", "http"), (":path", "/pkg.Service/Call"))

said = verdicts_of(grpc)


def typed(*content_types: str) -> bytes:
    """Make a request with these content types."""
    return h2.opening(*POST, *(("content-type", value) for value in content_types))


TOO_LONG = PREFACE + h2.SETTINGS + h2.frame(0xFF, bytes(16000)) * 3
AT = len(PREFACE) + 9 + 36
LATE = PREFACE + h2.settings(1) + h2.settings(2, 0xFE03)
MATCHED = (
    # A setting that only gRPC has is a match at the end of its frame, whatever
    # follows.
    (h2.GRPC_PYTHON, AT),
    (h2.GRPC_PYTHON[:AT] + b"\xff" * 20, AT),
    (LATE, len(LATE)),
)
REFUSED = (
    # What can be no request is a no at once.
    (b"GET / HTTP/1.1\r\n", 1),
    (PREFACE + h2.PING, 24 + 4),
    (TOO_LONG, OPENING_LIMIT),
)


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


class SettingTests(SynchronousTestCase):
    """Clients that send no request yet."""

    def test_waiting(self) -> None:
        """Without it, a client that waits for the server's SETTINGS is undecided."""
        for frames in (h2.SETTINGS, h2.SETTINGS + h2.WINDOW_UPDATE, h2.frame(4)):
            data = PREFACE + frames
            self.assertEqual(said(data), (NEED_MORE, len(data)))
