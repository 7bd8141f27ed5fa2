"""The `stomp` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.stomp import stomp
from txmux.testing import check_matcher

# The examples of STOMP 1.2, and a client of 1.0.
SAMPLES = (
    b"CONNECT\naccept-version:1.0,1.1,1.2\nhost:stomp.github.org\n\n\x00",
    b"STOMP\r\naccept-version:1.2\r\nhost:/\r\nheart-beat:0,0\r\n\r\n\x00",
    b"CONNECT\nlogin:guest\npasscode:guest\n\n\x00\n",
)


class ContractTests(SynchronousTestCase):
    """The first line decides."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            stomp,
            samples=[
                # Its LF is a match.
                *((sample, sample.index(b"\n") + 1) for sample in SAMPLES),
                (b"CONNECT\r\n", 9),
            ],
            not_samples=[
                # The first other byte is a no, as with HTTP.
                (b"CONNECT example.com:443 HTTP/1.1\r\n", 8),
                (b"CONNECTED\n", 8),
                (b"SEND\n", 2),
                (b"SSH-2.0-OpenSSH\r\n", 2),
                (b"STOMP\r\r", 7),
                (b"connect\n", 1),
                (b"\nCONNECT\n", 1),
            ],
            undecided=[*(b"CONNECT", b"STOMP\r", b"S")],
        )
