"""Matches a stream of RTP, with its RTCP, or secured as SRTP; and the greeting of ZRTP.

A packet of RTP has little to know it by: version 2, no padding and no contributing sources, as the first ones have it, a
type of payload that is in use, and a header extension that fits in it if it says that there is one. RTCP begins with a
report, whose length fits. One datagram in 600 of random bytes is taken for one.

So what others begin with is left to them, where it is no likely beginning of a call: queries of DNS, commands of FINS, full
frames of IAX2, and the handshake of SRT.
"""

import re

from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_PLAIN, _EXTENDED = 0x80, 0x90
_REPORTS = range(0x80, 0xA0)
"""Version 2 without padding, and a count of up to 31."""
_SENDER_REPORT, _RECEIVER_REPORT = 200, 201
_PAYLOADS = frozenset({0, *range(3, 19), 25, 26, 28, 31, 32, 33, 34, *range(96, 128)})
_FEEDBACK = (205, 206)
_EXTENSIONS = frozenset({0xBEDE, *range(0x1000, 0x1010)})
_ZRTP, _ZRTP_COOKIE = 0x10, b"ZRTP"
_SHORTEST_ZRTP = 12 + 12 + 4
_OF_OTHERS = re.compile(
    rb"""
      .{2} [\x00\x01\x20\x21\x24\x25\x28] [\x00\x10\x20\x30]  # DNS: the flags of a client, one question, few other records
      \x00\x01 (?:\x00.){3}
    | \x80\x00 [\x02\x07] [\x00-\x7f]..[\x00-\x7f]..  # FINS: a command that wants an answer, and how far it may go
      . (?: [\x01-\x08\x0c\x20-\x23\x26\x28] [\x01-\x0f] )
    | [\x80-\xff]. \x00\x00 .{4} [\x00-\x0f] \x00 \x06 [\x01-\x2d]  # IAX2: a call's first frame, of IAX, that answers none
    | \x80\x00 \x00{6} .{4} \x00{4} \x00{3}[\x04\x05]  # SRT: the handshake, to no socket yet
    """,
    re.VERBOSE | re.DOTALL,
)
"""RFC 1035, section 4.1.1; ``packet-omron-fins.c`` of Wireshark; RFC 5456, section 8.1.1; draft-sharabayko-srt-01, section 3.2.1."""


def _read_packet(cursor: Cursor) -> dict[str, str]:
    first = cursor.one_of({_ZRTP, *_REPORTS})
    if first == _ZRTP:
        cursor.number(1, 0, 0)
        cursor.take(2)
        cursor.literal(_ZRTP_COOKIE)
        cursor.take(_SHORTEST_ZRTP - cursor.at)
        return {}
    second = cursor.number(1, 0, 0xFF)
    if second in {_SENDER_REPORT, _RECEIVER_REPORT, *_FEEDBACK}:
        _read_report(cursor, second, first & 0x1F)
        return {}
    if first not in {_PLAIN, _EXTENDED} or second & 0x7F not in _PAYLOADS:
        raise MalformedError
    if _OF_OTHERS.match(cursor.data):
        raise MalformedError
    cursor.take(2 + 4 + 4)
    if first == _EXTENDED:
        if cursor.number(2, 0, 0xFFFF) not in _EXTENSIONS:
            raise MalformedError
        cursor.take(4 * cursor.number(2, 0, 0xFFFF))
    cursor.take(1)
    return {"payload_type": str(second & 0x7F)}


def _read_report(cursor: Cursor, kind: int, count: int) -> None:
    """Check that a report fits; what comes behind it may be encrypted."""
    words = cursor.number(2, 1, 0xFFFF)
    if kind == _RECEIVER_REPORT:
        least = 1 + 6 * count
    elif kind == _SENDER_REPORT:
        least = 6 + 6 * count
    else:
        least = 2
    if words < least:
        raise MalformedError
    cursor.take(4 * words)


rtp = MessageMatcher(
    "rtp",
    "RTP and RTCP, secured or not, and ZRTP",
    _read_packet,
    facts=("payload_type",),
    source="RFC 3550, sections 5.1 and 6.4; RFC 3551, section 6; RFC 8285, section 4; RFC 6189, section 5; RFC 7983, section 7",
)
