"""A stream whose pieces come in any order, in datagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.wire.cursor import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LONGEST_STREAM", "MOST_PIECES", "Piece", "joined"]

Piece = tuple[int, bytes]
"""Where a piece of the stream begins, and the piece."""

LONGEST_STREAM = 16 * 1024
"""The most bytes of the stream that are kept."""
MOST_PIECES = 32
"""The most pieces of it that are kept."""


def joined(stream: bytes, pieces: Iterable[Piece]) -> tuple[bytes, tuple[Piece, ...]]:
    """Put pieces that come next to the end of a stream.

    Args:
        stream: Its beginning, as far as it is whole.
        pieces: Pieces in any order, which may overlap.

    Returns:
        The longer beginning, and the pieces behind a gap, in their order in the stream.

    Raises:
        MalformedError: Two pieces say different things of the same place.
    """
    behind = []
    parts = [stream]
    length = len(stream)
    for offset, data in sorted(set(pieces)):
        if offset > length:
            behind.append((offset, data))
            continue
        overlap = length - offset
        if overlap:
            # All that is before the end is in one string here, or else has just been put behind it.
            parts = [b"".join(parts)]
            if parts[0][offset : offset + len(data)] != data[:overlap]:
                raise MalformedError
        if overlap < len(data):
            parts.append(data[overlap:])
            length += len(data) - overlap
    return b"".join(parts), tuple(behind)
