"""The `dnp3` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.dnp3 import dnp3
from txmux.testing import check_datagrams, check_matcher

# From nDPI's tests/cfgs/default/pcap/dnp3.pcap: a master resets the link, and one asks at once; the last two are made by hand.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("056408c404000300b4b8 c0d7007ace05"),
    bytes.fromhex("056411c4040003004eef c2c2153c02063c03063c0406b1ec"),
    bytes.fromhex("056405c904000300b620"),
    bytes.fromhex("056405c001000004e921"),
)
DATAGRAMS = SAMPLES[:3]


class ContractTests(SynchronousTestCase):
    """The header of a frame, and its sum."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            dnp3,
            samples=[*((sample, 10) for sample in SAMPLES)],
            not_samples=[
                (b"\x05\x01\x00", 2),
                (bytes.fromhex("056404"), 3),
                # Of the other side, and functions that there are not.
                (bytes.fromhex("05640584"), 4),
                (bytes.fromhex("056405c1"), 4),
                (bytes.fromhex("056405ca"), 4),
                (bytes.fromhex("056408c404000300b4b9"), 10),
                (bytes.fromhex("056408c404000301b4b8"), 10),
            ],
            undecided=[*(sample[:9] for sample in SAMPLES)],
        )

    def test_datagrams(self) -> None:
        """A datagram begins with such a header, too."""
        check_datagrams(
            dnp3, samples=DATAGRAMS, not_samples=[DATAGRAMS[0][:9], b"\x05\x64" + bytes(8)]
        )
