"""The `bittorrent` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.bittorrent import bittorrent
from txmux.testing import check_matcher

# The reserved bytes of libtorrent (extensions, DHT, fast) and of qBittorrent; hash and peer as BEP 3 and BEP 20 say.
SAMPLES = (
    b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05"
    + bytes.fromhex("dd8255ecdc7ca55fb0bbf81323d87062db1f6d1c")
    + b"-qB4650-)1ZrSdGq9CxK",
    b"\x13BitTorrent protocol"
    + bytes(8)
    + bytes.fromhex("2b66980093bc11806fab50cb3cb41835b95a0362"),
)


class ContractTests(SynchronousTestCase):
    """The first twenty bytes."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            bittorrent,
            samples=[
                # They are enough.
                *((sample, 20) for sample in SAMPLES),
            ],
            not_samples=[
                # The first byte that differs is a no.
                (b"BitTorrent protocol", 1),
                (b"\x13\x02rest", 2),
                (b"\x13BitTorrent Protocol", 13),
            ],
            undecided=[
                SAMPLES[0][:19],
            ],
        )
