"""The `l2tp` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.asking import datagram_facts_of
from txmux.matchers.l2tp import l2tp
from txmux.testing import check_datagrams

facts_of = datagram_facts_of(l2tp)


# Recorded from xl2tpd 1.3.18; then version 3, made by hand after RFC 3931.
DATAGRAMS = (
    bytes.fromhex(
        "c8020063000000000000000080080000000000018008000000020100800a000000030000000380"
        "0a000000040000000000080000000606908008000000076c6300130000000878656c6572616e63"
        "652e636f6d800800000009d50980080000000a0004"
    ),
    bytes.fromhex("c803 0014 00000000 0000 0000 8008 0000 0000 0001"),
)


class ContractTests(SynchronousTestCase):
    """The header, the first attribute, and the lengths of all."""

    def test_contract(self) -> None:
        """The first request, whole."""
        first = DATAGRAMS[0]
        check_datagrams(
            l2tp,
            samples=DATAGRAMS,
            not_samples=[
                first[:-1],
                first + b"\0",
                # Another message, a tunnel that is there, data, reserved bits, and an attribute that is too short.
                first[:19] + b"\2" + first[20:],
                first[:5] + b"\1" + first[6:],
                b"\x02" + first[1:],
                first[:1] + b"\x01" + first[2:],
                first[:20] + b"\x84" + first[21:],
                first[:20] + b"\x80\x04" + first[22:],
                first[:12],
                b"\xc8",
            ],
        )
        self.assertEqual([facts_of(one)["version"] for one in DATAGRAMS], ["2", "3"])
