"""Matches the CONNECT of an Apache Pulsar client.

The length of all and of the command, of which the first is the other and its own four bytes; then in Protocol Buffers the
type of the command, CONNECT, the length of what it says, and the version of the client.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_SHORTEST, _LONGEST = 7, (1 << 20) - 1
_TYPE_IS_CONNECT = b"\x08\x02"
_CONNECT, _CLIENT_VERSION = 0x12, 0x0A
_MOST_DIGITS = 3
"""Bytes of the length of what the command says, with seven bits in each."""


def _read_connect(cursor: Cursor) -> None:
    size = cursor.number(4, _SHORTEST + 4, _LONGEST + 4) - 4
    cursor.number(4, size, size)
    end = cursor.at + size
    cursor.literal(_TYPE_IS_CONNECT)
    cursor.number(1, _CONNECT, _CONNECT)
    inner = digit = 0
    for place in range(_MOST_DIGITS):
        digit = cursor.number(1, 0, 0xFF)
        inner |= (digit & 0x7F) << 7 * place
        if digit < 0x80:
            break
    if digit >= 0x80 or cursor.at + inner != end:
        raise MalformedError
    cursor.number(1, _CLIENT_VERSION, _CLIENT_VERSION)


pulsar = PlainMatcher(
    "pulsar",
    "Apache Pulsar, by the CONNECT command",
    Fields(_read_connect, longest=4 + 4 + 3 + _MOST_DIGITS + 1),
    source='"Pulsar binary protocol specification", "Framing"; PulsarApi.proto',
)
