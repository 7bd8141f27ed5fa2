"""The first message of a TLS client in the format of SSL 2.0, which old clients sent for compatibility."""

from txmux.wire.cursor import Cursor, MalformedError

_FIXED = 9
_LEAST, _MOST = _FIXED + 3 + 16, 0x1FF
FIRST_BYTES = frozenset({0x80, 0x81})
"""It begins with its length, whose highest bit is set; up to 511 bytes of it are plausible."""


def read_sslv2_beginning(cursor: Cursor) -> tuple[int, int]:
    """Read the length, the type and the version of the message (RFC 5246, appendix E.2).

    Returns:
        Where the message ends, and the highest version that the client offers.

    Raises:
        MalformedError: They are none, whatever follows.
        ShortError: They are not there in full.
    """
    size = cursor.number(2, 0x8000 | _LEAST, 0x8000 | _MOST) & 0x7FFF
    end = cursor.at + size
    cursor.number(1, 1, 1)
    major = cursor.number(1, 0, 3)
    if major == 0:
        return end, cursor.number(1, 2, 2)
    if major != 3:
        raise MalformedError
    return end, 0x0300 | cursor.number(1, 0, 4)


def read_sslv2_hello(cursor: Cursor) -> int:
    """Read the whole message.

    Returns:
        The highest version that the client offers.

    Raises:
        MalformedError: It is none, whatever follows.
        ShortError: It is not there in full.
    """
    end, version = read_sslv2_beginning(cursor)
    room = end - cursor.at - 6
    cipher_suites = cursor.number(2, 3, room - 16)
    if cipher_suites % 3:
        raise MalformedError
    session_id = cursor.number(2, 0, min(16, room - 16 - cipher_suites))
    challenge = room - cipher_suites - session_id
    if session_id % 16 or challenge > 32:
        raise MalformedError
    cursor.number(2, challenge, challenge)
    cursor.take(room)
    return version
