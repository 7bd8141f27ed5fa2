"""Matches the segments of a KCP session.

Each has a header of 24 bytes, little-endian: the session, a command from 81 to 84, and at its end the length of the data,
of which only a push has some. The segments fill the datagram, and belong to one session. Sessions that are encrypted, or
have error correction, as in kcptun, look random.
"""

import re

from txmux.errors import OptionError
from txmux.interfaces import Option
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.globs import Globs, names
from txmux.wire.messages import MessageMatcher

_PUSH, _WINDOW = 81, 84
_MOST_SEGMENTS = 128
_CONV = re.compile("[0-9]{1,10}|0x[0-9A-Fa-f]{1,8}")


def _read_segments(cursor: Cursor) -> dict[str, str]:
    conv = cursor.take(4)
    cursor.at = 0
    for _ in range(_MOST_SEGMENTS):
        cursor.literal(conv)
        command = cursor.number(1, _PUSH, _WINDOW)
        fragment = cursor.number(1, 0, 0xFF)
        cursor.take(2 + 4 + 4 + 4)  # window, time, number, what has come
        size = int.from_bytes(cursor.take(4), "little")
        if command != _PUSH and (size or fragment):
            raise MalformedError
        cursor.take(size)
        if not cursor.left:
            return {"conv": str(int.from_bytes(conv, "little"))}
    raise MalformedError


def _convs(text: str) -> Globs:
    return names(",".join(str(_number(item.strip())) for item in text.split(",")))


def _number(text: str) -> int:
    number = int(text, 0 if text.startswith("0x") else 10) if _CONV.fullmatch(text) else -1
    if not 0 <= number <= 0xFFFFFFFF:
        message = f"{text!r} is not the number of a session; write one from 0 to 4294967295"
        raise OptionError("conv", message)
    return number


kcp = MessageMatcher(
    "kcp",
    "KCP without encryption",
    _read_segments,
    options=(
        Option(
            "conv", "numbers of sessions, separated by commas, decimal or as 0x…", "1,0x11223344"
        ),
    ),
    patterns={"conv": _convs},
    facts=("conv",),
    source="ikcp.c of skywind3000/kcp, ikcp_encode_seg",
)
