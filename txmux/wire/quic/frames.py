"""The frames that may be in an Initial packet."""

import re

from txmux.wire.cursor import MalformedError
from txmux.wire.quic.header import varint
from txmux.wire.reassembly import LONGEST_STREAM, MOST_FRAGMENTS, Fragment

_ACK, _ACK_ECN, _CRYPTO, _CLOSE = 0x02, 0x03, 0x06, 0x1C
_MOST_OTHERS = 32
_skip = re.compile(rb"[\x00\x01]*").match  # PADDING and PING, of which there may be thousands


def read_frames(payload: bytes) -> list[Fragment]:
    """Read the frames of a client's Initial packet (RFC 9000, sections 12.4 and 19).

    Returns:
        The fragments of the stream in its CRYPTO frames, in the order of the frames.

    Raises:
        MalformedError: There is a frame that may not be there, or one that is not there in full, or too many of them.
    """
    fragments: list[Fragment] = []
    others = 0
    at, end = 0, len(payload)
    if not end:
        raise MalformedError
    while True:
        padding = _skip(payload, at)
        at = padding.end() if padding else at
        if at >= end:
            return fragments
        kind = payload[at]
        if kind == _CRYPTO:
            offset, at = varint(payload, at + 1)
            length, at = varint(payload, at)
            if (
                at + length > end
                or offset + length > LONGEST_STREAM
                or len(fragments) >= MOST_FRAGMENTS
            ):
                raise MalformedError
            fragments.append((offset, payload[at : at + length]))
            at += length
            continue
        others += 1
        if others > _MOST_OTHERS:
            raise MalformedError
        if kind in {_ACK, _ACK_ECN}:
            at = _skip_ack(payload, at + 1, ecn=kind == _ACK_ECN)
        elif kind == _CLOSE:
            _, at = varint(payload, at + 1)
            _, at = varint(payload, at)
            length, at = varint(payload, at)
            at += length
        else:
            raise MalformedError
        if at > end:
            raise MalformedError


def _skip_ack(payload: bytes, at: int, *, ecn: bool) -> int:
    """Find the end of an ACK frame (RFC 9000, section 19.3)."""
    for _ in range(2):  # the largest number, the delay
        _, at = varint(payload, at)
    count, at = varint(payload, at)
    if count > _MOST_OTHERS:
        raise MalformedError
    for _ in range(1 + 2 * count + (3 if ecn else 0)):
        _, at = varint(payload, at)
    return at
