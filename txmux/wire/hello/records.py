"""The records that the first messages of TLS 1.3 are in (RFC 8446, section 5.1)."""

from collections.abc import Iterator

from txmux.wire.cursor import MalformedError

_SERVER_HELLO = b"\2"
HANDSHAKE = b"\x16"
"""What each record of a handshake begins with."""
OTHER_RECORDS = b"\x14", b"\x15", b"\x17"
"""What a record begins with that is no message of a handshake: early data, an alert, or one for old middleboxes."""
_LONGEST = 1 << 14
_HEADER, _RECORD_HEADER = 4, 5
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3)."""
_GOAL = _HEADER + 2 + len(_RETRY)


def read_records(data: bytes, *types: bytes) -> Iterator[tuple[bytes, int]]:
    """Read the records of some kinds that a stream begins with: what is in each, as far as it has come, and where it ends."""
    at = 0
    while data[at : at + 1] in types and len(data) >= (start := at + _RECORD_HEADER):
        at = start + int.from_bytes(data[at + 3 : start], "big")
        yield data[start:at], at


def take_hello(data: bytes) -> tuple[bytes, int]:
    """Take a whole message out of the records that a stream begins with, which `parse_client_hello` has found to be right.

    Returns:
        The message, and where it ends in the stream.

    Raises:
        MalformedError: It is in a record with something else (RFC 8446, section 5.1).
    """
    content = bytearray()
    for piece, end in read_records(data, HANDSHAKE):
        content += piece
        whole = _HEADER + int.from_bytes(content[1:_HEADER], "big")
        if len(content) == whole > _HEADER and len(data) >= end:
            return bytes(content), end
    raise MalformedError


def is_hello_alone(data: bytes) -> bool:
    """Return whether `take_hello` can take the hello that a stream begins with."""
    try:
        take_hello(data)
    except MalformedError:
        return False
    return True


def before_hello(data: bytes) -> int:
    """Return how many bytes of whole records are before the next message of a handshake: early data, or for old middleboxes."""
    ends = (end for _, end in read_records(data, *OTHER_RECORDS) if end <= len(data))
    return max(ends, default=0)


def records(message: bytes, version: bytes) -> bytes:
    """Put a message into records of a version, two bytes."""
    pieces = (message[at : at + _LONGEST] for at in range(0, len(message), _LONGEST))
    head = HANDSHAKE + version
    return b"".join(head + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def asks_again(data: bytes) -> bool | None:
    """Return whether a server's first bytes are a HelloRetryRequest; ``None`` while that is not known."""
    if len(data) >= _RECORD_HEADER + _GOAL and data[0] == 0x16 and (data[3] or data[4] >= _GOAL):
        data = data[_RECORD_HEADER:]  # as nearly always
        return data.startswith(_SERVER_HELLO) and data.startswith(_RETRY, _HEADER + 2)
    content, at = b"", 0
    for piece, end in read_records(data, HANDSHAKE):
        content, at = content + piece, end
        if content[:1] not in {b"", _SERVER_HELLO}:
            return False
        if len(content) >= _GOAL:
            return content[_HEADER + 2 : _GOAL] == _RETRY
    return None if data[at : at + 1] in {b"", HANDSHAKE} else False
