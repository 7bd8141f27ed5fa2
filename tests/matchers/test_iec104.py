"""The `iec104` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.iec104 import iec104
from txmux.testing import check_matcher

# Recorded from c104 2.2 (lib60870): it starts the transfer; then a station that tests the connection first, made by hand.
SAMPLES: tuple[bytes, ...] = (bytes.fromhex("680407000000"), bytes.fromhex("680443000000"))


class ContractTests(SynchronousTestCase):
    """The two frames with which a station begins."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            iec104,
            samples=[*((sample, 6) for sample in SAMPLES)],
            not_samples=[
                (b"hello", 2),
                # Numbered, an acknowledgement, and the answer of the other side.
                (bytes.fromhex("680e"), 2),
                (bytes.fromhex("680401"), 3),
                (bytes.fromhex("68040b"), 3),
                (bytes.fromhex("680407000001"), 6),
            ],
            undecided=[*(sample[:5] for sample in SAMPLES)],
        )
