"""The matcher for Bitcoin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BitcoinMatcher"]

_MAIN = rb"\xf9\xbe\xb4\xd9"
_TESTNET3 = rb"\x0b\x11\x09\x07"
_TESTNET4 = rb"\x1c\x16\x3f\x28"
_SIGNET = rb"\x0a\x03\xcf\x40"
_REGTEST = rb"\xfa\xbf\xb5\xda"
_NETWORKS = b"|".join((_MAIN, _TESTNET3, _TESTNET4, _SIGNET, _REGTEST))
_PREDICATE = RegexPredicate(compile_pattern(rb"(?:%b)version\x00{5}" % _NETWORKS), 16)


@implementer(IProtocolMatcher)
class BitcoinMatcher:
    """Matches the first message of a Bitcoin node that speaks the version 1 transport.

    That is the magic of a network, four bytes (``pchMessageStart`` in Bitcoin Core's ``kernel/chainparams.cpp``),
    and the command ``version`` padded with NULs to twelve bytes ("Message structure", Bitcoin protocol
    documentation). BIP 324 tells the two transports apart by the same 16 bytes; its version 2 begins with a random
    public key and is no match.
    """

    name = "bitcoin"
    summary = "Bitcoin nodes, by their version message (version 1 transport)"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
