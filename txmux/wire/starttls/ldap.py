"""LDAP, whose StartTLS is an extended operation (RFC 4511, sections 4.1.1, 4.1.9, 4.12 and 4.14)."""

from txmux.wire.ber import read_length
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.starttls.dialogue import (
    LONGEST_COMMAND,
    MALFORMED,
    Answer,
    ClearProtocol,
    ClientDialogue,
    answered,
)
from txmux.wire.steps import Step

_OID = b"1.3.6.1.4.1.1466.20037"
_EXTENDED = 0x77, b"\x80" + bytes([len(_OID)]) + _OID
_SUCCESS, _CONFIDENTIALITY_REQUIRED = 0, 13
_UNBIND, _ABANDON = 0x42, 0x50
_RESPONSES = {0x60: 0x61, 0x63: 0x65, 0x66: 0x67, 0x68: 0x69, 0x4A: 0x6B, 0x6C: 0x6D, 0x6E: 0x6F, 0x77: 0x78}  # fmt: skip
"""The responses to bind, search, modify, add, delete, modify DN, compare, and extended requests."""


def _length_of(data: bytes) -> int:
    cursor = Cursor(data)
    try:
        cursor.number(1, 0x30, 0x30)
        return read_length(cursor, 5, LONGEST_COMMAND) + cursor.at
    except MalformedError:
        return MALFORMED
    except ShortError:
        return 0


def _read(message: bytes) -> tuple[bytes, int, bytes]:
    """Return the number of a message as it stands there, the tag of its operation, which is 0 if it is malformed, and the content."""
    cursor = Cursor(message)
    try:
        cursor.number(1, 0x30, 0x30)
        read_length(cursor, 5, len(message))
        start = cursor.at
        cursor.number(1, 2, 2)
        cursor.take(cursor.number(1, 1, 4))
        number = message[start : cursor.at]
        tag = cursor.number(1, 0, 255)
        return number, tag, cursor.take(read_length(cursor, 0, len(message)))
    except (MalformedError, ShortError):
        return b"", 0, b""


def _message(number: bytes, tag: int, content: bytes) -> bytes:
    body = number + bytes([tag, len(content)]) + content
    return bytes([0x30, len(body)]) + body


def _answer(dialogue: ClientDialogue, command: bytes) -> Answer:
    number, tag, content = _read(command)
    if tag in {_UNBIND, _ABANDON}:
        return Answer(b"", "end" if tag == _UNBIND else "")
    if tag not in _RESPONSES:
        dialogue.refuse("it sent a malformed message of LDAP")
        return Answer(b"", "end")
    is_start = (tag, content) == _EXTENDED
    text = b"" if is_start else b"StartTLS first"
    result = bytes(
        [0x0A, 1, _SUCCESS if is_start else _CONFIDENTIALITY_REQUIRED, 4, 0, 4, len(text)]
    )
    return Answer(_message(number, _RESPONSES[tag], result + text), "tls" if is_start else "")


def _granted(received: bytes) -> int:
    length = _length_of(received)
    if length == 0 or length > len(received):
        return 0
    if length != MALFORMED:
        _, tag, content = _read(received[:length])
        if tag == _RESPONSES[_EXTENDED[0]] and content.startswith(b"\x0a\x01\x00"):
            return length
    raise answered(received)


_STEP = Step(_message(b"\x02\x01\x01", *_EXTENDED), _granted, "when it was asked for StartTLS")

LDAP = ClearProtocol(
    lambda _: b"",
    lambda data: length if (length := _length_of(data)) <= len(data) else 0,
    _answer,
    lambda _: [_STEP],
)
