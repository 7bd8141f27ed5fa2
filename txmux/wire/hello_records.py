"""The records that the first messages of TLS 1.3 are in (RFC 8446, section 5.1)."""

from txmux.wire.cursor import MalformedError

_CLIENT_HELLO, _SERVER_HELLO = 1, 2
HANDSHAKE = b"\x16"
"""What each record of a handshake begins with."""
OTHER_RECORDS = b"", b"\x14", b"\x17"
"""What a record begins with that is no message of a handshake: early data, or one for old middleboxes."""
_LONGEST, _MOST_RECORDS = 1 << 14, 64
_HEADER, _RECORD_HEADER = 4, 5
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446, section 4.1.3)."""


def take_hello(data: bytes) -> tuple[bytes, int] | None:
    """Take the message out of the records that a stream begins with.

    Returns:
        The message, and where it ends in the stream; ``None`` while it is not whole.

    Raises:
        MalformedError: There is none, or it is in a record with something else (RFC 8446, section 5.1), or in very many.
    """
    content, at = bytearray(), 0
    for _ in range(_MOST_RECORDS):
        if len(data) < (start := at + _RECORD_HEADER):
            return None
        size = int.from_bytes(data[at + 3 : start], "big")
        if data[at : at + 1] != HANDSHAKE or not 0 < size <= _LONGEST:
            raise MalformedError
        at = start + size
        content += data[start:at]
        if content[0] != _CLIENT_HELLO:
            raise MalformedError
        whole = _HEADER + int.from_bytes(content[1:_HEADER], "big")
        if len(content) >= whole > _HEADER and len(data) >= at:
            if len(content) > whole:
                raise MalformedError
            return bytes(content), at
    raise MalformedError


def before_hello(data: bytes) -> int:
    """Return how many bytes of whole records are before the next message of a handshake: early data, or for old middleboxes."""
    at = 0
    while len(data) >= at + _RECORD_HEADER and data[at : at + 1] in OTHER_RECORDS:
        end = at + _RECORD_HEADER + int.from_bytes(data[at + 3 : at + _RECORD_HEADER], "big")
        if len(data) < end:
            break
        at = end
    return at


def records(message: bytes, version: bytes) -> bytes:
    """Put a message into records of a version, two bytes."""
    pieces = (message[at : at + _LONGEST] for at in range(0, len(message), _LONGEST))
    head = HANDSHAKE + version
    return b"".join(head + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def asks_again(data: bytes) -> bool | None:
    """Return whether a server's first bytes are a HelloRetryRequest; ``None`` while that is not known."""
    content, at = b"", 0
    goal = _HEADER + 2 + len(_RETRY)
    while len(content) < goal:
        if data[at : at + 1] not in {b"", HANDSHAKE}:
            return False
        if len(data) - at < _RECORD_HEADER:
            return None
        start = at + _RECORD_HEADER
        at = start + int.from_bytes(data[at + 3 : start], "big")
        content += data[start:at]
        if content and content[0] != _SERVER_HELLO:
            return False
        if len(data) < at:
            break
    if len(content) < goal:
        return None
    return content[_HEADER + 2 : goal] == _RETRY
