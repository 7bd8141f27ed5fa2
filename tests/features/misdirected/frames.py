from collections.abc import Iterator, Sequence

import attrs
from hpack import Decoder, Encoder

from txmux.wire.http2_opening import frame

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9  # fmt: skip
END_STREAM = ACK = 1
END_HEADERS, PADDED, HAS_PRIORITY = 4, 8, 0x20


@attrs.frozen
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def frames_of(data: bytes) -> Iterator[Frame]:
    while data:
        size = int.from_bytes(data[:3], "big")
        stream = int.from_bytes(data[5:9], "big")
        assert len(data) >= 9 + size
        yield Frame(data[3], data[4], stream, data[9 : 9 + size])
        data = data[9 + size :]


def asked(host: str, method: str = "GET", *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "https"), (":authority", host), (":path", "/"), *more]


@attrs.define
class Speaker:
    encoder: Encoder = attrs.field(factory=Encoder)
    decoder: Decoder = attrs.field(factory=Decoder)

    def headers(
        self,
        stream: int,
        fields: Sequence[tuple[str, str]],
        flags: int = END_STREAM,
        *,
        cut: int = 1 << 14,
        padding: int = 0,
        priority: bool = False,
    ) -> bytes:
        section = self.encoder.encode(fields)
        first, rest = section[:cut], section[cut:]
        if priority:
            first, flags = bytes(5) + first, flags | HAS_PRIORITY
        if padding:
            first, flags = bytes([padding]) + first + bytes(padding), flags | PADDED
        pieces = [rest[at : at + cut] for at in range(0, len(rest), cut)]
        data = frame(HEADERS, flags | END_HEADERS * (not pieces), stream, first)
        for piece in pieces[:-1]:
            data += frame(CONTINUATION, 0, stream, piece)
        return data + frame(CONTINUATION, END_HEADERS, stream, pieces[-1]) if pieces else data

    def read(self, data: bytes) -> list[tuple[int, int, object]]:
        """Return each frame as kind, stream, and payload; of a whole header section, its fields."""
        read: list[tuple[int, int, object]] = []
        section = b""
        for one in frames_of(data):
            if one.kind not in {HEADERS, CONTINUATION}:
                assert not section
                read.append((one.kind, one.stream, one.payload))
                continue
            payload = one.payload
            if one.kind == HEADERS and one.flags & PADDED:
                payload = payload[1 : len(payload) - payload[0]]
            skipped = 5 if one.kind == HEADERS and one.flags & HAS_PRIORITY else 0
            section += payload[skipped:]
            if one.flags & END_HEADERS:
                read.append((HEADERS, one.stream, [*map(tuple, self.decoder.decode(section))]))
                section = b""
        return read
