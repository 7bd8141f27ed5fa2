"""The first datagrams of a QUIC client: as they are on the wire, or the frames that the packets hide.

Chance would never find the key of a packet. So an input whose first byte is odd has frames, which are put into packets here.
"""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, joined, split
from tests.matchers.all_samples import all_samples
from tests.wire.quic_builder import HELLO, V1, V2, V29, crypto, initial
from txmux.interfaces import MOST_DATAGRAMS
from txmux.matchers.quic import quic
from txmux.testing import flow_decided
from txmux.wire.quic.opening import QuicOpening, parse_opening

_VERSIONS = (V1, V2, V29)
_PREDICATES = tuple(
    quic.predicate(options) for options in ({}, {"sni": "*.example.com"}, {"alpn": "h3"})
)


def _shown(opening: QuicOpening) -> Any:
    return (
        opening.refused,
        opening.certain,
        opening.version,
        opening.hello.malformed,
        opening.hello.hello,
    )


def _check(data: bytes) -> None:
    kind, parts = data[:1], split(data[1:], MOST_DATAGRAMS)
    if not parts:
        return
    if kind and kind[0] & 1:
        version = _VERSIONS[kind[0] >> 1 & 1 or kind[0] >> 2 & 2]
        parts = [
            initial(frames, number=number, version=version, pad=0)
            for number, frames in enumerate(parts)
        ]
    if not parts[0]:
        return
    opening: QuicOpening | None = None
    for count in range(1, len(parts) + 1):
        opening = parse_opening(tuple(parts[:count]), opening)
        assert _shown(opening) == _shown(parse_opening(tuple(parts[:count]), None))
    for predicate in _PREDICATES:
        flow_decided(predicate, parts)


def _seeds() -> list[bytes]:
    flows = [
        [one] if isinstance(one, bytes) else [*one] for one in all_samples("DATAGRAMS")["quic"]
    ]
    half = len(HELLO) // 2
    pieces = [crypto(half, HELLO[half:]), crypto(0, HELLO[:half])]
    return [
        *(b"\0" + joined(flow) for flow in flows),
        *(kind + joined([crypto(0, HELLO)]) for kind in (b"\1", b"\3", b"\x09")),
        b"\1" + joined(pieces),
        b"\1" + joined([b"\2\1\0\0\0" + b"\1" + pieces[1] + bytes(9), pieces[0]]),
    ]


_WORDS = (
    b"\6\0\x40", b"\2\0\0\0\0", b"\x1c\0\0\0", b"\0\0\0\1", b"\x6b\x33\x43\xcf", b"\xff\0\0\x1d",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=3000)
