"""The `bolt` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.bolt import bolt
from txmux.testing import check_matcher

# Recorded from the driver neo4j 6.0 for Python; then as older drivers begin.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("6060b017 000001ff 00080805 00020404 00000003"),
    bytes.fromhex("6060b017 00000004 00000003 00000002 00000001"),
)


class ContractTests(SynchronousTestCase):
    """The magic."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            bolt,
            samples=[*((sample, 4) for sample in SAMPLES)],
            not_samples=[(b"\x60\x61", 2), (b"\x60\x60\xb0\x18", 4), (b"GET", 1)],
            undecided=[SAMPLES[0][:3]],
        )
