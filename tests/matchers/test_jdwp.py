"""The `jdwp` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.jdwp import jdwp
from txmux.testing import check_matcher

# Recorded from jdb of OpenJDK 17.0.15.
SAMPLES: tuple[bytes, ...] = (b"JDWP-Handshake",)


class ContractTests(SynchronousTestCase):
    """What begins a connection."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            jdwp,
            samples=[
                # The whole handshake is a match, whatever follows.
                (b"JDWP-Handshake", 14),
                (b"JDWP-Handshake\x00\x00\x00\x0b", 14),
            ],
            not_samples=[
                # The first other byte is a no.
                (b"jdwp-", 1),
                (b"JOIN #a\r\n", 2),
                (b"JDWP-handshake", 6),
            ],
            undecided=[b"JDWP-Handshak"],
        )
