"""Matches the connection request of a client of Siemens S7 controllers.

It is that of ISO transport over TCP, class 0: TPKT, the request, and its parameters, in any order, up to the transport
selector of the one who is called. In S7 that has two bytes, the first of which says what the connection is for: 1 is a
programming device, 2 an operator's panel, 3 to 16 are others, and up to 23 the connections of an S7-200, whose ``MW`` is for
Micro/WIN. Newer controllers have names instead that begin with ``SIMATIC-``. Others over the same transport, such as MMS
with its selector 00 01, are a *no*.
"""

from txmux.wire import Cursor, Fields, MalformedError, PlainMatcher

_TPKT = 4
_FIXED_PART = 7
_LONGEST = _TPKT + 1 + 254
_CONNECTION_REQUEST = 0xE0
_TPDU_SIZE, _CALLING, _CALLED = 0xC0, 0xC1, 0xC2
_SELECTOR = 2
_LAST_PURPOSE = 0x17
_MICRO_WIN, _NAME = b"MW", b"SIMATIC-"


def _read_connection_request(cursor: Cursor) -> None:
    cursor.literal(b"\x03\x00")
    end = cursor.number(2, _TPKT + _FIXED_PART + 2 + _SELECTOR, _LONGEST)
    indicated = end - _TPKT - 1
    cursor.number(1, indicated, indicated)
    cursor.number(1, _CONNECTION_REQUEST, _CONNECTION_REQUEST)
    cursor.literal(b"\x00\x00")
    cursor.take(2)
    cursor.number(1, 0, 0)
    while cursor.one_of({_TPDU_SIZE, _CALLING, _CALLED}) != _CALLED:
        cursor.take(cursor.number(1, 1, end - cursor.at - 1))
    size = cursor.number(1, _SELECTOR, end - cursor.at - 1)
    if size > _SELECTOR:
        cursor.literal(_NAME[:size])
        return
    first = cursor.number(1, 1, _MICRO_WIN[0])
    if first == _MICRO_WIN[0]:
        cursor.literal(_MICRO_WIN[1:])
    elif first > _LAST_PURPOSE:
        raise MalformedError


s7 = PlainMatcher(
    "s7",
    "Siemens S7 controllers (ISO on TCP), by the connection request",
    Fields(_read_connection_request, longest=_LONGEST),
    source='RFC 1006, section 6; RFC 905, section 13.3; "Snap7", "PLC connection"; "CP 243-1", section 4; libnodave',
)
