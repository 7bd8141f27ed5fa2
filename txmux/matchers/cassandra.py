"""The matcher for Cassandra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.wire.fields import FieldsPredicate, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["CassandraMatcher"]

_DSE_1, _DSE_2 = 0x41, 0x42
_VERSIONS = frozenset({3, 4, 5, _DSE_1, _DSE_2})
_BETA = 0x10
_STARTUP, _OPTIONS = 0x01, 0x05
_SHORTEST_STARTUP = 2 + (2 + len("CQL_VERSION")) + (2 + 1)


def _read_frame_header(cursor: Cursor) -> None:
    one_of(cursor, _VERSIONS)
    one_of(cursor, (0, _BETA))
    cursor.number(2, 0, 0x7FFF)
    if one_of(cursor, (_STARTUP, _OPTIONS)) == _OPTIONS:
        cursor.number(4, 0, 0)
    else:
        cursor.number(4, _SHORTEST_STARTUP, 0xFFFF)


@implementer(IProtocolMatcher)
class CassandraMatcher:
    """Matches the first frame of a Cassandra client (``native_protocol_v3.spec`` to ``v5``, sections 2 and 4.1).

    The header of nine bytes: version, flags, stream, opcode and length. The first opcode is OPTIONS, which has no
    body, or STARTUP, whose body is a map that has CQL_VERSION and which cannot be compressed. Versions 0x41 and 0x42
    are those of DataStax Enterprise (``ProtocolVersion`` of the DataStax drivers), which they try first.
    """

    name = "cassandra"
    summary = "Cassandra (CQL native protocol 3 to 5, and DataStax Enterprise)"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return FieldsPredicate(_read_frame_header, 9, _VERSIONS)
