"""Matches the handshake of a BitTorrent peer.

That is the byte 19 and the 19 characters ``BitTorrent protocol``. Obfuscated handshakes (Message Stream Encryption)
begin with a random public key and are none.
"""

from __future__ import annotations

from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Prefix

bittorrent = PlainMatcher(
    "bittorrent",
    "BitTorrent peers, by their handshake in clear",
    Prefix(b"\x13BitTorrent protocol"),
    source='BEP 3, "peer protocol"',
)
