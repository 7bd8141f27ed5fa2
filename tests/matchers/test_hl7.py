"""The `hl7` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.hl7 import hl7
from txmux.testing import check_matcher

# Recorded from mllp_send of hl7 0.4.5; the others are made by hand after the standard.
SAMPLES: tuple[bytes, ...] = (
    b"\x0bMSH|^~\\&|SEND|FAC|RECV|FAC2|20260101120000||ADT^A01|1|P|2.3\rPID|1||555-44-4444\x1c\r",
    b"\x0bMSH#^~\\&#LAB#",
    b"\x0bFHS|^~\\&|SEND\r",
    b"\x0bBHS|^~\\&|SEND\r",
)


class ContractTests(SynchronousTestCase):
    """The first segment."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            hl7,
            samples=[*((sample, 5) for sample in SAMPLES)],
            not_samples=[
                (b"MSH|", 1),
                (b"\x0bPID|", 2),
                (b"\x0bMSA|", 4),
                (b"\x0bMSHA", 5),
                (b"\x0bMSH9", 5),
                (b"\x0bMSH ", 5),
                (b"\x0bMSH\r", 5),
            ],
            undecided=[b"\x0b", b"\x0bMSH"],
        )
