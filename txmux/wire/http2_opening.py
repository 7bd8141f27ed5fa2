"""An HTTP/2 client up to its first request, read as far as it has come; and frames."""

from collections.abc import Mapping

import attrs

from txmux.classes import define
from txmux.interfaces import Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError, copied
from txmux.wire.predicates import begins_with

__all__ = [
    "ACK", "CONTINUATION", "DATA", "END_HEADERS", "END_STREAM", "FRAMES_LIMIT", "GOAWAY", "HEADERS",
    "LARGEST_FRAME", "OPENING_LIMIT", "PREFACE", "PRIORITY", "PUSH_PROMISE", "RST_STREAM", "SETTINGS",
    "WINDOW_UPDATE", "Opening", "fragment", "frame", "parse_opening", "status_section",
]  # fmt: skip

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client says first (RFC 9113, section 3.4)."""

OPENING_LIMIT = 32 * 1024
"""The most bytes up to the end of the first request's header section."""
FRAMES_LIMIT = 200
"""The most frames among them: reading a frame takes time, however little is in it."""
LARGEST_FRAME = 1 << 14
"""Bytes of a frame, until SETTINGS of its receiver allow more."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0x0, 0x1, 0x2, 0x3, 0x4, 0x5
_PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x6, 0x7, 0x8, 0x9
ACK = END_STREAM = 0x1
END_HEADERS, _PADDED, _HAS_PRIORITY = 0x4, 0x8, 0x20
_SIZES = {PRIORITY: 5, _PING: 8, WINDOW_UPDATE: 4}


@define(slots=False)
class Opening:
    """The state of an opening connection; frozen once `parse_opening` has returned it.

    Attributes:
        refused: Whether no request can follow, whatever comes.
        settings: The identifiers in the SETTINGS frames so far.
        stream: The stream of the first request, once its header section has begun; 0 before.
        fields: The header section of the first request, once it is there in full: pseudo-header fields and the
            first field of every other name; one character a byte.
    """

    refused: bool = False
    settings: frozenset[int] = frozenset()
    stream: int = 0
    fields: Mapping[str, str] | None = None

    _at: int = 0
    """Where the next frame begins."""
    _frames: int = 0
    """How many have been read."""
    _needed: int = attrs.field(default=0, eq=False)
    """Reading cannot continue with fewer bytes."""
    _section: bytes = b""
    """What has come of the header section that is being read."""

    def read(self, data: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning.

        Raises:
            MalformedError: No request can follow, whatever comes.
        """
        preface = begins_with(data, PREFACE)
        if preface is Verdict.NO:
            raise MalformedError
        if preface is Verdict.MATCH:
            cursor = Cursor(data, self._at or len(PREFACE))
            try:
                while self.fields is None:
                    self._read_frame(cursor)
                    self._at = cursor.at
                    self._frames += 1
                    if self.fields is None and self._frames == FRAMES_LIMIT:
                        raise MalformedError
            except ShortError as short:
                self._needed = min(short.needed, OPENING_LIMIT)
        if self.fields is None and len(data) == OPENING_LIMIT:
            raise MalformedError

    def _read_frame(self, cursor: Cursor) -> None:
        size = cursor.number(3, 0, LARGEST_FRAME)
        if self.stream:
            kind = cursor.number(1, CONTINUATION, CONTINUATION)
        else:
            kind = cursor.number(1, 0, 0xFF) if self._at else cursor.number(1, SETTINGS, SETTINGS)
        flags = cursor.number(1, 0, 0xFF)
        stream = cursor.number(4, 0, 0xFFFFFFFF) & 0x7FFFFFFF
        if not (stream == self.stream if self.stream else _fits(kind, size, flags, stream)):
            raise MalformedError
        payload = cursor.take(size)
        if kind == SETTINGS:
            self.settings |= {int.from_bytes(payload[i : i + 2], "big") for i in range(0, size, 6)}
        elif kind in {HEADERS, CONTINUATION}:
            self.stream = stream
            self._section += payload if kind == CONTINUATION else fragment(payload, flags)
            if flags & END_HEADERS:
                from txmux.wire.http2_fields import decoded  # noqa: PLC0415 - hpack takes a while

                self.fields = decoded(self._section)
                self._section = b""


def parse_opening(data: bytes, earlier: Opening | None) -> Opening:
    """Read the first request of HTTP/2 out of the first bytes of a stream; for `Peeked.parsed`.

    Between the preface and the HEADERS frame come SETTINGS, and maybe WINDOW_UPDATE, PRIORITY, PING and frames
    of unknown types (RFC 9113, sections 3.4, 5.5 and 6). Any other frame there refuses the opening.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if earlier is not None and (earlier.refused or earlier.fields is not None):
        return earlier
    if earlier is not None and len(data) < earlier._needed:
        return earlier
    opening = copied(earlier) if earlier else Opening()
    try:
        opening.read(data[:OPENING_LIMIT])
    except MalformedError:
        opening.refused = True
    return opening


def _fits(kind: int, size: int, flags: int, stream: int) -> bool:
    """Return whether a frame with this header may begin the first request, or come before it."""
    if kind == HEADERS:
        return stream % 2 == 1
    if kind == SETTINGS:
        return stream == 0 and size % 6 == 0 and not flags & ACK
    if kind in _SIZES:
        own_stream = kind == PRIORITY
        return size == _SIZES[kind] and (stream > 0) is own_stream and not flags & ACK
    return kind > CONTINUATION


def fragment(payload: bytes, flags: int) -> bytes:
    """Take the part of a header section out of a HEADERS frame (RFC 9113, section 6.2)."""
    padding = 0
    if flags & _PADDED:
        padding, payload = payload[0] if payload else 0, payload[1:]
    skipped = 5 if flags & _HAS_PRIORITY else 0
    end = len(payload) - padding
    if end < skipped:
        raise MalformedError
    return payload[skipped:end]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame (RFC 9113, section 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def status_section(status: int) -> bytes:
    """Write the header section of an answer that is its status of three digits, for any state of the dynamic table.

    The name is number 8 of the static table, and nothing is added to the other (RFC 7541, section 6.2.2).
    """
    return b"\x08\x03%d" % status
