"""Matches the first message of a Bitcoin node that speaks the version 1 transport.

That is the magic of a network, four bytes, and the command ``version`` padded with NULs to twelve bytes. BIP 324
tells the two transports apart by the same 16 bytes; its version 2 begins with a random public key and does not match.
"""

from txmux.wire import Pattern, PlainMatcher

_MAIN = rb"\xf9\xbe\xb4\xd9"
_TESTNET3 = rb"\x0b\x11\x09\x07"
_TESTNET4 = rb"\x1c\x16\x3f\x28"
_SIGNET = rb"\x0a\x03\xcf\x40"
_REGTEST = rb"\xfa\xbf\xb5\xda"
_NETWORKS = b"|".join((_MAIN, _TESTNET3, _TESTNET4, _SIGNET, _REGTEST))

bitcoin = PlainMatcher(
    "bitcoin",
    "Bitcoin nodes, by their version message (version 1 transport)",
    Pattern(rb"(?:%b)version\x00{5}" % _NETWORKS),
    source='"Message structure", Bitcoin protocol documentation; pchMessageStart in Bitcoin Core\'s kernel/chainparams.cpp',
)
