"""Matches the first login request of an iSCSI initiator.

The header has 48 bytes: a login request for immediate delivery, its stages, version 0, the length of the text, names and
numbers of the session, and zeros. The text is pairs of key and value that end with NUL, the names of both sides among them.
"""

from functools import partial

from txmux.interfaces import Option
from txmux.wire.cursor import Cursor
from txmux.wire.globs import names
from txmux.wire.messages import MessageMatcher
from txmux.wire.predicates import Fields

_LOGIN = b"\x43"
_STAGES = {0x00, 0x04, 0x40, 0x44, 0x81, 0x83, 0x87}
"""Security or operation; with the text continued (C), or with the transit to a later stage (T)."""
_HEADER = 48
_SHORTEST_TEXT = len("InitiatorName=i\0")
_LONGEST_TEXT = 8192
_NAMES = {"InitiatorName": "initiator", "TargetName": "target"}


def _read_header(cursor: Cursor) -> int:
    cursor.literal(_LOGIN)
    cursor.one_of(_STAGES)
    cursor.literal(bytes(2 + 1))
    size = cursor.number(3, _SHORTEST_TEXT, _LONGEST_TEXT)
    cursor.take(6 + 2 + 4 + 2)
    cursor.literal(bytes(2))
    cursor.take(4 + 4)
    cursor.literal(bytes(16))
    return size


def _read_login(cursor: Cursor) -> dict[str, str]:
    pairs = cursor.take(_read_header(cursor)).decode("latin-1").split("\0")
    values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return {name: values[key] for key, name in _NAMES.items() if key in values}


_any_case = partial(names, normal=str.lower)

iscsi = MessageMatcher(
    "iscsi",
    "iSCSI, by the first login request of an initiator",
    _read_login,
    begins=Fields(_read_header, longest=_HEADER),
    most=_HEADER + _LONGEST_TEXT,
    options=(
        Option("initiator", "patterns of the initiator's name", "iqn.2026-11.com.example:*"),
        Option("target", "patterns of the target's name", "iqn.2026-11.com.example:disk1"),
    ),
    patterns=dict.fromkeys(("initiator", "target"), _any_case),
    facts=("initiator", "target"),
    source="RFC 7143, sections 6.1, 6.3, 11.12, 13.4 and 13.5",
)
