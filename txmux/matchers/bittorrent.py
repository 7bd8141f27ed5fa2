"""The matcher for BitTorrent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.automaton import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.matchers.regex import RegexPredicate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BittorrentMatcher"]

_HANDSHAKE = rb"\x13BitTorrent protocol"
_PREDICATE = RegexPredicate(compile_pattern(_HANDSHAKE), 20)


@implementer(IProtocolMatcher)
class BittorrentMatcher:
    """Matches the handshake of a BitTorrent peer (BEP 3, "peer protocol").

    That is the byte 19 and the 19 characters ``BitTorrent protocol``. Obfuscated handshakes (Message Stream
    Encryption) begin with a random public key and are none.
    """

    name = "bittorrent"
    summary = "BitTorrent peers, by their handshake in clear"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _PREDICATE
