"""The matcher for ZooKeeper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Predicate
from txmux.wire.fields import FieldsPredicate, one_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from txmux.wire.cursor import Cursor

__all__ = ["ZookeeperMatcher"]

_WORDS = frozenset(
    b"""
    conf cons crst dirs dump envi gtmk hash icfg isro mntr ruok srst srvr stat stmk sysp wchc wchp wchs
    """.split()
)
_BEGIN_OTHER_COMMANDS = frozenset({b"conf", b"dump", b"stat"})
_FIRST_BYTES = frozenset({0, *(word[0] for word in _WORDS)})

_PASSWORD = 16
_REQUEST = 4 + 8 + 4 + 8 + 4 + _PASSWORD
_READ_ONLY = 1
_LATEST = (1 << 63) - 1


def _read(cursor: Cursor) -> None:
    if cursor.data[:1] in {b"", b"\x00"}:
        _read_connect_request(cursor)
    else:
        _read_word(cursor)


def _read_connect_request(cursor: Cursor) -> None:
    cursor.number(4, _REQUEST, _REQUEST + _READ_ONLY)
    cursor.number(4, 0, 0)
    cursor.number(8, 0, _LATEST)
    cursor.number(4, 1, 0x7FFFFFFF)
    cursor.take(8)
    cursor.number(4, _PASSWORD, _PASSWORD)


def _read_word(cursor: Cursor) -> None:
    words: Collection[bytes] = _WORDS
    for place in range(4):
        letter = one_of(cursor, {word[place] for word in words})
        words = {word for word in words if word[place] == letter}
    if not _BEGIN_OTHER_COMMANDS.isdisjoint(words) and one_of(cursor, b"\r\n") == ord("\r"):
        one_of(cursor, b"\n")


@implementer(IProtocolMatcher)
class ZookeeperMatcher:
    """Matches the first packet of a ZooKeeper client.

    A ConnectRequest (``zookeeper.jute``): its length, protocol version 0, the last transaction seen, a timeout, a
    session and the length of the password, which is 16. Or a four letter word ("ZooKeeper Administrator's Guide",
    "The Four Letter Words"; ``FourLetterCommands.java``). The words that begin a command of memcached (``stats``) or
    of Redis (``config``, ``dump``) are only matched with the end of the line behind them.
    """

    name = "zookeeper"
    summary = "ZooKeeper, sessions and four letter words"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return FieldsPredicate(_read, 4 + 4 + 8 + 4 + 8 + 4, _FIRST_BYTES)
