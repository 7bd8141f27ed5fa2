"""Put together what an HTTP/2 client says first, right or wrong.

The format is that of RFC 9113, sections 3.4, 4.1 and 6; header sections are encoded by the `hpack` package.
"""

from hpack import Encoder

from txmux.wire.http2_opening import PREFACE


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    header = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return header + payload


def settings(*identifiers: int) -> bytes:
    return frame(4, b"".join(number.to_bytes(2, "big") + b"\0\0\0\1" for number in identifiers))


def headers(*fields: tuple[str, str]) -> bytes:
    return bytes(Encoder().encode(fields))


def request(section: bytes, *, flags: int = 0x5, stream: int = 1) -> bytes:
    """Make a HEADERS frame, by default with END_STREAM and END_HEADERS."""
    return frame(1, section, flags=flags, stream=stream)


def opening(*fields: tuple[str, str]) -> bytes:
    return PREFACE + SETTINGS + WINDOW_UPDATE + request(headers(*fields))


SETTINGS = settings(3, 4, 2)
WINDOW_UPDATE = frame(8, b"\x01\xff\x00\x01")
PING = frame(6, bytes(8))

# Recorded: curl 7.88.1 with nghttp2 1.52.0, --http2-prior-knowledge http://localhost:46261/api/x?q=1
CURL = PREFACE + bytes.fromhex(
    "00001204000000000000030000006400040200000000020000000000000408000000000001ff0001"
    "0000280105000000018204886075998f3fe7680386418ba0e41d139d09b8d382703f7a8825b650c3"
    "abbcf2e153032a2f2a"
)
# Recorded: the http2 module of Node.js 20.20.2, a POST to http://localhost:45189/a with content-type application/grpc
NODE = PREFACE + bytes.fromhex(
    "00000004000000000000002001040000000104022f6183418ba0e41d139d09b8db4f3eef865f8b1d"
    "75d0620d263d4c4d6564000000000100000001"
)
# grpcio 1.23.0, as the README of dhermes/tcp-h2-describe lists its frames
_GRPC = "000200000000 000300000000 000400400000 000500400000 000600002000 fe0300000001"
GRPC_PYTHON = PREFACE + frame(4, bytes.fromhex(_GRPC)) + frame(8, b"\0\x3f\0\1") + PING
