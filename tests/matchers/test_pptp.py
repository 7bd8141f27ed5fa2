"""The `pptp` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.pptp import pptp
from txmux.testing import check_matcher

# Recorded from pptp 1.10.0 of Debian.
SAMPLES: tuple[bytes, ...] = (
    (
        bytes.fromhex("009c0001 1a2b3c4d 00010000 0100 0000 00000003 00000003 ffff 0001")
        + b"local".ljust(64, b"\0")
        + b"cananian".ljust(64, b"\0")
    ),
)


class ContractTests(SynchronousTestCase):
    """The request that starts the control connection."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            pptp,
            samples=[*((sample, 12) for sample in SAMPLES)],
            not_samples=[
                (b"\0\x9d", 2),
                (bytes.fromhex("009c0002"), 4),
                (bytes.fromhex("009c0001 1a2b3c4c"), 8),
                (bytes.fromhex("009c0001 1a2b3c4d 0002"), 10),
                (bytes.fromhex("009c0001 1a2b3c4d 0001 0001"), 12),
            ],
            undecided=[SAMPLES[0][:11]],
        )
