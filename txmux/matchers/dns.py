"""The matcher for DNS."""

import functools
import re
from collections.abc import Callable, Mapping
from struct import Struct

from zope.interface import implementer

from txmux.classes import define, frozen
from txmux.interfaces import (
    IProtocolMatcher,
    NameKey,
    Option,
    Peeked,
    Predicate,
    Transport,
    Verdict,
)
from txmux.wire import Cursor, MalformedError, ShortError, verdict_of
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, names, normal_host, option_globs
from txmux.wire.messages import Message, parser, patterns_of
from txmux.wire.sizes import option_size

_HEADER = 12
_LONGEST_NAME = 255
_LONGEST_LABEL = 63
_TYPE_AND_CLASS = 4
_SHORTEST_RECORD = 11
_BEFORE_NAME = 2 + _HEADER
_LONGEST = _BEFORE_NAME + _LONGEST_NAME + _TYPE_AND_CLASS + 2
_SHORTEST_MESSAGE = _HEADER + 1 + _TYPE_AND_CLASS
_DEFAULT_WITHIN = 1024
_LARGEST_WITHIN = 0xFFFF

_RECURSION_DESIRED = 0x01
_QUERY = frozenset({0x00, _RECURSION_DESIRED})
_NOTIFY = frozenset({0x20, 0x21, 0x24, 0x25})
_UPDATE = frozenset({0x28})
_ASKING = _QUERY | _NOTIFY | _UPDATE
_header = Struct(">BBHHHH").unpack_from
_two_numbers = Struct(">HH").unpack_from
_AD_AND_CD = 0x30
_CLASSES = frozenset({1, 3, 4, 254, 255})
_AXFR = 252
_OF_WINDOWS = b"MS"
"""What Windows' DNS servers put behind the question when they ask for a zone; undocumented."""
_ESCAPED = re.compile(r"[\x00-\x1f.\\\x7f]")
_PLAIN_NAME = re.compile(rb"[!-\[\]-~]*")
_COMPRESSED = 0xC0
_MOST_RECORDS = 256
"""Of a datagram; a longer UPDATE comes over TCP."""
_TYPES = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "AAAA": 28,
    "LOC": 29, "SRV": 33, "NAPTR": 35, "DNAME": 39, "DS": 43, "SSHFP": 44, "RRSIG": 46, "NSEC": 47,
    "DNSKEY": 48, "NSEC3": 50, "TLSA": 52, "SMIMEA": 53, "CDS": 59, "CDNSKEY": 60, "OPENPGPKEY": 61,
    "SVCB": 64, "HTTPS": 65, "TKEY": 249, "TSIG": 250, "IXFR": 251, "AXFR": 252, "ANY": 255,
    "URI": 256, "CAA": 257,
}  # fmt: skip
"""Of the IANA registry those that are asked for; others are written as in RFC 3597."""
_TYPE_NAMES = {number: name for name, number in _TYPES.items()}
_OTHER_TYPE = re.compile("TYPE[0-9]{1,5}")


@define
class _DnsMessage:
    """The first message, as far as it has come; of the name, the labels that are there in full."""

    verdict: Verdict = Verdict.NEED_MORE
    name: str = ""
    type: str = ""

    def read(self, cursor: Cursor) -> None:
        self.read_question(cursor, cursor.number(2, _SHORTEST_MESSAGE, _LARGEST_WITHIN))

    def read_question(self, cursor: Cursor, length: int) -> int:
        """Read the header and the question, and give the number of records behind them."""
        cursor.take(2)
        records = _read_header(cursor, length)
        left = self._read_name(cursor, length - _HEADER - _TYPE_AND_CLASS, records)
        kind = cursor.number(2, *((1, 0xFFFF) if records or not left else (_AXFR, _AXFR)))
        self.type = _TYPE_NAMES.get(kind, f"TYPE{kind}")
        if cursor.number(2, 1, 0xFF) not in _CLASSES:
            raise MalformedError
        if left and not records:
            cursor.literal(_OF_WINDOWS)
        return records

    def _read_name(self, cursor: Cursor, room: int, records: int) -> int:
        """Read the labels, and give how many bytes of `room` are left behind the question, for other records."""
        start = cursor.at
        labels: list[str] = []
        while True:
            free = min(room, _LONGEST_NAME) - (cursor.at - start) - 2
            size = cursor.number(1, 0, min(_LONGEST_LABEL, max(free, 0)))
            if not size:
                break
            labels.append(_presented(cursor.take(size)))
            self.name = ".".join(labels)
        left = room - (cursor.at - start)
        if left < records * _SHORTEST_RECORD or (not records and left not in {0, len(_OF_WINDOWS)}):
            raise MalformedError
        return left


@frozen
class _DnsStream:
    name: Globs | None
    type: Globs | None
    key: NameKey | None
    within: int
    longest: int = _LONGEST

    @property
    def first_bytes(self) -> frozenset[int]:
        return frozenset(range((self.within >> 8) + 1))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if int.from_bytes(peeked.data[:2].ljust(2, b"\0"), "big") > self.within:
            return Verdict.NO
        message = peeked.parsed(_parse)
        if message.verdict is Verdict.NO:
            return message.verdict
        if message.verdict is Verdict.MATCH:
            fits = self.name is None or self.name.matches(message.name)
            fits = fits and (self.type is None or self.type.matches(message.type))
            return Verdict.MATCH if fits else Verdict.NO
        possible = self.name is None or self.name.could_match_prefix(message.name)
        return Verdict.NEED_MORE if possible else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        message = peeked.parsed(_parse)
        if message.verdict is not Verdict.MATCH:
            return {}
        return {"name": printable(message.name.lower() or "."), "type": message.type}


def _name(peeked: Peeked) -> str | None:
    message = peeked.parsed(_parse)
    if message.verdict is Verdict.NEED_MORE:
        return None
    return normal_host(message.name) if message.verdict is Verdict.MATCH else ""


def _name_begun(peeked: Peeked) -> str:
    return normal_host(peeked.parsed(_parse).name)


@frozen
class _DnsDatagram(Message):
    """Learns the name as it is written for people: in lower case, the root as a dot."""

    @property
    def learnt(self) -> Callable[[Peeked], dict[str, str]]:
        return _learnt_of_datagram


def _learnt_of_datagram(peeked: Peeked, /) -> dict[str, str]:
    fields = peeked.parsed(_parse_datagram)
    if fields is None:
        return {}
    return {"name": printable(fields["name"].lower() or "."), "type": fields["type"]}


def _read_datagram(cursor: Cursor) -> dict[str, str]:
    data = cursor.data
    length = len(data)
    if length < _SHORTEST_MESSAGE:
        raise ShortError(_SHORTEST_MESSAGE)
    flags, more, questions, *counts = _header(data, 2)
    records = sum(counts)
    if flags not in _ASKING or more & ~_AD_AND_CD or questions != 1 or records > _MOST_RECORDS:
        raise MalformedError
    if counts[0] and flags in _QUERY:
        raise MalformedError
    name, at = _name_in(data)
    behind = at + _TYPE_AND_CLASS
    left = length - behind
    if left < records * _SHORTEST_RECORD or (left and not records):
        raise MalformedError
    kind, of_class = _two_numbers(data, at)
    if not kind or of_class not in _CLASSES:
        raise MalformedError
    if records:
        cursor.at = behind
        for _ in range(records):
            _pass_record(cursor)
        cursor.end()
    return {"name": name, "type": _TYPE_NAMES.get(kind) or f"TYPE{kind}"}


_parse_datagram = parser(_read_datagram)


def _name_in(data: bytes) -> tuple[str, int]:
    """Read the name in the question of a datagram, and tell where what follows begins."""
    at = _HEADER
    last = min(len(data) - _TYPE_AND_CLASS, _HEADER + _LONGEST_NAME) - 1
    while size := data[at]:
        at += 1 + size
        if size > _LONGEST_LABEL or at > last:
            raise MalformedError
    return _name_of(data[_HEADER:at]), at + 1


@functools.lru_cache(maxsize=1024)  # many clients ask for the same names
def _name_of(encoded: bytes) -> str:
    """Return a name by its labels, each after its length."""
    labels, at = [], 0
    while at < len(encoded):
        behind = at + 1 + encoded[at]
        labels.append(encoded[at + 1 : behind])
        at = behind
    name = b".".join(labels)
    if _PLAIN_NAME.fullmatch(name) and name.count(b".") < max(1, len(labels)):
        return name.decode("ascii")
    return ".".join(map(_presented, labels))


def _pass_record(cursor: Cursor) -> None:
    while size := cursor.number(1, 0, 0xFF):
        if size >= _COMPRESSED:
            cursor.take(1)
            break
        if size > _LONGEST_LABEL:
            raise MalformedError
        cursor.take(size)
    cursor.take(2 + 2 + 4)
    cursor.take(cursor.number(2, 0, 0xFFFF))


@implementer(IProtocolMatcher)
class DnsMatcher:
    """Matches the first message of a DNS client (RFC 1035, sections 4.1 and 4.2; RFC 7766, section 8).

    That is, over TCP, its length in two bytes; a header that is not a response, with the opcode QUERY, NOTIFY (RFC 1996) or UPDATE
    (RFC 2136) and the flags that these may have, with AD and CD (RFC 4035); and one question, whose name is not
    compressed. The counts of the other records have to fit in the length; behind a request for a zone without records, Windows
    puts two bytes. Over TCP, the end of the question decides; over
    UDP, the other records have to fill the datagram.

    The length is bounded, so that few other protocols are held until the sixth byte shows that they are others. A query
    with padding (RFC 8467) and a signature (RFC 8945) has far less than 1 KiB; an UPDATE, or a TKEY query that carries a
    ticket of Kerberos (RFC 3645), may have more. A datagram is all there at once, and needs no such bound.
    """

    name = "dns"
    summary = "DNS, by the first question"
    transports = tuple(Transport)
    options = (
        Option(
            "name",
            "globs of the name in the first question",
            "example.internal,*.example.internal",
            "domain",
        ),
        Option(
            "type",
            "patterns of the type in the first question, such as A, MX or TYPE65280",
            "A,AAAA",
        ),
        Option(
            "within",
            "a message over TCP has at most this many bytes (17 to 65535, 1KiB if left out)",
            "16KiB",
            widens=True,
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        name = option_globs(options, "name", hosts)
        sizes = range(_SHORTEST_MESSAGE, _LARGEST_WITHIN + 1)
        within = option_size(options, "within", _DEFAULT_WITHIN, sizes)
        key = name.key(_name, _name_begun) if name else None
        return _DnsStream(name, option_globs(options, "type", _types), key, within)

    def datagram_predicate(self, options: Mapping[str, str]) -> Predicate:
        looked_at = {name: text for name, text in options.items() if name != "within"}
        wanted = patterns_of(looked_at, {"name": hosts, "type": _types})
        return _DnsDatagram(_read_datagram, wanted)


dns = DnsMatcher()


def _types(text: str) -> Globs:
    for item in text.split(","):
        name = item.strip().upper()
        if not (name.startswith("~") or set(name) & set("*?") or _OTHER_TYPE.fullmatch(name)):
            names(name, tuple(_TYPES))  # the error suggests a name
    return names(text if text.startswith("~") else text.upper())


def _parse(data: bytes, earlier: _DnsMessage | None) -> _DnsMessage:
    if earlier is not None and earlier.verdict is not Verdict.NEED_MORE:
        return earlier
    message = _DnsMessage()
    message.verdict = verdict_of(data, message.read)
    return message


def _read_header(cursor: Cursor, length: int) -> int:
    """Read what comes between the identifier and the question, and give the number of records behind it."""
    flags = cursor.number(1, 0x00, max(_UPDATE))
    if flags not in _ASKING or cursor.number(1, 0, _AD_AND_CD) & ~_AD_AND_CD:
        raise MalformedError
    cursor.number(2, 1, 1)
    most = (length - _HEADER - 1 - _TYPE_AND_CLASS) // _SHORTEST_RECORD
    answers = cursor.number(2, 0, 0 if flags in _QUERY else most)
    authorities = cursor.number(2, 0, most - answers)
    return answers + authorities + cursor.number(2, 0, most - answers - authorities)


def _presented(label: bytes) -> str:
    # As in a zone file (RFC 1035, section 5.1), so that a dot in a label parts no labels.
    return _ESCAPED.sub(lambda match: f"\\{ord(match[0]):03}", label.decode("latin-1"))
