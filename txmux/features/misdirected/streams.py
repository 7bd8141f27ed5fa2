"""The frames of HTTP/2 between a client and a server, of which some requests are answered 421 (RFC 9110, section 15.5.20). Pure."""

from collections.abc import Callable

from hpack import Decoder, Encoder

from txmux.features.misdirected.places import Fields, header_frames
from txmux.wire.cursor import MalformedError
from txmux.wire.http2_fields import read_section
from txmux.wire.http2_opening import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    fragment,
    frame,
    status_section,
)

_OF_STREAM = frozenset({DATA, PRIORITY, RST_STREAM, WINDOW_UPDATE})
_WITH_SECTION = frozenset({HEADERS, PUSH_PROMISE, CONTINUATION})
_HEAD = 9
_MISDIRECTED = 421
_TABLE_SIZE, _USUAL_TABLE = b"\0\1", 4096
# In each section: a server that has made its table smaller since awaits it (RFC 7541, section 4.2).
_EMPTY_TABLE = b"\x20"
_RESIZE, _PREFIX, _SEVEN_BITS = 0x20, 31, 127
_LARGEST = 1 << 16  # bytes of a header section, and of the table
_LARGEST_WINDOW = (1 << 31) - 1
_MOST = 1000
"""Requests of a connection that are answered here, and remembered; no browser has so many under way."""


class TooManyError(Exception):
    """A client asks again and again for what it does not get here, or cannot be understood where it has to be."""


class Streams:
    """What a client and its server say to each other.

    While no request is misdirected, all bytes are passed on as they are. After the first one, header sections are written again
    without the dynamic table, since the server has not seen all that was added to that (RFC 7541, section 2.3.2).

    Args:
        is_misdirected: Called with the fields of each request.
        may_pass_unread: Called once something cannot be read; returns whether it passes, with all that follows: what is wrong is for the
            server to say.
    """

    def __init__(
        self,
        is_misdirected: Callable[[Fields], bool],
        may_pass_unread: Callable[[], bool] = lambda: True,
    ) -> None:
        self._is_misdirected = is_misdirected
        self._may_pass_unread = may_pass_unread
        self._is_blind = False
        self._table = _USUAL_TABLE  # of the client, for answers
        # Of the client:
        self._preface = PREFACE  # what has not come of it
        self._held = b""
        self._left = 0  # bytes of a frame that is passed on, or dropped, as they come
        self._drops = False
        self._frames = b""  # with a header section that is not whole
        self._section = b""  # what is in them
        self._stream = self._flags = 0  # of the first of them
        self._decoder = Decoder(_LARGEST)
        self._decoder.max_allowed_table_size = _LARGEST
        self._encoder: Encoder | None = None
        self._highest = 0
        self._refused: set[int] = set()
        self._is_own_unacknowledged = False  # SETTINGS that did not come from the server
        # Of the server:
        self._head = b""  # of the frame that is not whole
        self._rest = 0
        self._has_begun = self._is_within = False  # a header section
        # For the client, between frames of the server:
        self._answers = b""
        self._returned = 0  # bytes of dropped DATA

    def from_client(self, data: bytes) -> bytes:
        """Return what the server gets.

        Raises:
            TooManyError: The connection has to be ended.
        """
        begun = data[: len(self._preface)]
        if not self._is_blind and not self._preface.startswith(begun):
            self._give_up()
        if self._is_blind:
            return data
        self._preface = self._preface[len(begun) :]
        data, passed, at = self._held + data[len(begun) :], [begun], 0
        try:
            while at < len(data):
                if self._left:
                    end = min(at + self._left, len(data))
                    self._left -= end - at
                    passed.append(b"" if self._drops else data[at:end])
                    at = end
                    continue
                if len(data) < at + _HEAD:
                    break
                size, kind, flags, stream = _read_head(data, at)
                end = at + _HEAD + size
                if self._frames or kind == HEADERS or (kind == SETTINGS and size):
                    self._check_size(size)
                    if len(data) < end:
                        break
                    passed.append(self._whole(kind, flags, stream, data[at:end]))
                    at = end
                else:
                    self._left = _HEAD + size
                    self._drops = self._is_dropped(kind, flags, stream, size)
        except MalformedError:
            self._give_up()
            return b"".join([*passed, self._frames, data[at:]])
        self._held = data[at:]
        return b"".join(passed)

    def _give_up(self) -> None:
        if not self._may_pass_unread() or self._encoder is not None:
            raise TooManyError from None
        self._is_blind = True

    def _check_size(self, size: int) -> None:
        if len(self._frames) + size > _LARGEST:
            raise MalformedError

    def _whole(self, kind: int, flags: int, stream: int, data: bytes) -> bytes:
        """Take a whole frame, and return what is passed on."""
        payload = data[_HEAD:]
        if not self._frames and kind == SETTINGS:
            self._take_settings(payload)
            return data
        if self._frames:
            if kind != CONTINUATION or stream != self._stream:
                raise MalformedError
            section, frames = self._section + payload, self._frames + data
        else:
            self._stream, self._flags = stream, flags
            section, frames = fragment(payload, flags), data
        if not flags & END_HEADERS:
            self._section, self._frames = section, frames
            return b""
        fields = read_section(self._decoder, section)
        self._section = self._frames = b""
        stream = self._stream
        if stream > self._highest:
            self._highest = stream
            if self._is_misdirected(fields):
                self._refuse(stream)
        if stream in self._refused:
            return b""
        if self._encoder is None:
            return frames
        written = _EMPTY_TABLE + self._encoder.encode(fields)
        return header_frames(stream, self._flags & END_STREAM, written)

    def _refuse(self, stream: int) -> None:
        if len(self._refused) == _MOST:
            raise TooManyError
        self._refused.add(stream)
        if self._encoder is None:
            self._encoder = Encoder()
            self._encoder.header_table.maxsize = 0
        section = self._resizing() + status_section(_MISDIRECTED)
        self._answers += frame(HEADERS, END_STREAM | END_HEADERS, stream, section)
        if not self._flags & END_STREAM:
            # It need not send the rest (RFC 9113, section 8.1).
            self._answers += frame(RST_STREAM, 0, stream, bytes(4))

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if payload[at : at + 2] == _TABLE_SIZE and value < self._table:
                # The server may still use the table of before for answers to earlier requests.
                if self._highest:
                    raise MalformedError
                self._table = value

    def _resizing(self) -> bytes:
        """Write the change of the table that a client awaits whose table is smaller than usual (RFC 7541, sections 4.2 and 6.3)."""
        if self._table == _USUAL_TABLE:
            return b""
        if self._table < _PREFIX:
            return bytes([_RESIZE | self._table])
        left, written = self._table - _PREFIX, [_RESIZE | _PREFIX]
        while left > _SEVEN_BITS:
            written.append(left & _SEVEN_BITS | _SEVEN_BITS + 1)
            left >>= 7
        return bytes([*written, left])

    def _is_dropped(self, kind: int, flags: int, stream: int, size: int) -> bool:
        if kind == SETTINGS and flags & ACK and self._is_own_unacknowledged:
            self._is_own_unacknowledged = False
            return True
        if stream not in self._refused or kind not in _OF_STREAM:
            return False
        self._returned += size * (kind == DATA)
        if self._returned > _LARGEST_WINDOW:
            raise TooManyError
        return True

    def from_server(self, data: bytes) -> bytes:
        """Return what the client gets, with answers between the frames."""
        if self._is_blind:
            return data
        passed, at, start = [], 0, 0
        while at < len(data):
            if not self._rest:
                end = at + _HEAD - len(self._head)
                self._head += data[at:end]
                at = end
                if len(self._head) < _HEAD:
                    break
                self._rest, kind, flags, _ = _read_head(self._head, 0)
                if kind in _WITH_SECTION:
                    self._is_within = not flags & END_HEADERS
            end = min(at + self._rest, len(data))
            self._rest -= end - at
            at = end
            if not self._rest:
                self._head, self._has_begun = b"", True
                passed += [data[start:at], self.answers()]
                start = at
        return b"".join([*passed, data[start:]])

    def answers(self) -> bytes:
        """Return what the client gets of answers now: nothing while a frame, or a header section, of the server is not whole."""
        if self._head or self._is_within or not (self._answers or self._returned):
            return b""
        answers, self._answers = self._answers, b""
        if not self._has_begun:
            self._has_begun = self._is_own_unacknowledged = True
            answers = frame(SETTINGS, 0, 0) + answers
        if self._returned:
            answers += frame(WINDOW_UPDATE, 0, 0, self._returned.to_bytes(4, "big"))
            self._returned = 0
        return answers


def _read_head(data: bytes, at: int) -> tuple[int, int, int, int]:
    size = int.from_bytes(data[at : at + 3], "big")
    stream = int.from_bytes(data[at + 5 : at + _HEAD], "big") & 0x7FFFFFFF
    return size, data[at + 3], data[at + 4], stream
