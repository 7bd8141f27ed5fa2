"""The matcher for DNS over TCP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Key, Option, Peeked, Predicate, Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, option_globs
from txmux.wire.sizes import option_size

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEADER = 12
_LONGEST_NAME = 255
_LONGEST_LABEL = 63
_TYPE_AND_CLASS = 4
_SHORTEST_RECORD = 11
_BEFORE_NAME = 2 + _HEADER
_LONGEST = _BEFORE_NAME + _LONGEST_NAME + _TYPE_AND_CLASS
_SHORTEST_MESSAGE = _HEADER + 1 + _TYPE_AND_CLASS
_DEFAULT_WITHIN = 1024
_LARGEST_WITHIN = 0xFFFF

_RECURSION_DESIRED = 0x01
_QUERY = frozenset({0x00, _RECURSION_DESIRED})
_NOTIFY = frozenset({0x20, 0x21, 0x24, 0x25})
_UPDATE = frozenset({0x28})
_AD_AND_CD = 0x30
_CLASSES = frozenset({1, 3, 4, 254, 255})
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@attrs.define
class _Message:
    """The first message, as far as it has come.

    Attributes:
        verdict: Whether it is one.
        name: The name in its question, or the labels of it that are there in full.
    """

    verdict: Verdict = Verdict.NEED_MORE
    name: str = ""

    def read(self, cursor: Cursor) -> None:
        length = cursor.number(2, _SHORTEST_MESSAGE, _LARGEST_WITHIN)
        cursor.take(2)
        records = _read_header(cursor, length)
        self._read_name(cursor, length - _HEADER - _TYPE_AND_CLASS, records)
        cursor.number(2, 1, 0xFFFF)
        if cursor.number(2, 1, 0xFF) not in _CLASSES:
            raise MalformedError

    def _read_name(self, cursor: Cursor, room: int, records: int) -> None:
        """Read the labels.

        Args:
            cursor: Where the name begins.
            room: How many bytes the message has for it and the other records.
            records: How many of those there are.
        """
        start = cursor.at
        labels: list[str] = []
        while True:
            free = min(room, _LONGEST_NAME) - (cursor.at - start) - 2
            size = cursor.number(1, 0, min(_LONGEST_LABEL, max(free, 0)))
            if not size:
                break
            if _CONTROL.search(cursor.data, cursor.at, cursor.at + size):
                raise MalformedError
            labels.append(_presented(cursor.take(size)))
            self.name = ".".join(labels)
        left = room - (cursor.at - start)
        if left < records * _SHORTEST_RECORD or (left and not records):
            raise MalformedError


@attrs.frozen
class _DnsPredicate:
    name: Globs | None
    key: Key | None
    within: int
    longest: int = _LONGEST

    @property
    def first_bytes(self) -> frozenset[int]:
        return frozenset(range((self.within >> 8) + 1))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if int.from_bytes(peeked.data[:2].ljust(2, b"\0"), "big") > self.within:
            return Verdict.NO
        message = peeked.parsed(_parse)
        if self.name is None or message.verdict is Verdict.NO:
            return message.verdict
        if message.verdict is Verdict.MATCH:
            return Verdict.MATCH if self.name.matches(message.name) else Verdict.NO
        possible = self.name.could_match_prefix(message.name)
        return Verdict.NEED_MORE if possible else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        message = peeked.parsed(_parse)
        if message.verdict is not Verdict.MATCH:
            return {}
        return {"name": printable(message.name.lower() or ".")}


def _name(peeked: Peeked) -> str | None:
    """Read the name that all ``name=`` predicates depend on."""
    message = peeked.parsed(_parse)
    if message.verdict is Verdict.NEED_MORE:
        return None
    return message.name.lower() if message.verdict is Verdict.MATCH else ""


@implementer(IProtocolMatcher)
class DnsMatcher:
    """Matches the first message of a DNS client over TCP (RFC 1035, sections 4.1 and 4.2.2; RFC 7766, section 8).

    That is its length in two bytes; a header that is not a response, with the opcode QUERY, NOTIFY (RFC 1996) or UPDATE
    (RFC 2136) and the flags that these may have, with AD and CD (RFC 4035); and one question, whose name is not
    compressed. The counts of the other records have to fit in the length. The end of the question decides.

    The length is bounded, so that few other protocols are held until the sixth byte shows that they are others. A query
    with padding (RFC 8467) and a signature (RFC 8945) has far less than 1 KiB; an UPDATE, or a TKEY query that carries a
    ticket of Kerberos (RFC 3645), may have more.
    """

    name = "dns"
    summary = "DNS over TCP, by the first question"
    options = (
        Option(
            "name", "globs of the name in the first question", "example.internal,*.example.internal"
        ),
        Option(
            "within",
            "a message has at most this many bytes (17 to 65535, 1KiB if left out)",
            "16KiB",
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate."""
        name = option_globs(options, "name", hosts)
        sizes = range(_SHORTEST_MESSAGE, _LARGEST_WITHIN + 1)
        within = option_size(options, "within", _DEFAULT_WITHIN, sizes)
        return _DnsPredicate(name, name.key(_name) if name else None, within)


dns = DnsMatcher()


def _parse(data: bytes, earlier: _Message | None) -> _Message:
    """Read the question out of the first bytes of a stream; for `Peeked.parsed`."""
    if earlier is not None and earlier.verdict is not Verdict.NEED_MORE:
        return earlier
    message = _Message()
    try:
        message.read(Cursor(data))
    except ShortError:
        return message
    except MalformedError:
        return _Message(Verdict.NO)
    message.verdict = Verdict.MATCH
    return message


def _read_header(cursor: Cursor, length: int) -> int:
    """Read what comes between the identifier and the question, and give the number of records behind it."""
    flags = cursor.number(1, 0x00, max(_UPDATE))
    if flags not in _QUERY | _NOTIFY | _UPDATE or cursor.number(1, 0, _AD_AND_CD) & ~_AD_AND_CD:
        raise MalformedError
    cursor.number(2, 1, 1)
    most = (length - _HEADER - 1 - _TYPE_AND_CLASS) // _SHORTEST_RECORD
    answers = cursor.number(2, 0, 0 if flags in _QUERY else most)
    authorities = cursor.number(2, 0, most - answers)
    return answers + authorities + cursor.number(2, 0, most - answers - authorities)


def _presented(label: bytes) -> str:
    r"""Write a label as in a zone file (RFC 1035, section 5.1), so that a dot in it (``\046``) parts no labels."""
    return label.decode("latin-1").replace("\\", "\\092").replace(".", "\\046")
