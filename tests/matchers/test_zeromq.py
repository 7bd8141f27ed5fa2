"""The `zeromq` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.zeromq import zeromq
from txmux.testing import check_matcher

# Recorded from pyzmq 27 (libzmq 4.3.5), which then waits; then as ZMTP leaves the length open.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("ff00000000000000017f"),
    bytes.fromhex("ff00000000000000007f"),
    bytes.fromhex("ff00000000000000057f 03"),
)


class ContractTests(SynchronousTestCase):
    """The signature."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            zeromq,
            samples=[*((sample, 10) for sample in SAMPLES)],
            not_samples=[
                (b"\x01", 1),
                # Telnet, and BGP.
                (b"\xff\xfb", 2),
                (b"\xff\xff", 2),
                (bytes.fromhex("ff000000000001"), 7),
                (bytes.fromhex("ff00000000000002"), 8),
                (bytes.fromhex("ff000000000000000180"), 10),
            ],
            undecided=[*(sample[:9] for sample in SAMPLES)],
        )
