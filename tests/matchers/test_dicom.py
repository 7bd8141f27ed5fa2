"""The `dicom` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.dicom import dicom
from txmux.testing import check_matcher

# The beginnings of what these send: echoscu of DCMTK 3.6.7, and pynetdicom 3.0.4.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("0100 000000cd 0001 0000") + b"ANY-SCP         ECHOSCU         " + bytes(32),
    bytes.fromhex("0100 00000119 0001 0000") + b"PACS            STORESCU        " + bytes(32),
)


class ContractTests(SynchronousTestCase):
    """The request up to the first character of a title."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            dicom,
            samples=[*((sample, 11) for sample in SAMPLES)],
            not_samples=[
                (b"\2", 1),
                (b"\1\1", 2),
                (bytes.fromhex("0100 00000043"), 6),
                (bytes.fromhex("0100 01"), 3),
                (bytes.fromhex("0100 000000cd 0002"), 8),
                (bytes.fromhex("0100 000000cd 0001 0001"), 10),
                (bytes.fromhex("0100 000000cd 0001 0000 00"), 11),
                # Radmin, and Raft.
                (bytes.fromhex("0100000005000002"), 8),
                (bytes.fromhex("0100000000000000"), 6),
            ],
            undecided=[sample[:10] for sample in SAMPLES],
        )
