"""Decodes PROXY protocol headers from the first bytes of a stream, however the network cuts them."""

import contextlib
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from txmux.classes import frozen
from txmux.wire.proxyprotocol.encode import SIGNATURE
from txmux.wire.proxyprotocol.header import (
    LARGEST_HEADER,
    Address,
    Command,
    InvalidHeader,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
    crc32c,
)


@frozen
class Incomplete:
    """The bytes so far may be the beginning of a header.

    Attributes:
        need: At least this many more bytes must come.
    """

    need: int


@frozen
class Decoded:
    """A whole header.

    Attributes:
        length: How many bytes it took; those behind it are the client's.
    """

    header: ProxyHeader
    length: int


def decode(data: bytes) -> Incomplete | Decoded:
    """Read a header of either version: the PROXY protocol's sections 2.1 and 2.2.

    A pure function of the bytes so far, so the answer does not depend on how they were cut into pieces.

    Args:
        data: All bytes of the stream so far.

    Raises:
        InvalidHeader: No further bytes can make a valid header of these. It is known at the first byte that
            rules one out; a wrong checksum, when the header is complete.
    """
    return _decode_v1(data) if data[:1] in {b"", b"P"} else _decode_v2(data)


def parse_ssl(value: bytes) -> SslInfo:
    """Read the value of an SSL field (PROXY protocol, section 2.2.6).

    Raises:
        InvalidHeader: It is cut short, or a sub-field does not fit into it.
    """
    if len(value) < _SSL_START.size:
        raise InvalidHeader(f"an SSL field has at least {_SSL_START.size} bytes; the sender cut it")
    client, verify = _SSL_START.unpack_from(value)
    spans = _tlv_spans(value, _SSL_START.size, len(value))
    return SslInfo(SslClient(client), verify, _tlvs(value, spans))


_NO_HEADER = (
    "the stream must begin with 'PROXY TCP4 ', 'PROXY TCP6 ', 'PROXY UNKNOWN' or the signature of"
    " version 2: make the sender add a header, or take it out of accept_proxy_from"
)

# Version 1

_SHORTEST_V1 = len(b"PROXY UNKNOWN\r\n")
_LONGEST_V1 = 107


@frozen
class _LineField:
    """The form of a field of the line: its pattern, its reader, and what may complete a part of it.

    If a part of a field can become valid at all, it does so with one of the `endings`.
    """

    form: str
    read: Callable[[str], Any]
    endings: tuple[str, ...]

    def check(self, text: str, name: str, *, whole: bool) -> Any:
        for ending in ("",) if whole else self.endings:
            with contextlib.suppress(ValueError):
                return self.read(text + ending)
        raise InvalidHeader(f"version 1: the {name} must be {self.form}")


def _read_ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise ValueError(text)
    return IPv6Address(text)


def _read_port(text: str) -> int:
    if not re.fullmatch("0|[1-9][0-9]{0,4}", text) or int(text) > 65535:
        raise ValueError(text)
    return int(text)


_ZEROS = "0.0.0.0"  # noqa: S104  # nothing is bound to it
_IPV4_ENDINGS = tuple(_ZEROS[at:] for at in range(len(_ZEROS), -1, -1))
_IPV4 = _LineField("an IPv4 address without leading zeros", IPv4Address, _IPV4_ENDINGS)
_IPV6 = _LineField("an IPv6 address", _read_ipv6, (*_IPV4_ENDINGS, ":", "::"))
_PORT = _LineField("0 to 65535 without leading zeros", _read_port, ("", "0"))

_NAMES = ("source address", "destination address", "source port", "destination port")
_FIELDS_BY_START = {
    b"PROXY TCP4 ": (_IPV4, _IPV4, _PORT, _PORT),
    b"PROXY TCP6 ": (_IPV6, _IPV6, _PORT, _PORT),
    b"PROXY UNKNOWN ": None,
}


_NUMBER = b"(?:0|[1-9][0-9]{0,4})"
_HOST = rb"(%b\.%b\.%b\.%b)" % (4 * (_NUMBER,))
_WHOLE_LINE = re.compile(b"PROXY TCP4 %b %b (%b) (%b)\r\n" % (2 * (_HOST,) + 2 * (_NUMBER,)))


def _read_whole_line(data: bytes) -> Decoded | None:
    """Read a line as balancers send it, in one piece; ``None`` leaves it to what finds every fault."""
    line = _WHOLE_LINE.match(data)
    if line is None:
        return None
    source, destination, source_port, destination_port = line.groups()
    try:
        # By bytes, since to read a text takes too long for each new client.
        header = ProxyHeader(
            Command.PROXY,
            Address(IPv4Address(bytes(map(int, source.split(b".")))), int(source_port)),
            Address(IPv4Address(bytes(map(int, destination.split(b".")))), int(destination_port)),
        )
    except ValueError:  # a number is too large
        return None
    return Decoded(header, line.end())


def _decode_v1(data: bytes) -> Incomplete | Decoded:
    whole = _read_whole_line(data)
    if whole is not None:
        return whole
    text = re.split(b"[\r\n]", data[:_LONGEST_V1], maxsplit=1)[0]
    end = data[len(text) : min(len(text) + 2, _LONGEST_V1)]
    header = _read_line(text, ended=bool(end))
    if not b"\r\n".startswith(end):
        raise InvalidHeader("version 1: the line must end in CR LF, and neither may appear alone")
    if len(text) > _LONGEST_V1 - 2:
        raise InvalidHeader(f"version 1: the line must end within {_LONGEST_V1} bytes")
    if header is None or end != b"\r\n":
        return Incomplete(max(1, _SHORTEST_V1 - len(data)))
    return Decoded(header, len(text) + len(end))


def _read_line(text: bytes, *, ended: bool) -> ProxyHeader | None:
    # The end of the line completes a word as a space does.
    words = text + b" " if ended else text
    starts = (s for s in _FIELDS_BY_START if words.startswith(s) or s.startswith(words))
    start = next(starts, None)
    if start is None or (ended and len(words) < len(start)):
        raise InvalidHeader(_NO_HEADER)
    if len(words) < len(start):
        return None
    form = _FIELDS_BY_START[start]
    if form is None:
        return ProxyHeader()
    fields = text[len(start) :].decode("latin-1").split(" ")
    values = [
        field.check(word, name, whole=ended or at < len(fields))
        for at, (field, word, name) in enumerate(zip(form, fields, _NAMES, strict=False), start=1)
    ]
    if len(fields) > len(form):
        raise InvalidHeader("version 1: the destination port must be the last field")
    if not ended:
        return None
    if len(values) < len(form):
        raise InvalidHeader(f"version 1: the {_NAMES[len(values)]} is missing")
    source, destination, source_port, destination_port = values
    return ProxyHeader(
        Command.PROXY, Address(source, source_port), Address(destination, destination_port)
    )


# Version 2

_START_LENGTH = 16
LONGEST_HEADER = _START_LENGTH + 0xFFFF
"""Bytes that a header has at most."""
_SSL_START = struct.Struct("!BI")
_COMMANDS = (0x20, 0x21)
_ADDRESSES_LENGTHS = (0, 12, 36, 216)  # by address family: UNSPEC, INET, INET6, UNIX
_TRANSPORTS = (0, 1, 2)  # UNSPEC, STREAM, DGRAM
_Span = tuple[int, int, int]
_TCP = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}


_UDP = {0x12: _TCP[0x11], 0x22: _TCP[0x21]}


def decode_datagram(data: bytes) -> Decoded | None:
    """Read the header that a datagram begins with: version 2, whole (PROXY protocol, section 2.2).

    Returns:
        The header; ``None`` if there is none, or one that is wrong.
    """
    if not data.startswith(SIGNATURE):
        return None
    try:
        decoded = _decode_v2(data, _UDP)
    except InvalidHeader:
        return None
    return decoded if isinstance(decoded, Decoded) else None


def _decode_v2(data: bytes, forms: Mapping[int, struct.Struct] = _TCP) -> Incomplete | Decoded:
    _check_start(data)
    if len(data) < _START_LENGTH:
        return Incomplete(_START_LENGTH - len(data))
    command, family = Command(data[12] & 0x0F), data[13]
    length = _START_LENGTH + int.from_bytes(data[14:16], "big")
    tlvs_at = _START_LENGTH + _ADDRESSES_LENGTHS[family >> 4]
    form = forms.get(family) if command is Command.PROXY else None
    if form and length < tlvs_at:
        raise InvalidHeader("version 2: the addresses do not fit into the header's length")
    try:
        spans = list(_tlv_spans(data[:length], tlvs_at, length))
    except InvalidHeader:
        if form:
            raise
        # The contents of a header without addresses have to be skipped.
        spans = []
    if len(data) < length:
        return Incomplete(length - len(data))
    _verify_checksums(data[:length], spans)
    tlvs = tuple(tlv for tlv in _tlvs(data, spans) if tlv.type != TlvType.CRC32C)
    if form is None:
        return Decoded(ProxyHeader(command, tlvs=tlvs), length)
    source, destination, source_port, destination_port = form.unpack_from(data, _START_LENGTH)
    address = IPv4Address if len(source) == 4 else IPv6Address
    client = Address(address(source), source_port)
    local = Address(address(destination), destination_port)
    return Decoded(ProxyHeader(command, client, local, tlvs), length)


def _check_start(data: bytes) -> None:
    if not SIGNATURE.startswith(data[:12]):
        raise InvalidHeader(_NO_HEADER)
    if len(data) > 12 and data[12] not in _COMMANDS:
        raise InvalidHeader("version 2: byte 13 must be 20 (LOCAL) or 21 (PROXY) in hexadecimal")
    if len(data) > 13 and data[13] >> 4 >= len(_ADDRESSES_LENGTHS):
        raise InvalidHeader("version 2: the address family in byte 14 must be 0 to 3")
    if len(data) > 13 and data[13] & 0x0F not in _TRANSPORTS:
        raise InvalidHeader("version 2: the transport protocol in byte 14 must be 0 to 2")
    # A missing byte counts as zero, so a length may be too large by its first byte alone.
    if int.from_bytes(data[14:16].ljust(2, b"\0"), "big") > LARGEST_HEADER - _START_LENGTH:
        raise InvalidHeader(f"version 2: the header must have at most {LARGEST_HEADER} bytes")


def _tlv_spans(data: bytes, start: int, end: int) -> Iterator[_Span]:
    """Find the fields between two offsets, as far as `data` goes: where type, value and next field begin."""
    while start < end:
        value = start + 3
        following = value + int.from_bytes(data[start + 1 : value].ljust(2, b"\0"), "big")
        if following > end:
            message = "a field is longer than what holds it: the sender's lengths disagree"
            raise InvalidHeader(message)
        if len(data) < value:
            return
        yield start, value, following
        start = following


def _tlvs(data: bytes, spans: Iterable[_Span]) -> tuple[Tlv, ...]:
    return tuple(Tlv(data[start], data[value:following]) for start, value, following in spans)


def _verify_checksums(encoded: bytes, spans: list[_Span]) -> None:
    places = [slice(value, end) for start, value, end in spans if encoded[start] == TlvType.CRC32C]
    if not places:
        return
    zeroed = bytearray(encoded)
    for place in places:
        zeroed[place] = bytes(place.stop - place.start)
    checksum = crc32c(bytes(zeroed)).to_bytes(4, "big")
    if any(encoded[place] != checksum for place in places):
        raise InvalidHeader("version 2: the CRC32C is wrong: the header was changed on its way")
