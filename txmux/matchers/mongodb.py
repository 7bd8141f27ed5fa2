"""The matcher for MongoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.wire.cursor import MalformedError
from txmux.wire.fields import FieldsPredicate, literal, one_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["MongodbMatcher"]

_HEADER = 4 * 4
_SHORTEST_MESSAGE = _HEADER + 4 + 1 + 5
_OP_QUERY, _OP_MSG = 2004, 2013


def _read_message_header(cursor: Cursor) -> None:
    if int.from_bytes(cursor.take(2), "little") < _SHORTEST_MESSAGE:
        raise MalformedError
    literal(cursor, b"\x00\x00")
    cursor.take(4)
    literal(cursor, bytes(4))
    one_of(cursor, (_OP_QUERY & 0xFF, _OP_MSG & 0xFF))
    literal(cursor, bytes([_OP_MSG >> 8, 0, 0]))


@implementer(IProtocolMatcher)
class MongodbMatcher:
    """Matches the header of a MongoDB client's first message ("MongoDB Wire Protocol", "Standard Message Header").

    All numbers have the least significant byte first: the length, a number of the client's, 0 as it answers nothing,
    and OP_MSG or OP_QUERY. The first message is the handshake ("MongoDB Handshake" of the driver specifications), which
    is never compressed and has at most 512 bytes of metadata; so less than 64 KiB are expected.
    """

    name = "mongodb"
    summary = "MongoDB, by the header of the first message"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return FieldsPredicate(_read_message_header, _HEADER, None)
