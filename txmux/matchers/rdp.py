"""The matcher for RDP."""

import re
from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire import Cursor, MalformedError, verdict_of
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, option_globs

_HEADER = 4 + 7
_INNER_HEADER = b"\x03"
"""The first byte of the header that some balancers put before a token."""
_LONGEST = 5 + 254
_NEGOTIATION_REQUEST = 0x01
_NEGOTIATION_LENGTHS = (8, 8 + 36)
_LINE = re.compile(r"([!-~][^\x00-\x1f\x7f]*)(?:(\r\n)|(\r?)\Z)")
_END = "\r\n"
_COOKIE, _TOKEN = "Cookie: mstshash=", "Cookie: msts="


@frozen
class _RoutingLine:
    """What has come of the line behind the fixed part, and of its CR LF."""

    text: str
    end: str

    def option(self) -> tuple[str, str] | None:
        """Return the option that this line is for, and the value it has so far; ``None`` if both may be."""
        if self.text.startswith(_COOKIE):
            return "cookie", self.text.removeprefix(_COOKIE)
        if _COOKIE.startswith(self.text) and not self.end:
            return None
        return "token", self.text.removeprefix(_TOKEN)


@frozen
class _RdpPredicate:
    option: str
    globs: Globs | None
    first_bytes: frozenset[int] = frozenset({3})

    @property
    def longest(self) -> int:
        return _LONGEST if self.globs else 2 * _HEADER + 1

    def __call__(self, peeked: Peeked, /) -> Verdict:
        beginning = verdict_of(peeked.data, _read_beginning)
        if beginning is not Verdict.MATCH or self.globs is None:
            return beginning
        line = _line(peeked.data)
        if line is None:
            return Verdict.NO
        option = line.option()
        if option and not self._fits(self.globs, *option, line):
            return Verdict.NO
        if line.end == _END:
            return Verdict.MATCH
        return Verdict.NO if len(peeked) >= _length(peeked.data) else Verdict.NEED_MORE

    def _fits(self, globs: Globs, option: str, value: str, line: _RoutingLine) -> bool:
        if option != self.option:
            return False
        return globs.matches(value) if line.end else globs.could_match_prefix(value)

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        line = _line(peeked.data)
        option = line.option() if line and line.end == _END else None
        if option is None:
            return {}
        name, value = option
        return {"cookie": printable(value)} if name == "cookie" else {"token": printable(value)}


@implementer(IProtocolMatcher)
class RdpMatcher:
    """Matches the X.224 Connection Request that an RDP client begins with (MS-RDPBCGR, section 2.2.1.1).

    That is a TPKT header (RFC 1006, section 6: ``03 00`` and the length of all) and the fixed part of an X.224
    request, whose references, class and options are zero and which has no parameters (section 3.2.5.3.1). There
    may follow a line with a routing token or a cookie, then a negotiation request (section 2.2.1.1.1) and
    correlation info (section 2.2.1.1.2). A token may stand behind a header and a fixed part of its own, whose lengths
    are those of the token. Without options the first byte of what follows the fixed part decides, or the one behind that header.
    """

    name = "rdp"
    summary = "RDP, by the connection request"
    options = (
        Option("cookie", "globs of the user name that the client's cookie has", "alice,CORP*"),
        Option(
            "token", "globs of the routing token, without 'Cookie: msts='", "3640205228.15629.0000"
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        cookie, token = (option_globs(options, name) for name in ("cookie", "token"))
        if cookie and token:
            message = "no request has both a cookie and a token: write a line for each"
            raise OptionError(None, message)
        return _RdpPredicate("cookie" if cookie else "token", cookie or token)


rdp = RdpMatcher()


def _read_beginning(cursor: Cursor) -> None:
    length = _read_header(cursor, _HEADER, _LONGEST)
    if length == _HEADER:
        return
    if cursor.data[cursor.at : cursor.at + 1] == _INNER_HEADER:
        _read_header(cursor, _HEADER + len(_END), length - _HEADER)
        cursor.number(1, ord("!"), ord("~"))
        return
    first = cursor.number(1, _NEGOTIATION_REQUEST, ord("~"))
    if first == _NEGOTIATION_REQUEST:
        if length - _HEADER not in _NEGOTIATION_LENGTHS:
            raise MalformedError
    elif first < ord("!"):
        raise MalformedError


def _read_header(cursor: Cursor, least: int, most: int) -> int:
    cursor.number(2, 0x0300, 0x0300)
    length = cursor.number(2, least, most)
    cursor.number(1, length - 5, length - 5)
    cursor.number(1, 0xE0, 0xE0)
    cursor.number(5, 0, 0)
    return length


def _line(data: bytes) -> _RoutingLine | None:
    if verdict_of(data, _read_beginning) is not Verdict.MATCH:
        return None
    at = 2 * _HEADER if data[_HEADER : _HEADER + 1] == _INNER_HEADER else _HEADER
    line = _LINE.match(data[at : _length(data)].decode("latin-1"))
    return _RoutingLine(line[1], line[2] or line[3]) if line else None


def _length(data: bytes) -> int:
    return int.from_bytes(data[2:4], "big")
