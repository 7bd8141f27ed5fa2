"""Matches the first packet of an SMB client, on port 445 or on port 139.

On port 445: the length behind a zero, and a negotiate request of SMB 1 or the header of SMB 2 and 3. On port 139: a
NetBIOS session request with a called name without scope.
"""

from txmux.wire import Cursor, Fields, PlainMatcher

_MESSAGE, _SESSION_REQUEST = 0x00, 0x81
_SMB1, _SMB2 = 0xFF, 0xFE
_SMB1_NEGOTIATE = b"\x72"
_SMB2_HEADER_SIZE = b"\x40\x00"
_SHORTEST_NEGOTIATE = 32 + 1 + 2
_LONGEST_NEGOTIATE = 0xFFFF
_NAME_LENGTH = 32
_NAME = range(ord("A"), ord("P") + 1)


def _read_first_packet(cursor: Cursor) -> None:
    if cursor.one_of((_MESSAGE, _SESSION_REQUEST)) == _SESSION_REQUEST:
        _read_session_request(cursor)
        return
    cursor.number(3, _SHORTEST_NEGOTIATE, _LONGEST_NEGOTIATE)
    version = cursor.one_of((_SMB1, _SMB2))
    cursor.literal(b"SMB")
    cursor.literal(_SMB1_NEGOTIATE if version == _SMB1 else _SMB2_HEADER_SIZE)


def _read_session_request(cursor: Cursor) -> None:
    """Read the length of two names without a scope, and the first of them."""
    cursor.literal(bytes([0, 0, 2 * (1 + _NAME_LENGTH + 1), _NAME_LENGTH]))
    for _ in range(_NAME_LENGTH):
        cursor.one_of(_NAME)
    cursor.literal(b"\x00")


smb = PlainMatcher(
    "smb",
    "SMB 1 to 3, with or without NetBIOS",
    Fields(_read_first_packet, longest=4 + 1 + _NAME_LENGTH + 1),
    source="[MS-SMB2] 2.1 and 2.2.1.2; [MS-CIFS] 2.2.3.1 and 2.2.4.52; RFC 1002, section 4.3.2; RFC 1001, section 14.1",
)
