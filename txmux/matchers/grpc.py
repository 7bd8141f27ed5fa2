"""Matches gRPC over HTTP/2 without TLS.

The first request has the content type ``application/grpc``, maybe with a format after ``+``. Clients on the C core,
such as those of C++, Python and Ruby, wait for the server's SETTINGS before they send a request. They are known by a
setting of their own, 0xfe03 (grpc/grpc src/core/ext/transport/chttp2/transport/http2_settings.h).
"""

import re

from txmux.classes import frozen
from txmux.interfaces import Peeked, Verdict
from txmux.wire import http2_fields as _http2_fields  # noqa: F401 - now, not for the first client
from txmux.wire.http2_opening import OPENING_LIMIT, PREFACE, parse_opening
from txmux.wire.plain import PlainMatcher

_TRUE_BINARY_METADATA = 0xFE03
_CONTENT_TYPE = re.compile(r"application/grpc(?:[+; \t].*)?", re.IGNORECASE | re.DOTALL)


@frozen
class _GrpcPredicate:
    longest: int = OPENING_LIMIT
    first_bytes: frozenset[int] = frozenset(PREFACE[:1])

    def __call__(self, peeked: Peeked, /) -> Verdict:
        opening = peeked.parsed(parse_opening)
        if _TRUE_BINARY_METADATA in opening.settings:
            return Verdict.MATCH
        if opening.fields is None:
            return Verdict.NO if opening.refused else Verdict.NEED_MORE
        content_type = opening.fields.get("content-type", "")
        return Verdict.MATCH if _CONTENT_TYPE.fullmatch(content_type) else Verdict.NO


grpc = PlainMatcher(
    "grpc",
    "gRPC without TLS, by the content type of its first request or a setting of its own",
    _GrpcPredicate(),
    source='"gRPC over HTTP2", grpc/grpc doc/PROTOCOL-HTTP2.md, section Requests',
)
