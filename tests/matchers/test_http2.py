from tests.wire.http2_builder import CURL, NODE
from txmux.wire.http2_opening import PREFACE

SAMPLES = (CURL, NODE)
# All 24 bytes are needed.
DECIDED_AT = 24
MATCHED = ((PREFACE, 24),)
REFUSED = (
    (b"PROPFIND / HTTP/1.1\r\n", 3), (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 3),
    (b"PRI * HTTP/1.1\r\n", 12), (b"POST / HTTP/1.1\r\n", 2), (b"GET / HTTP/1.1\r\n", 1),
)  # fmt: skip
