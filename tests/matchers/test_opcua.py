"""The `opcua` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.opcua import opcua
from txmux.testing import check_matcher

# Recorded from asyncua 2.1.0; the second is made by hand after the specification, with the largest address.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("48454c46 40000000 00000000 ffffff7f ffffff7f 00000000 00000000 20000000")
    + b"opc.tcp://127.0.0.1:45249/server",
    bytes.fromhex("48454c46 20100000 00000000 ffff0000 ffff0000 00000000 00000000 00100000"),
    bytes.fromhex("48454c46 00020000 00000000 ffff0000 ffff0000 00000000 00000000 e0010000"),
)


class ContractTests(SynchronousTestCase):
    """The Hello."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            opcua,
            samples=[*((sample, 12) for sample in SAMPLES)],
            not_samples=[
                (b"HELO example.com", 4),
                (b"HELF\x1f\0", 6),
                (b"HELF\x21\x10", 6),
                (b"HELF\0\x11", 6),
                (b"HELF\x40\0\1", 7),
                (b"HELF\x40\0\0\0\1", 9),
                (b"RHEF", 1),
                (b"OPNF", 1),
                (b"ACKF", 1),
            ],
            undecided=[SAMPLES[0][:11]],
        )
