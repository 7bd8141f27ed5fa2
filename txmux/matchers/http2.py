"""Matches the connection preface of an HTTP/2 client with prior knowledge."""

from txmux.wire import PlainMatcher, Prefix
from txmux.wire.http2_opening import PREFACE

http2 = PlainMatcher(
    "http2",
    "HTTP/2 without TLS, gRPC included, by its preface",
    Prefix(PREFACE),
    source="RFC 9113, sections 3.3 and 3.4",
)
