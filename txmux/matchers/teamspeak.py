"""Matches the first packet of a TeamSpeak 3 client, or a later one.

``TS3INIT1`` in the place of the sum, the number of the packet and of the client, 101 and 0, the type *init* without
encryption, the version of the client, and the first step of the handshake.
"""

from txmux.wire.cursor import Cursor
from txmux.wire.messages import MessageMatcher

_BEGINNING = b"TS3INIT1" + bytes.fromhex("0065 0000 88")
_VERSION = 4
_STEPS = (0, 2, 4)
"""The odd ones are the server's."""


def _read_init(cursor: Cursor) -> dict[str, str]:
    cursor.literal(_BEGINNING)
    cursor.take(_VERSION)
    cursor.one_of(_STEPS)
    return {}


teamspeak = MessageMatcher(
    "teamspeak", "TeamSpeak 3 clients", _read_init, source="ts3protocol.md of ReSpeak, section 2.1"
)
