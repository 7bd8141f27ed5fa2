"""The `x11` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.x11 import x11
from txmux.testing import check_matcher

SAMPLES = (
    # libX11 1.8.4 with libxcb 1.15 over TCP, with a cookie and without; the last is made by hand, of a big-endian machine.
    bytes.fromhex("6c00 0b00 0000 1200 1000 0000") + b"MIT-MAGIC-COOKIE-1\0\0" + bytes(range(16)),
    bytes.fromhex("6c00 0b00 0000 0000 0000 0000"),
    bytes.fromhex("4200 000b 0000 0000 0000 0000"),
)


class ContractTests(SynchronousTestCase):
    """Byte order and versions."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            x11,
            samples=[
                # The minor version decides, in either byte order.
                *((sample, 6) for sample in SAMPLES),
                # The byte that is not used may have any value.
                (b"l\n\x0b\x00\x00\x00", 6),
            ],
            not_samples=[
                # Another byte order, another version, and a version in the other byte order
                # are a no.
                (b"L", 1),
                (b"l\x00\x00\x0b", 3),
                (b"l\x00\x0a", 3),
                (b"B\x00\x0b\x00", 3),
                (b"l\x00\x0b\x00\x01", 5),
                (b"B\x00\x00\x0b\x00\x01", 6),
                # Text is no X11.
                (b"lkf2mztq5xyh3abc7nop4rstu6vwdegijlkq\0", 3),
                (b"BREW / HTTP/1.1\r\n", 3),
            ],
            undecided=[*(sample[:5] for sample in SAMPLES)],
        )
