"""The `cassandra` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.cassandra import cassandra
from txmux.testing import check_matcher

OPTIONS = b"\x04\x00\x00\x00\x05\x00\x00\x00\x00"
STARTUP = b"\x04\x00\x00\x01\x01\x00\x00\x00\x16\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0"

# Written after the specifications, with the versions that the DataStax drivers for Java and Python try first.
SAMPLES: tuple[bytes, ...] = (
    OPTIONS,
    STARTUP,
    b"\x05" + STARTUP[1:],
    b"\x05\x10" + OPTIONS[2:],
    b"\x03" + OPTIONS[1:],
    b"\x41" + STARTUP[1:],
    b"\x42" + OPTIONS[1:],  # recorded from the driver for Python, 3.25.0
)


class ContractTests(SynchronousTestCase):
    """What begins a connection."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        rdp = b"\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00"
        check_matcher(
            cassandra,
            samples=[
                # The header of an OPTIONS or STARTUP frame is a match, in every version.
                *((sample, 9) for sample in SAMPLES)
            ],
            not_samples=[
                # The first field that is off is a no.
                (b"\x02\x00\x00\x05", 1),
                (b"\x84" + OPTIONS[1:], 1),
                (b"\x04\x01" + STARTUP[2:], 2),
                (b"\x04\x00\xff\xff\x05", 3),
                (b"\x04\x00\x00\x00\x07\x00\x00\x00\x20", 5),
                (OPTIONS[:8] + b"\x01", 9),
                (STARTUP[:8] + b"\x05", 9),
                (STARTUP[:5] + b"\x00\x01\x00\x00", 7),
                # RDP, SOCKS 4 and SOCKS 5 begin with the same bytes as versions 3, 4 and 5.
                (rdp, 5),
                (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", 2),
                (b"\x04\x02\x00\x50\x01\x00\x00\x00\x00", 2),
                (b"\x05\x01\x00", 2),
                (b"\x05\x02\x00\x02", 2),
                (b"BFP/1.0\r\n", 2),
            ],
            undecided=[OPTIONS[:8]],
        )
