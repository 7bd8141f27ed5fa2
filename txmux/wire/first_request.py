"""How much of a stream a server needs before it can answer its client, where the protocol says so: TLS, HTTP/1 and PostgreSQL."""

import math

from txmux.wire.hello.records import HANDSHAKE, read_records
from txmux.wire.http_head import Stage, fields_of, parse_request

_HELLO_HEADER = 4
_MOST_DIGITS = 18
_LAST_CHUNK = b"0\r\n\r\n"
_POSTGRES = b"\0\3\0\0", b"\0\3\0\2"
"""The versions of its protocol, behind the length of the startup message."""


def needed(data: bytes) -> float:
    """Return after how many bytes of its client a server can answer.

    Args:
        data: The first bytes of a stream, as far as they have come.

    Returns:
        The number of bytes; infinite while they do not tell, and 0 where the protocol does not.
    """
    if data[:1] == HANDSHAKE:
        return _hello_end(data)
    if data[4:8] in _POSTGRES:
        return int.from_bytes(data[:4], "big")
    if parse_request(data, None).stage is Stage.REFUSED:
        return 0
    head = fields_of(data)
    if head is None:
        return math.inf
    fields, end = head
    if b"chunked" in fields.get(b"transfer-encoding", b"").lower():
        return 0 if data.endswith(_LAST_CHUNK) else math.inf
    length = fields.get(b"content-length", b"")
    return end + (int(length) if length.isdigit() and len(length) <= _MOST_DIGITS else 0)


def _hello_end(data: bytes) -> float:
    content = b""
    for piece, end in read_records(data, HANDSHAKE):
        content += piece
        if len(content) < _HELLO_HEADER:
            continue
        left = _HELLO_HEADER + int.from_bytes(content[1:_HELLO_HEADER], "big") - len(content)
        if left <= 0:
            return end
        if end >= len(data):
            return max(end, len(data) + left)
    return math.inf
