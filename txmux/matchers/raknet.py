"""Matches the first messages of a RakNet client, such as Minecraft, Bedrock Edition.

That is a ping, or one of the two requests to open a connection; in each of them the magic number of offline messages has
its place.
"""

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_PING, _PING_IF_OPEN, _OPEN_1, _OPEN_2 = 0x01, 0x02, 0x05, 0x07
_TIME = 8
_MAGIC = bytes.fromhex("00ffff00fefefefefdfdfdfd12345678")
_GUID = 8
_SHORTEST_OPEN_2 = 7 + 2 + _GUID


def _read_message(cursor: Cursor) -> dict[str, str]:
    kind = cursor.one_of({_PING, _PING_IF_OPEN, _OPEN_1, _OPEN_2})
    if kind in {_PING, _PING_IF_OPEN}:
        cursor.take(_TIME)
    cursor.literal(_MAGIC)
    if kind == _OPEN_1:
        version = cursor.number(1, 0, 0xFF)
        if any(cursor.data[cursor.at :]):
            raise MalformedError  # the rest is padding that probes the path's MTU
        return {"version": str(version)}
    if kind == _OPEN_2:
        cursor.take(_SHORTEST_OPEN_2)
    elif cursor.left:
        cursor.take(_GUID)  # older clients leave it out
        cursor.end()
    return {}


raknet = MessageMatcher(
    "raknet",
    "RakNet, as in Minecraft Bedrock Edition",
    _read_message,
    facts=("version",),
    source="RakNet's MessageIdentifiers.h and RakPeer.cpp (ID_UNCONNECTED_PING, ID_OPEN_CONNECTION_REQUEST_1 and _2)",
)
