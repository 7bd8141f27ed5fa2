"""The matcher for TNS, the protocol of Oracle Database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.wire.fields import FieldsPredicate, literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["TnsMatcher"]

_HEADER = 8
_SHORTEST_PACKET = _HEADER + 26
_LONGEST_PACKET = 1024
_CONNECT = 0x01
_LAST_FLAGS = 0x3F


def _read_connect(cursor: Cursor) -> None:
    cursor.number(2, _SHORTEST_PACKET, _LONGEST_PACKET)
    literal(cursor, bytes([0, 0, _CONNECT]))
    cursor.number(1, 0, _LAST_FLAGS)
    literal(cursor, b"\x00\x00")
    version = cursor.number(2, 0x0100, 0x01FF)
    cursor.number(2, 0x0100, version)


@implementer(IProtocolMatcher)
class TnsMatcher:
    """Matches the CONNECT packet of an Oracle client.

    TNS has no public specification. The fields are those of ``packet-tns.c`` of Wireshark and of the ``thin`` mode of
    python-oracledb (``connect.pyx``): length, checksum 0, type 1, flags, checksum of the header 0, the version that is
    wanted (such as 0x013f) and the oldest that will do (such as 0x012c), which is not later. Clients put more than about
    230 bytes of connect data into a packet of their own, so 1024 bytes are never reached.
    """

    name = "tns"
    summary = "Oracle Database (TNS), by its CONNECT packet"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        first_bytes = frozenset(range((_LONGEST_PACKET >> 8) + 1))
        return FieldsPredicate(_read_connect, _HEADER + 4, first_bytes)
