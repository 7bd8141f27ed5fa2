"""The matcher for XMPP."""

import re
from collections.abc import Mapping

import attrs
from zope.interface import implementer

from txmux.classes import frozen
from txmux.detection.regex import Progress, compile_pattern
from txmux.interfaces import IProtocolMatcher, NameKey, Option, Peeked, Predicate, Verdict
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, normal_host, option_globs

_LONGEST_START = 256
_LONGEST_HEADER = 4096

_BLANK = rb"[ \t\r\n]"
_START = rb"(?:<\?xml%b[^<>\x00]*\?>%b*)?<stream:stream" % (_BLANK, _BLANK)
_VALUE = rb"""(?:'[^'<\x00]*'|"[^"<\x00]*")"""
_NAME = rb"[A-Za-z_][A-Za-z0-9_:.-]*"
_EQUALS = rb"%b*=%b*" % (_BLANK, _BLANK)

_START_AND_BLANK = compile_pattern(_START + _BLANK, within=_LONGEST_START)
_ATTRIBUTES = rb"(?:%b+%b%b%b)+" % (_BLANK, _NAME, _EQUALS, _VALUE)
_HEADER = compile_pattern(rb"%b%b%b*>" % (_START, _ATTRIBUTES, _BLANK), within=_LONGEST_HEADER)
_WHOLE_START = re.compile(_START)
_NAMED = re.compile(rb"%b+(%b)%b" % (_BLANK, _NAME, _EQUALS))
_QUOTE = re.compile(b"['\"]")


@frozen
class _StreamHeader:
    progress: Progress
    to: str | None = None
    at: int = 0  # attributes are read so far
    opened: int = 0  # where the value of the next one begins, with its quotation mark
    searched: int = 0  # where the next quotation mark is looked for


@frozen
class _XmppPredicate:
    to: Globs | None
    key: NameKey | None
    first_bytes: frozenset[int] = frozenset(b"<")

    @property
    def longest(self) -> int:
        return _LONGEST_START if self.to is None else _LONGEST_HEADER

    def __call__(self, peeked: Peeked, /) -> Verdict:
        start = peeked.parsed(_START_AND_BLANK.scan).verdict
        if start is not Verdict.MATCH or self.to is None:
            return start
        header = peeked.parsed(read_header)
        if header.to is not None:
            return Verdict.MATCH if self.to.matches(header.to) else Verdict.NO
        undecided = header.progress.verdict is Verdict.NEED_MORE
        return Verdict.NEED_MORE if undecided else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        header = peeked.parsed(read_header)
        return {"to": printable(header.to)} if header.to else {}


def read_header(data: bytes, earlier: _StreamHeader | None) -> _StreamHeader:
    data = data[:_LONGEST_HEADER]
    progress = _HEADER.scan(data, earlier.progress if earlier else None)
    data = data[: progress.length]
    header = attrs.evolve(earlier, progress=progress) if earlier else _StreamHeader(progress)
    if not header.at and (start := _WHOLE_START.match(data)):
        header = attrs.evolve(header, at=start.end(), searched=start.end())
    return _with_attributes(header, data) if header.at and header.to is None else header


def _with_attributes(header: _StreamHeader, data: bytes) -> _StreamHeader:
    """Read on from mark to mark, so that each byte is looked at once, however few come at a time."""
    to, at, opened, searched = None, header.at, header.opened, header.searched
    while to is None:
        place = _next_mark(data, searched, data[opened : opened + 1] if opened else b"")
        if place < 0:
            searched = len(data)
            break
        searched = place + 1
        if not opened:
            opened = place
            continue
        named = _NAMED.fullmatch(data, at, opened)
        if named is None:
            break
        if named[1] == b"to":
            to = data[opened + 1 : place].decode(errors="surrogateescape")
        at, opened = searched, 0
    return attrs.evolve(header, to=to, at=at, opened=opened, searched=searched)


def _next_mark(data: bytes, start: int, mark: bytes) -> int:
    """Find the next quotation mark, that which is wanted or any; -1 if there is none yet."""
    if mark:
        return data.find(mark, start)
    match = _QUOTE.search(data, start)
    return match.start() if match else -1


def _domain(peeked: Peeked) -> str | None:
    header = peeked.parsed(read_header)
    if header.to is not None:
        return normal_host(header.to)
    return None if header.progress.verdict is Verdict.NEED_MORE else ""


@implementer(IProtocolMatcher)
class XmppMatcher:
    """Matches the stream header of an XMPP client or server (RFC 6120, sections 4.2 and 4.7).

    That is, after an optional XML declaration, a tag ``<stream:stream``. With ``to=`` its attributes are read, up to
    that one (section 4.7.2).
    """

    name = "xmpp"
    summary = "XMPP, by the stream header"
    options = (
        Option("to", "globs of the domain that is asked for", "example.com,*.example.org", "host"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        to = option_globs(options, "to", hosts)
        return _XmppPredicate(to, to.key(_domain) if to else None)


xmpp = XmppMatcher()
