"""LDAP, whose StartTLS is an extended operation (RFC 4511, sections 4.1.1, 4.1.9, 4.12 and 4.14)."""

from txmux.features.starttls import dialogue as common
from txmux.features.starttls.dialogue import MALFORMED, ClearProtocol, ClientDialogue, Then
from txmux.wire.ber import read_length
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.steps import Step

_START_TLS = 0x77, b"\x80\x161.3.6.1.4.1.1466.20037"
_SUCCESS, _CONFIDENTIALITY_REQUIRED = 0, 13
_UNBIND, _ABANDON, _EXTENDED_RESPONSE = 0x42, 0x50, 0x78
_RESPONSES = {0x60: 0x61, 0x63: 0x65, 0x66: 0x67, 0x68: 0x69, 0x4A: 0x6B, 0x6C: 0x6D, 0x6E: 0x6F, 0x77: 0x78}  # fmt: skip
"""The responses to bind, search, modify, add, delete, modify DN, compare, and extended requests."""


def _length_of(data: bytes) -> int:
    cursor = Cursor(data)
    try:
        cursor.number(1, 0x30, 0x30)
        cursor.take(read_length(cursor, 5, common.LONGEST_COMMAND))
    except MalformedError:
        return MALFORMED
    except ShortError:
        return 0
    return cursor.at


def _answer(dialogue: ClientDialogue, command: bytes) -> tuple[bytes, Then]:
    number, tag, content = _read(command)
    if tag in {_UNBIND, _ABANDON}:
        return b"", "end" if tag == _UNBIND else ""
    if tag not in _RESPONSES:
        dialogue.refuse("it sent a malformed message of LDAP")
        return b"", "end"
    if (tag, content) == _START_TLS:
        return _message(number, _EXTENDED_RESPONSE, _result(_SUCCESS)), "tls"
    return _message(number, _RESPONSES[tag], _result(_CONFIDENTIALITY_REQUIRED)), ""


def _steps(_name: str) -> tuple[Step, ...]:
    return (
        Step(_message(b"\x02\x01\x01", *_START_TLS), _granted, "when it was asked for StartTLS"),
    )


def _granted(received: bytes) -> int:
    length = _length_of(received)
    if length:
        _, tag, content = _read(received[: max(length, 0)])
        if tag != _EXTENDED_RESPONSE or not content.startswith(_result(_SUCCESS)[:3]):
            raise common.answered(received)
    return length


def _read(message: bytes) -> tuple[bytes, int, bytes]:
    """Return the number of a message as it stands there, the tag of its operation, which is 0 if it is malformed, and the content."""
    cursor = Cursor(message)
    try:
        cursor.number(1, 0x30, 0x30)
        read_length(cursor, 5, len(message))
        start = cursor.at
        cursor.number(1, 2, 2)
        cursor.take(cursor.number(1, 1, 4))
        number, tag = message[start : cursor.at], cursor.number(1, 0, 255)
        return number, tag, cursor.take(read_length(cursor, 0, len(message)))
    except (MalformedError, ShortError):
        return b"", 0, b""


def _message(number: bytes, tag: int, content: bytes) -> bytes:
    body = number + bytes([tag, len(content)]) + content
    return bytes([0x30, len(body)]) + body


def _result(code: int) -> bytes:
    text = b"StartTLS first" if code else b""
    return bytes([0x0A, 1, code, 4, 0, 4, len(text)]) + text


LDAP = ClearProtocol(_length_of, _answer, _steps)
