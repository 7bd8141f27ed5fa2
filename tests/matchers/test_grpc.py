from tests.wire import http2_builder as h2
from txmux.wire.http2_opening import OPENING_LIMIT, PREFACE

SAMPLES = (h2.NODE, h2.GRPC_PYTHON)
POST = ((":method", "POST"), (":scheme", "http"), (":path", "/pkg.Service/Call"))


def typed(*content_types: str) -> bytes:
    return h2.opening(*POST, *(("content-type", value) for value in content_types))


TOO_LONG = PREFACE + h2.SETTINGS + h2.frame(0xFF, bytes(16000)) * 3
AT = len(PREFACE) + 9 + 36
LATE = PREFACE + h2.settings(1) + h2.settings(2, 0xFE03)
OF_GRPC = [
    typed(value)
    for value in (
        "application/grpc", "application/grpc+proto", "application/grpc+json",
        "application/grpc;charset=utf-8", "application/GRPC ; a=b",
    )
]  # fmt: skip
OTHERS = [
    typed(*values)
    for values in (
        ("application/json",), ("application/grpc-web+proto",), ("application/grpcweb",),
        ("xapplication/grpc",), ("text/plain", "application/grpc"), (),
    )
]  # fmt: skip
MATCHED = (
    # The content type is that of gRPC, with any format, at the end of the header section.
    (h2.NODE, len(h2.NODE) - 9),
    *((data + b"\0", len(data)) for data in OF_GRPC),
    # A setting that only gRPC has is a match at the end of its frame, whatever follows.
    (h2.GRPC_PYTHON, AT), (h2.GRPC_PYTHON[:AT] + b"\xff" * 20, AT), (LATE, len(LATE)),
)  # fmt: skip
REFUSED = (
    # Another content type is a no at the end of the header section, gRPC-Web included; so is none, or only a later one.
    *((data, len(data)) for data in OTHERS),
    h2.CURL,
    # What can be no request is a no at once.
    (b"GET / HTTP/1.1\r\n", 1), (PREFACE + h2.PING, 24 + 4), (TOO_LONG, OPENING_LIMIT),
)  # fmt: skip
# Without that setting, a client that waits for the server's SETTINGS is undecided.
UNDECIDED = tuple(
    PREFACE + frames for frames in (h2.SETTINGS, h2.SETTINGS + h2.WINDOW_UPDATE, h2.frame(4))
)
