"""The `stun` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.stun import stun
from txmux.testing import check_matcher

# The beginning of the request of RFC 5769, section 2.1; Allocate and ConnectionBind made by hand after RFC 8656 and
# RFC 6062.
SAMPLES = (
    bytes.fromhex("0001 0058 2112a442 b7e7a701bc34d686fa87dfae 8022 0010") + b"STUN test client",
    bytes.fromhex("0003 0008 2112a442 6b6f7a3b5c2d1e0f9a8b7c6d 0019 0004 06000000"),
    bytes.fromhex("000b 0008 2112a442 0123456789abcdef01234567 002a 0004 00000001"),
    # The beginning of a check of ICE over TCP, from nDPI's tests/cfgs/default/pcap/stun.pcap.
    bytes.fromhex("0068 0001 0054 2112a442 f3439453b698fb2950bb06ed 0006 0009 2f7049303a546f4564"),
)
PLAIN, FRAMED = SAMPLES[:3], SAMPLES[3]


class ContractTests(SynchronousTestCase):
    """Type, length and magic cookie."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            stun,
            samples=[
                # The end of the magic cookie decides.
                *((sample, 8) for sample in PLAIN),
                # With a length before it, as ICE sends it over TCP, both lengths have to
                # agree.
                (FRAMED, 10),
            ],
            not_samples=[
                # With a length before it, as ICE sends it over TCP, both lengths have to
                # agree.
                *(
                    (bytes.fromhex(data), at)
                    for data, at in (
                        ("0068 0003", 4),
                        ("0068 0101", 3),
                        ("0068 0001 0058", 6),
                        ("0018 0001 0000", 6),
                        ("1014 0001", 2),
                        ("0068 0001 0054 2112a443", 10),
                    )
                ),
                # Answers, other requests, odd lengths and the lack of the cookie are a no.
                *(
                    (bytes.fromhex(data), at)
                    for data, at in (
                        ("0101", 2),
                        ("0011", 2),
                        ("0000", 2),
                        ("0002", 2),
                        ("0001 0002", 4),
                        ("0001 10", 3),
                        ("0013", 2),
                        ("0001 0000 2113", 6),
                        ("0001 0000 2112a443", 8),
                    )
                ),
                # Others that begin with a zero are a no.
                *(
                    (bytes.fromhex(data), at)
                    for data, at in (
                        ("00000008 04d2162f", 2),
                        ("00010012 00040000", 4),
                        ("00016e", 3),
                        ("000e38", 2),
                        ("003038", 3),
                        ("001d 1234 0100", 2),
                        ("0020 1234 0100", 3),
                        ("0020 0001 0100", 5),
                        ("00000054 fe534d42", 2),
                    )
                ),
            ],
            undecided=[
                *(sample[:7] for sample in PLAIN),
                FRAMED[:9],
            ],
        )
