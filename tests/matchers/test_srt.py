"""The `srt` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.srt import srt
from txmux.testing import check_datagrams

# Recorded from srt-live-transmit 1.5.1; then a rendezvous, made by hand after the draft.
DATAGRAMS = (
    bytes.fromhex(
        "8000000000000000000000850000000000000004000000027fde4642000005dc00002000000000"
        "010c6692b7000000000100007f000000000000000000000000"
    ),
    bytes.fromhex(
        "80000000000000000000012a0000000000000005000000007fde4642000005dc00002000000000"
        "000c6692b75a5b5c5d0100007f000000000000000000000000"
    ),
)


class ContractTests(SynchronousTestCase):
    """All fields of the handshake."""

    def test_contract(self) -> None:
        """The first packet, whole."""
        first = DATAGRAMS[0]
        check_datagrams(
            srt,
            samples=DATAGRAMS,
            not_samples=[
                first[:-1],
                first + b"\0",
                b"\x80\x02" + first[2:],
                first[:15] + b"\1" + first[16:],
                first[:19] + b"\6" + first[20:],
                first[:30] + b"\0\0" + first[32:],
                first[:39] + b"\2" + first[40:],
                # With the server's cookie it is the second one.
                first[:44] + b"abcd" + first[48:],
                first[:36] + b"\xff" * 4 + first[40:],
                b"\x80",
            ],
        )
