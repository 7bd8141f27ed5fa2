"""The matcher for STUN, TURN and ICE."""

import zlib
from collections.abc import Mapping

import attrs
from zope.interface import implementer

from txmux.classes import define, frozen
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Transport, Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, names
from txmux.wire.messages import Message, patterns_of

_BINDING, _ALLOCATE, _CONNECTION_BIND = 0x001, 0x003, 0x00B
_METHODS = {
    _BINDING: "binding",
    _ALLOCATE: "allocate",
    0x004: "refresh",
    0x006: "send",
    0x007: "data",
    0x008: "create-permission",
    0x009: "channel-bind",
    0x00A: "connect",
    _CONNECTION_BIND: "connection-bind",
    0x00C: "connection-attempt",
}
_CHANNEL_DATA = "channel-data"
_NAMES = (*_METHODS.values(), _CHANNEL_DATA)
_LARGEST = 0x0FFC
_MAGIC_COOKIE = 0x2112A442
_HEADER = 20
_TRANSACTION = 12
_MOST = 0x3FFF
_CLASS, _INDICATION = 0x110, 0x010
_CHANNELS = range(0x40, 0x50)
_DATAGRAM_FIRST = frozenset({*range((_MOST >> 8) + 1), *_CHANNELS})
_USERNAME, _FINGERPRINT = 0x0006, 0x8028
_LONGEST_USERNAME = 513
_MOST_ATTRIBUTES = 64
_SHAPE = 0x5354554E
"""With this the sum of a FINGERPRINT is turned, so that it is not one that the payload has."""
_CLASSIC_ATTRIBUTES = {**dict.fromkeys(range(1, 12), (0, 0xFFFF)), 0x0101: (20, 20)}
"""Those of RFC 3489, and the one of Zoom, with the lengths that they have."""
_MOST_CLASSIC = 11
_GTP = frozenset({0x40, 0x44, 0x48, 0x4C})
"""How GTP version 2 begins, by which mobile networks speak (3GPP TS 29.274, section 5.1): it looks like the data of a channel."""
_GTP_TUNNEL = 0x08
_COUNTS_OF_DNS = b"\0\1\0\0\0"
"""Those of a query, whose ID and flags may be those of a channel and a length."""


def _read_header(cursor: Cursor) -> tuple[str, int]:
    """Read the beginning of a stream up to the magic cookie, and give the method and the length of the attributes."""
    request = cursor.number(2, _BINDING, _HEADER + _LARGEST)
    if request >= _HEADER and request % 4 == 0:
        length = request - _HEADER
        request = cursor.number(2, _BINDING, _BINDING)
        cursor.number(2, length, length)
    elif request in {_BINDING, _ALLOCATE, _CONNECTION_BIND}:
        length = cursor.number(2, 0, _LARGEST)
        if length % 4:
            raise MalformedError
    else:
        raise MalformedError
    cursor.number(4, _MAGIC_COOKIE, _MAGIC_COOKIE)
    return _METHODS[request], length


@define
class _StunOpening:
    """The first request of a stream, as far as it has come; attributes are read from `at` to `end`."""

    header: Verdict = Verdict.NEED_MORE
    method: str = ""
    username: str | None = None
    at: int = 0
    end: int = 0
    over: bool = False

    def read(self, data: bytes) -> None:
        if self.header is Verdict.NEED_MORE:
            cursor = Cursor(data)
            self.method, length = _read_header(cursor)
            self.header = Verdict.MATCH
            self.at = cursor.at + _TRANSACTION
            self.end = self.at + length
        while self.at < self.end:
            cursor = Cursor(data, self.at)
            kind = cursor.number(2, 0, 0xFFFF)
            size = cursor.number(2, 0, self.end - cursor.at - 2)
            if kind == _USERNAME:
                self.username = cursor.take(size).decode("latin-1")
                break
            self.at = cursor.at + size + -size % 4
        self.over = True


def _parse(data: bytes, earlier: _StunOpening | None) -> _StunOpening:
    if earlier is not None and earlier.over:
        return earlier
    opening = _StunOpening() if earlier is None else attrs.evolve(earlier)
    try:
        opening.read(data)
    except ShortError:
        pass
    except MalformedError:
        opening.over = True
        if opening.header is Verdict.NEED_MORE:
            opening.header = Verdict.NO
    return opening


@frozen
class _StunStream:
    wanted: Mapping[str, Globs]

    @property
    def longest(self) -> int:
        return 2 + _HEADER + _LARGEST if "username" in self.wanted else 2 + 8

    @property
    def first_bytes(self) -> frozenset[int]:
        return frozenset(range(((_HEADER + _LARGEST) >> 8) + 1))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        opening = peeked.parsed(_parse)
        if opening.header is not Verdict.MATCH:
            return opening.header
        if "method" in self.wanted and not self.wanted["method"].matches(opening.method):
            return Verdict.NO
        if "username" not in self.wanted:
            return Verdict.MATCH
        if opening.username is not None:
            fits = self.wanted["username"].matches(opening.username)
            return Verdict.MATCH if fits else Verdict.NO
        return Verdict.NO if opening.over else Verdict.NEED_MORE

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        opening = peeked.parsed(_parse)
        facts = {"method": opening.method} if opening.method else {}
        if opening.username is not None:
            facts["username"] = printable(opening.username)
        return facts


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    first = cursor.one_of(_DATAGRAM_FIRST)
    if first in _CHANNELS:
        cursor.take(1)
        size = cursor.number(2, 1, 0xFFFF)
        is_other = cursor.data.startswith(_COUNTS_OF_DNS, 4) or _is_gtp(cursor.data)
        if is_other or not size <= cursor.left <= size + -size % 4:
            raise MalformedError
        return {"method": _CHANNEL_DATA}
    cursor.at = 0
    kind = cursor.number(2, 0, _MOST)
    if kind & _CLASS not in {0, _INDICATION}:
        raise MalformedError
    length = cursor.number(2, 0, 0xFFFF)
    if length != len(cursor.data) - _HEADER:
        raise MalformedError
    if int.from_bytes(cursor.take(4), "big") == _MAGIC_COOKIE:
        cursor.take(_TRANSACTION)
        begin = cursor.at
        try:
            attributes = _read_attributes(cursor, 4)
        except (MalformedError, ShortError):  # Teams and WhatsApp do not fill them up
            cursor.at = begin
            attributes = _read_attributes(cursor, 1)
        return {"method": _method(kind), **attributes}
    cursor.take(_TRANSACTION)
    _read_classic(cursor, kind)
    return {"method": _method(kind)}


def _read_attributes(cursor: Cursor, unit: int) -> dict[str, str]:
    """Read attributes to the end of the datagram, each filled up to a multiple of some bytes."""
    attributes: dict[str, str] = {}
    for _ in range(_MOST_ATTRIBUTES):
        if not cursor.left:
            break
        start = cursor.at
        kind = cursor.number(2, 0, 0xFFFF)
        value = cursor.take(cursor.number(2, 0, 0xFFFF))
        cursor.take(-len(value) % unit)
        if kind == _USERNAME and len(value) <= _LONGEST_USERNAME:
            attributes.setdefault("username", value.decode("latin-1"))
        if kind == _FINGERPRINT:
            expected = zlib.crc32(cursor.data[:start]) ^ _SHAPE
            if value != expected.to_bytes(4, "big"):
                raise MalformedError
            cursor.end()
    cursor.end()
    return attributes


def _read_classic(cursor: Cursor, kind: int) -> None:
    """Read the attributes of a Binding request of RFC 3489, which has no magic cookie; there has to be one."""
    if kind != _BINDING or not cursor.left:
        raise MalformedError
    for _ in range(_MOST_CLASSIC):
        if not cursor.left:
            break
        lengths = _CLASSIC_ATTRIBUTES.get(cursor.number(2, 0, 0xFFFF))
        if lengths is None:
            raise MalformedError
        cursor.take(cursor.number(2, *lengths))
    cursor.end()


def _is_gtp(data: bytes) -> bool:
    """Return whether all of it is a message of GTP version 2: the numbers, a spare byte, and elements that fill it."""
    if data[0] not in _GTP or int.from_bytes(data[2:4], "big") != len(data) - 4:
        return False
    spare = 11 if data[0] & _GTP_TUNNEL else 7
    at = spare + 1
    if len(data) <= at or (data[spare] and not data[0] & 0x04):
        return False
    while at < len(data):
        at += 4 + int.from_bytes(data[at + 1 : at + 3], "big")
    return at == len(data)


def _method(kind: int) -> str:
    number = kind & 0x0F | kind >> 1 & 0x70 | kind >> 2 & 0xF80
    return _METHODS.get(number, f"0x{number:03x}")


@implementer(IProtocolMatcher)
class StunMatcher:
    """Matches the first request of a STUN, TURN or ICE client (RFC 8489, sections 5 and 6.2.2; RFC 8656, section 12).

    Over TCP that is a Binding request, or for TURN an Allocate request or a ConnectionBind request; then the length, a
    multiple of 4, and the magic cookie. No first request is near to the 4092 bytes that are taken here, and a lower bound
    parts it sooner from others that begin with a zero. The connectivity check with which ICE begins a TCP connection is a
    Binding request, too, behind its length in two bytes (RFC 6544, section 3; RFC 4571, section 2). Both lengths have to
    agree.

    Over UDP it is any request or indication whose length is that of the datagram, which its attributes fill. A FINGERPRINT
    has to be right, as servers ignore what has another (RFC 8489, section 6.3): of 528 in public captures, one was wrong. A
    Binding request may be without the magic cookie, as of RFC 3489, if it has attributes. So may be the ChannelData of TURN,
    which continues an allocation whose flow has been forgotten.
    """

    name = "stun"
    summary = "STUN, TURN and ICE"
    facts = ("method", "username")
    transports = tuple(Transport)
    options = (
        Option("method", f"patterns of the method: {', '.join(_NAMES)}", "binding"),
        Option(
            "username",
            "patterns of the user name, which for ICE begins with that of the server",
            "a7Xq:*",
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _StunStream(patterns_of(options, {"method": _methods}))

    def datagram_predicate(self, options: Mapping[str, str]) -> Predicate:
        return Message(_read_datagram, patterns_of(options, {"method": _methods}), self.facts)


stun = StunMatcher()


def _methods(text: str) -> Globs:
    return names(text, _NAMES)
