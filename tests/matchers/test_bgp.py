"""The `bgp` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.bgp import bgp
from txmux.testing import check_matcher

# The beginning of what ExaBGP 5.0 sends, and all of what GoBGP 3.10 does.
SAMPLES: tuple[bytes, ...] = (
    b"\xff" * 16 + bytes.fromhex("00d1 01 04 fbf4 00b4 c0000201 b4 0206 0104 0001 0001"),
    b"\xff" * 16
    + bytes.fromhex(
        "003b 01 04 fbf4 005a c0000201 1e 021c 020049040272310001040001000141040000fbf40506000100010002"
    ),
)


class ContractTests(SynchronousTestCase):
    """The marker, the length, the type and the version."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        marker = b"\xff" * 16
        check_matcher(
            bgp,
            samples=[*((sample, 20) for sample in SAMPLES)],
            not_samples=[
                (b"\xff\xfb\x18", 2),
                (b"\xff\x00", 2),
                (b"\xff" * 17, 17),
                (marker + b"\x10\x01", 18),
                (marker + b"\x00\x1c", 18),
                # A KEEPALIVE, and version 3.
                (marker + b"\x00\x1d\x04", 19),
                (marker + b"\x00\x1d\x01\x03", 20),
            ],
            undecided=[*(sample[:19] for sample in SAMPLES)],
        )
