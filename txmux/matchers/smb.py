"""The matcher for SMB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.wire.fields import FieldsPredicate, literal, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["SmbMatcher"]

_MESSAGE, _SESSION_REQUEST = 0x00, 0x81
_SMB1, _SMB2 = 0xFF, 0xFE
_SMB1_NEGOTIATE = b"\x72"
_SMB2_HEADER_SIZE = b"\x40\x00"
_SHORTEST_NEGOTIATE = 32 + 1 + 2
_LONGEST_NEGOTIATE = 0xFFFF
_NAME_LENGTH = 32
_NAME = range(ord("A"), ord("P") + 1)


def _read_first_packet(cursor: Cursor) -> None:
    if one_of(cursor, (_MESSAGE, _SESSION_REQUEST)) == _SESSION_REQUEST:
        _read_session_request(cursor)
        return
    cursor.number(3, _SHORTEST_NEGOTIATE, _LONGEST_NEGOTIATE)
    version = one_of(cursor, (_SMB1, _SMB2))
    literal(cursor, b"SMB")
    literal(cursor, _SMB1_NEGOTIATE if version == _SMB1 else _SMB2_HEADER_SIZE)


def _read_session_request(cursor: Cursor) -> None:
    """Read the length of two names without a scope, and the first of them."""
    literal(cursor, bytes([0, 0, 2 * (1 + _NAME_LENGTH + 1), _NAME_LENGTH]))
    for _ in range(_NAME_LENGTH):
        one_of(cursor, _NAME)
    literal(cursor, b"\x00")


@implementer(IProtocolMatcher)
class SmbMatcher:
    """Matches the first packet of an SMB client, on port 445 or on port 139.

    On port 445: the length behind a zero ([MS-SMB2] 2.1), and a negotiate request of SMB 1 ([MS-CIFS] 2.2.3.1 and
    2.2.4.52) or the header of SMB 2 and 3 ([MS-SMB2] 2.2.1.2). On port 139: a NetBIOS session request (RFC 1002,
    section 4.3.2) with a called name without scope (RFC 1001, section 14.1).
    """

    name = "smb"
    summary = "SMB 1 to 3, with or without NetBIOS"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        first_bytes = frozenset({_MESSAGE, _SESSION_REQUEST})
        return FieldsPredicate(_read_first_packet, 4 + 1 + _NAME_LENGTH + 1, first_bytes)
