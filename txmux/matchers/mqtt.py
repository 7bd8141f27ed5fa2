"""The matcher for MQTT."""

from collections.abc import Mapping

import attrs
from zope.interface import implementer

from txmux.detection.regex import compile_pattern
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, option_globs

_MORE, _LAST = rb"[\x80-\xff]", rb"[\x01-\x7f]"
_REMAINING_LENGTH = rb"(?:[\x0c-\x7f]|%b{1,3}%b)" % (_MORE, _LAST)
_PROTOCOL = rb"\x00(?:\x04MQTT[\x04\x05\x84]|\x06MQIsdp[\x03\x83])"
_BEGINNING = compile_pattern(rb"\x10%b%b" % (_REMAINING_LENGTH, _PROTOCOL))
_LONGEST_BEGINNING = 14
_LONGEST_CONNECT = 64 * 1024


@attrs.frozen
class _MqttPredicate:
    client_id: Globs | None
    first_bytes: frozenset[int] = frozenset(b"\x10")

    @property
    def longest(self) -> int:
        return _LONGEST_BEGINNING if self.client_id is None else _LONGEST_CONNECT

    def __call__(self, peeked: Peeked, /) -> Verdict:
        beginning = peeked.parsed(_BEGINNING.scan).verdict
        if beginning is not Verdict.MATCH or self.client_id is None:
            return beginning
        try:
            client_id = _client_id(peeked.data[:_LONGEST_CONNECT])
        except MalformedError:
            return Verdict.NO
        except ShortError:
            return Verdict.NEED_MORE if len(peeked) < _LONGEST_CONNECT else Verdict.NO
        return Verdict.MATCH if self.client_id.matches(client_id) else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        if peeked.parsed(_BEGINNING.scan).verdict is not Verdict.MATCH:
            return {}
        try:
            client_id = _client_id(peeked.data[:_LONGEST_CONNECT])
        except (MalformedError, ShortError):
            return {}
        return {"client_id": printable(client_id)} if client_id else {}


@implementer(IProtocolMatcher)
class MqttMatcher:
    """Matches the CONNECT packet of an MQTT client.

    It is known by its type, a remaining length in the fewest bytes, and the name and version of the protocol: MQTT
    5.0 (OASIS MQTT 5.0, sections 1.5.5 and 3.1), 3.1.1 (OASIS MQTT 3.1.1, section 3.1) or 3.1 (IBM MQTT V3.1,
    section 3.1). The highest bit of the version marks the bridges of Mosquitto (``lib/send_connect.c``).
    """

    name = "mqtt"
    summary = "MQTT 3.1, 3.1.1 and 5.0, by the CONNECT packet"
    options = (Option("client_id", "globs of the client identifier", "sensor-*,meter-*"),)

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _MqttPredicate(option_globs(options, "client_id"))


mqtt = MqttMatcher()


def _client_id(packet: bytes) -> str:
    """Read the client identifier of a CONNECT packet (OASIS MQTT 5.0, sections 3.1.2 and 3.1.3.1)."""
    cursor = Cursor(packet)
    cursor.number(1, 0x10, 0x10)
    length = _variable(cursor)
    end = cursor.at + length
    cursor.take(cursor.number(2, 4, 6))
    version = cursor.number(1, 3, 0xFF) & 0x7F
    flags = cursor.number(1, 0, 0xFF)
    if version > 3 and flags & 0x01:
        raise MalformedError
    cursor.number(2, 0, 0xFFFF)
    if version == 5:
        properties = _variable(cursor)
        if properties > end - cursor.at - 2:
            raise MalformedError
        _skip(cursor, properties)
    try:
        client_id = cursor.take(cursor.number(2, 0, end - cursor.at - 2)).decode()
    except UnicodeDecodeError:
        raise MalformedError from None
    if "\0" in client_id:
        raise MalformedError
    return client_id


def _variable(cursor: Cursor) -> int:
    """Read a number of one to four bytes, the lowest seven bits first (OASIS MQTT 5.0, section 1.5.5)."""
    number = 0
    for shift in (0, 7, 14, 21):
        byte = cursor.number(1, 0 if shift == 0 else 1, 0xFF if shift < 21 else 0x7F)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return number


def _skip(cursor: Cursor, size: int) -> None:
    """Pass over bytes without a copy of them, which many small packets would make again and again."""
    if len(cursor.data) < cursor.at + size:
        raise ShortError(cursor.at + size)
    cursor.at += size
