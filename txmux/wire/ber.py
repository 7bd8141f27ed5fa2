"""Lengths in BER, the encoding of LDAP and Kerberos."""

from txmux.wire.cursor import Cursor, MalformedError

_INDEFINITE = 0x80


def read_length(cursor: Cursor, least: int, end: int) -> int:
    """Read the length of an element, short or long but definite (X.690, section 8.1.3).

    Args:
        cursor: Behind the element's tag.
        least: The smallest length that is allowed, in bytes.
        end: The place where the element is over at the latest.

    Raises:
        MalformedError: There is not such a length.
        ShortError: It is not there in full.
    """
    first = cursor.number(1, 0, _INDEFINITE + 4)
    if first > _INDEFINITE:
        size = first - _INDEFINITE
        return cursor.number(size, least, end - cursor.at - size)
    if first == _INDEFINITE or not least <= first <= end - cursor.at:
        raise MalformedError
    return first
