"""Matches the first message of an IPsec peer that exchanges keys, IKEv1 or IKEv2.

The header: the initiator's SPI, the responder's, which is zero in the message that begins; the version, the exchange and
the payload that comes first; and the length of the datagram. On port 4500 four zero bytes come before it (the non-ESP
marker), and the exchange that has begun on port 500 continues there, with both SPIs. The keepalive of a NAT there, one byte
0xff, is taken, too.

ESP itself is a *no*: it begins with a random SPI and cannot be told from random bytes.
"""

from txmux.interfaces import Option
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.globs import Globs, names
from txmux.wire.messages import MessageMatcher

_MARKER = bytes(4)
_KEEPALIVE = b"\xff"
_SPI = 8
_HEADER = 28
_VERSIONS = {0x10: "1", 0x20: "2"}
_SA_INIT = 34
_EXCHANGES = {
    "1": {2: "main", 4: "aggressive", 5: "informational", 6: "config", 32: "quick"},
    "2": {
        _SA_INIT: "init",
        35: "auth",
        36: "child",
        37: "informational",
        38: "resume",
        43: "intermediate",
        44: "followup",
    },
}
_BEGINNING = {"1": (2, 4), "2": (_SA_INIT, 38)}
"""The exchanges whose first message has no SPI of the responder."""
_PAYLOADS = {"1": range(1, 22), "2": range(33, 55)}
_FLAGS = {"1": 0x07, "2": 0x18}
"""Encryption, commit and authentication only; initiator and higher version. A response is a *no*."""


def _read_message(cursor: Cursor) -> dict[str, str]:
    if cursor.data == _KEEPALIVE:
        return {}
    if cursor.data.startswith(_MARKER):
        cursor.take(len(_MARKER))
    size = cursor.left
    initiator, responder = cursor.take(_SPI), cursor.take(_SPI)
    payload = cursor.number(1, 1, 0xFF)
    version = _VERSIONS[cursor.one_of(_VERSIONS)]
    exchange = cursor.one_of(_EXCHANGES[version])
    flags = cursor.number(1, 0, 0xFF)
    number = cursor.number(4, 0, 0xFFFFFFFF)
    cursor.number(4, max(size, _HEADER), size)
    begins = not any(responder)
    if (
        not any(initiator)
        or payload not in _PAYLOADS[version]
        or flags & ~_FLAGS[version]
        or (begins and (number or exchange not in _BEGINNING[version]))
        or (exchange == _SA_INIT and not begins)
    ):
        raise MalformedError
    return {"version": version, "exchange": _EXCHANGES[version][exchange]}


def _versions(text: str) -> Globs:
    return names(text, ("1", "2"))


ike = MessageMatcher(
    "ike",
    "IPsec peers that exchange keys, on port 500 or 4500",
    _read_message,
    options=(Option("version", "patterns of the version: 1 or 2", "2"),),
    patterns={"version": _versions},
    facts=("version", "exchange"),
    source="RFC 7296, section 3.1; RFC 2408, section 3.1; RFC 3948, sections 2.2 and 2.3",
)
