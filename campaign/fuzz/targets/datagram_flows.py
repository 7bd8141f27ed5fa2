"""The first datagrams of a flow of DTLS, with or without a cookie, and the IDs by which QUIC and WireGuard tell of flows."""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, joined, see, split
from tests.matchers.all_samples import all_samples
from txmux.interfaces import MOST_DATAGRAMS
from txmux.udp import flow_ids
from txmux.udp.flow import behind_headers, may_move
from txmux.wire.dtls import DtlsOpening, parse_dtls
from txmux.wire.proxyprotocol.decode import decode_datagram

_LONGEST_ID = 21  # with the letter of its protocol


def _shown(opening: DtlsOpening) -> Any:
    hello = opening.hello
    return opening.refused, opening.certain, hello.malformed, hello.hello


def _check(data: bytes) -> None:
    parts = [part for part in split(data, MOST_DATAGRAMS) if part]
    if not parts:
        return
    opening: DtlsOpening | None = None
    for count in range(1, len(parts) + 1):
        opening = parse_dtls(tuple(parts[:count]), opening)
        see(_shown(opening) == _shown(parse_dtls(tuple(parts[:count]), None)))
    _check_ids(parts)
    _check_headers(parts)


def _check_ids(parts: list[bytes]) -> None:
    first, *others = parts
    begun = flow_ids.protocol_of(first)
    if begun is not None:
        see(may_move(first), first)
        protocol, own = begun
        for one in others:
            found = flow_ids.server_id(protocol, one, own)
            see(len(found) <= _LONGEST_ID)
            see(not found or (found[:1] == protocol and flow_ids.may_have_id(protocol, one[0])))
    for one in parts:
        asked = flow_ids.id_asked(one)
        see(asked is None or asked == b"" or asked[:1] in {flow_ids.QUIC, flow_ids.WIREGUARD})
        flow_ids.continues_tunnel(one)
        flow_ids.begins_tunnel(one, len(first))


def _check_headers(parts: list[bytes]) -> None:
    first = decode_datagram(parts[0])
    if first is not None:
        together = memoryview(b"".join(parts))
        for size in (0, len(parts[0])):
            for part in behind_headers(first.header, together, size):
                see(part is None or len(part) <= len(together))


def _seeds() -> list[bytes]:
    samples = all_samples("DATAGRAMS")
    flows = [
        [one] if isinstance(one, bytes) else [*one]
        for name in ("dtls", "quic", "wireguard")
        for one in samples[name]
    ]
    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c" + bytes([9, 9, 9, 9, 8, 8, 8, 8, 0, 7, 0, 8])
    response = b"\2\0\0\0" + bytes(88)
    initiation = b"\1\0\0\0" + bytes(144)
    return [
        *(joined(flow) for flow in flows),
        joined([initiation, response, b"\4\0\0\0" + bytes(28)]),
        joined([header + b"x", header + b"y", b"z"]),
    ]


_WORDS = (
    b"\x16\xfe\xfd\0\0\0\0", b"\x16\xfe\xff\0\0\0\0", b"\1\0\0\0", b"\2\0\0\0", b"\4\0\0\0",
    b"\xc0\0\0\0\1\x08", b"\r\n\r\n\0\r\nQUIT\n\x21\x12", b"\x21\x22\0\x24", b"\0\1\0\0\0\0",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=3000)
