"""Reassembles a stream whose fragments arrive in any order, in datagrams."""

from collections.abc import Iterable

from txmux.wire.cursor import MalformedError

Fragment = tuple[int, bytes]
"""The offset of a fragment in the stream, and its bytes."""

LONGEST_STREAM = 16 * 1024
"""The most bytes of a stream that are buffered."""
MOST_FRAGMENTS = 32
"""The most fragments of it that are buffered."""


def reassemble(stream: bytes, fragments: Iterable[Fragment]) -> tuple[bytes, tuple[Fragment, ...]]:
    """Append the fragments that continue a stream.

    Args:
        stream: Its beginning, as far as it is whole.
        fragments: In any order; they may overlap.

    Returns:
        The longer beginning, and the fragments after a gap, in the order of the stream.

    Raises:
        MalformedError: Two fragments differ where they overlap.
    """
    after_gap = []
    parts = [stream]
    length = len(stream)
    for offset, data in sorted(set(fragments)):
        if offset > length:
            after_gap.append((offset, data))
            continue
        overlap = length - offset
        if overlap:
            # Everything before the end is in this string now.
            parts = [b"".join(parts)]
            if parts[0][offset : offset + len(data)] != data[:overlap]:
                raise MalformedError
        if overlap < len(data):
            parts.append(data[overlap:])
            length += len(data) - overlap
    return b"".join(parts), tuple(after_gap)
