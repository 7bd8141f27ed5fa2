"""The `enip` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.enip import enip
from txmux.testing import check_datagrams, check_matcher

# Recorded from pycomm3 1.2.14: it registers a session; the others are made by hand after packet-enip.c of Wireshark.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("6500 0400 00000000 00000000 5f7079636f6d6d5f 00000000 0100 0000"),
    bytes.fromhex("6300 0000 00000000 00000000 0000c1debed10000 00000000"),
    bytes.fromhex("0400 0000 00000000 00000000 0000000000000000 00000000"),
)
ENDS = (28, 24, 24)
DATAGRAMS = SAMPLES[1:]


class ContractTests(SynchronousTestCase):
    """The header, and the version behind a registration."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            enip,
            samples=[*zip(SAMPLES, ENDS, strict=True)],
            not_samples=[
                (b"POST", 1),
                (b"e ", 2),
                # A session that has been registered, and data in it.
                (bytes.fromhex("6f00"), 1),
                (bytes.fromhex("6500 0000"), 3),
                (bytes.fromhex("6300 0400"), 3),
                (bytes.fromhex("6500 0400 01"), 5),
                (bytes.fromhex("6500 0400 00000000 01"), 9),
                (SAMPLES[0][:20] + b"\1", 21),
                (SAMPLES[0][:24] + b"\2", 25),
            ],
            undecided=[*(sample[: end - 1] for sample, end in zip(SAMPLES, ENDS, strict=True))],
        )

    def test_datagrams(self) -> None:
        """A device is asked by datagrams, too."""
        check_datagrams(enip, samples=DATAGRAMS, not_samples=[DATAGRAMS[0][:23], b"c"])
