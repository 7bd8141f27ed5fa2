"""Headers of the PROXY protocol, in a stream and in a datagram."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain

from campaign.fuzz.target import Target, cuttings, see
from tests.wire.proxyprotocol.vectors import V1, V2, V2_WITH_CHECKSUM
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete, decode, decode_datagram, parse_ssl
from txmux.wire.proxyprotocol.encode import SIGNATURE, encode_ssl, encode_v1, encode_v2
from txmux.wire.proxyprotocol.fields import header_facts, passed_on_fields
from txmux.wire.proxyprotocol.header import InvalidHeader, ProxyHeader, TlvType


def _answer(data: bytes) -> Decoded | Incomplete | str:
    try:
        return decode(data)
    except InvalidHeader as error:
        see(str(error))
        return str(error)


def _check(data: bytes) -> None:
    whole = _answer(data)
    for length in chain.from_iterable(cuttings(data)):
        part = _answer(data[:length])
        if isinstance(part, Incomplete):
            assert part.need >= 1
            if isinstance(whole, Decoded):
                assert length + part.need <= whole.length
        else:
            assert part == whole, (length, part, whole)
    for found in (whole, decode_datagram(data)):
        if isinstance(found, Decoded):
            assert 0 < found.length <= len(data)
            _check_header(found.header)


def _check_header(header: ProxyHeader) -> None:
    for name, value in _told(header).items():
        assert name
        assert value
    ssl = header.value_of(TlvType.SSL)
    if ssl is not None:
        with suppress(InvalidHeader):
            assert encode_ssl(parse_ssl(ssl)).value == ssl
    passed_on_fields((), header.tlvs)
    line = decode(encode_v1(header))
    assert isinstance(line, Decoded)
    assert (line.header.source, line.header.destination) == (header.source, header.destination)
    try:
        again = decode(encode_v2(header, checksum=True))
    except InvalidHeader:  # it is too long for others
        return
    assert isinstance(again, Decoded)
    assert again.header == header


def _told(header: ProxyHeader) -> dict[str, str]:
    try:
        return header_facts(header)
    except InvalidHeader:
        return {}


def _seeds() -> list[bytes]:
    udp = SIGNATURE + b"\x21\x12\0\x0c" + bytes([9, 9, 9, 9, 8, 8, 8, 8, 0, 7, 0, 8])
    return [*V1, *V2, V2_WITH_CHECKSUM, udp]


_WORDS = (
    SIGNATURE, b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN\r\n", b"0.0.0.0 ", b"::", b"\r\n",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=600)
