"""The `rmi` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.rmi import rmi
from txmux.testing import check_matcher

# Recorded from the registry's client in OpenJDK 17.0.15, which waits then; the others are made by hand after the specification.
SAMPLES: tuple[bytes, ...] = (b"JRMI\0\2\x4b", b"JRMI\0\2\x4c\x50\xac\xed\0\5", b"JRMI\0\1\x4d")


class ContractTests(SynchronousTestCase):
    """The header of the connection."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            rmi,
            samples=[*((sample, 7) for sample in SAMPLES)],
            not_samples=[
                (b"JRMJ", 4),
                (b"JDWP-Handshake", 2),
                (b"JRMI\1", 5),
                (b"JRMI\0\0", 6),
                (b"JRMI\0\3", 6),
                (b"JRMI\0\2\x4e", 7),
            ],
            undecided=[b"J", b"JRMI\0\2"],
        )
