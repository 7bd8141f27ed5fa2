"""The Redis serialization protocol, RESP2, as far as a server needs it.

Source: the "Redis serialization protocol specification" in the Redis documentation.
"""

from __future__ import annotations

import re
import shlex

from txmux.errors import MuxError

__all__ = [
    "COMMAND_LIMIT",
    "RespError",
    "array",
    "bulk",
    "error",
    "integer",
    "parse_command",
    "simple",
]

COMMAND_LIMIT = 64 * 1024
"""Most bytes of one command."""

_WORDS_LIMIT = 1024
_LENGTH = re.compile(rb"-?[0-9]{1,9}")
_LENGTH_LINE_LIMIT = 32


class RespError(MuxError):
    """A client does not speak RESP; the message is for that client."""


def parse_command(data: bytes | bytearray) -> tuple[list[bytes], int] | None:
    r"""Take the first command from what a client sent: an array of bulk strings, or an inline command.

    Args:
        data: All the bytes that are not yet taken.

    Returns:
        The command's words (none for an empty command) and how many bytes it is long;
        ``None`` when it is not complete.

    Raises:
        RespError: What cannot become a command, or is longer than `COMMAND_LIMIT` bytes.
    """
    if not data.startswith(b"*"):
        line = _line(data, 0, b"\n", COMMAND_LIMIT, "too big inline request")
        return None if line is None else (_inline(line), len(line) + 1)
    line = _line(data, 1, b"\r\n", _LENGTH_LINE_LIMIT, "invalid multibulk length")
    if line is None:
        return None
    count = _length(line, _WORDS_LIMIT, "invalid multibulk length")
    position = 1 + len(line) + 2
    words: list[bytes] = []
    while len(words) < count:
        if not data[position : position + 1]:
            return None
        if data[position] != ord("$"):
            raise RespError(f"expected '$', got {chr(data[position])!a}")
        line = _line(data, position + 1, b"\r\n", _LENGTH_LINE_LIMIT, "invalid bulk length")
        if line is None:
            return None
        start = position + 1 + len(line) + 2
        size = _length(line, COMMAND_LIMIT - start, "invalid bulk length", least=0)
        position = start + size + 2
        if len(data) < position:
            return None
        if data[start + size : position] != b"\r\n":
            raise RespError("a bulk string does not end with CR LF where its length says")
        words.append(bytes(data[start : start + size]))
    return words, position


def _line(
    data: bytes | bytearray, start: int, end: bytes, limit: int, message: str
) -> bytes | None:
    stop = data.find(end, start, start + limit)
    if stop >= 0:
        return bytes(data[start:stop])
    if len(data) - start >= limit:
        raise RespError(message)
    return None


def _inline(line: bytes) -> list[bytes]:
    try:
        return [word.encode("latin-1") for word in shlex.split(line.decode("latin-1"))]
    except ValueError as cause:
        raise RespError("unbalanced quotes in request") from cause


def _length(text: bytes, most: int, message: str, least: int = -1) -> int:
    if not _LENGTH.fullmatch(text) or not least <= int(text) <= most:
        raise RespError(message)
    return int(text)


def simple(text: str) -> bytes:
    """Encode a simple string, which has no line end in it."""
    return b"+%b\r\n" % text.encode()


def error(text: str) -> bytes:
    """Encode an error; its first word, in capitals, is its kind."""
    return b"-%b\r\n" % text.encode()


def bulk(data: bytes | None) -> bytes:
    """Encode a bulk string of any bytes; ``None`` is the null bulk string."""
    return b"$-1\r\n" if data is None else b"$%d\r\n%b\r\n" % (len(data), data)


def array(*items: bytes) -> bytes:
    """Encode an array of items that are encoded already."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def integer(number: int) -> bytes:
    """Encode an integer."""
    return b":%d\r\n" % number
