"""The `thrift` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.thrift import thrift
from txmux.testing import check_matcher

# Recorded from thrift 0.25.0 of PyPI: the binary and the compact protocol, and both in frames. Then made by hand after the
# specification: oneway calls, and a sequence number and a name of two bytes.
SAMPLES: tuple[bytes, ...] = (
    bytes.fromhex("80010001 00000004") + b"ping" + bytes(5),
    bytes.fromhex("822100 04") + b"ping\0",
    bytes.fromhex("00000011 80010001 00000004") + b"ping" + bytes(5),
    bytes.fromhex("00000009 822100 04") + b"ping\0",
    bytes.fromhex("80010004 00000003") + b"log" + bytes(5),
    bytes.fromhex("8281 ac02 8101") + b"a" * 129 + b"\0",
)


class ContractTests(SynchronousTestCase):
    """The beginning of the call."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        check_matcher(
            thrift,
            samples=[*zip(SAMPLES, (9, 5, 13, 9, 9, 7), strict=True)],
            not_samples=[
                (b"\x80\2", 2),
                (b"\x80\1\0\2", 4),
                (b"\x80\1\0\1\0\0\1", 7),
                (b"\x80\1\0\1\0\0\0\0", 8),
                (b"\x80\1\0\1\0\0\0\1 ", 9),
                (b"\x82\x41", 2),
                (b"\x82\x22", 2),
                (b"\x82\x21\0\0", 4),
                (b"\x82\x21\xff\xff\xff\xff\xff", 7),
                (b"\0\0\0\x11\x80\2", 6),
                (b"\0\0\0\x11\x0f\xff", 5),
                (b"\1", 1),
                # The old binary protocol, SSL 2.0, memcached and SunRPC.
                (b"\0\0\0\4ping", 5),
                (bytes.fromhex("802e0103"), 2),
                (b"\x82\x21\1\3\1", 5),
                (bytes.fromhex("800c0008"), 2),
                (bytes.fromhex("80000058"), 2),
            ],
            undecided=[SAMPLES[0][:8], SAMPLES[1][:4], SAMPLES[5][:6]],
        )
