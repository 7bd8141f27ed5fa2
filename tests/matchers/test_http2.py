"""The `http2` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.wire.http2_builder import CURL, NODE
from txmux.matchers.http2 import http2
from txmux.testing import check_matcher
from txmux.wire.http2_opening import PREFACE

SAMPLES = (CURL, NODE)


class ContractTests(SynchronousTestCase):
    """The preface decides, and nothing that follows is waited for."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            http2,
            samples=[
                # All 24 bytes are needed.
                *((sample, 24) for sample in SAMPLES),
                (PREFACE, 24),
            ],
            not_samples=[
                # The first byte off the preface is a no.
                (b"PROPFIND / HTTP/1.1\r\n", 3),
                (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 3),
                (b"PRI * HTTP/1.1\r\n", 12),
                (b"POST / HTTP/1.1\r\n", 2),
                (b"GET / HTTP/1.1\r\n", 1),
            ],
            undecided=[PREFACE[:23]],
        )
