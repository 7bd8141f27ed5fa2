"""Matches the first packet of a ZooKeeper client.

A ConnectRequest: its length, protocol version 0, the last transaction seen, a timeout, a session and the length of
the password, which is 16. Or a four letter word. The words that begin a command of memcached (``stats``) or of Redis
(``config``, ``dump``) are only matched with the end of the line behind them.
"""

from txmux.wire import Cursor, Either, Fields, Pattern, PlainMatcher

_WORDS = rb"""(?x:
    cons | crst | dirs | envi | gtmk | hash | icfg | isro | mntr | ruok | srst | srvr | stmk | sysp | wchc | wchp | wchs
    | (?: conf | dump | stat ) \r?\n )"""

_PASSWORD = 16
_REQUEST = 4 + 8 + 4 + 8 + 4 + _PASSWORD
_READ_ONLY = 1
_LATEST = (1 << 63) - 1


def _read_connect_request(cursor: Cursor) -> None:
    cursor.number(4, _REQUEST, _REQUEST + _READ_ONLY)
    cursor.number(4, 0, 0)
    cursor.number(8, 0, _LATEST)
    cursor.number(4, 1, 0x7FFFFFFF)
    cursor.take(8)
    cursor.number(4, _PASSWORD, _PASSWORD)


zookeeper = PlainMatcher(
    "zookeeper",
    "ZooKeeper, sessions and four letter words",
    Either(Fields(_read_connect_request, longest=4 + 4 + 8 + 4 + 8 + 4), Pattern(_WORDS)),
    source='zookeeper.jute; FourLetterCommands.java; "ZooKeeper Administrator\'s Guide", "The Four Letter Words"',
)
