"""Matches the first message of an SNMP manager, or the notification of an agent.

It is a SEQUENCE in BER that fills the datagram: the version, then for SNMPv1 and v2c the community and a PDU whose length
reaches the end; for v3 the global data, the security parameters, and a scoped PDU, plain or encrypted.
"""

from txmux.interfaces import Option
from txmux.wire.ber import read_length
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.messages import MessageMatcher

_SEQUENCE, _INTEGER, _OCTETS = 0x30, 0x02, 0x04
_VERSIONS = {0: "1", 1: "2c", 3: "3"}
_PDUS = {
    0xA0,  # get
    0xA1,  # get the next one
    0xA3,  # set
    0xA4,  # trap of version 1
    0xA5,  # get many
    0xA6,  # inform
    0xA7,  # trap
    0xA8,  # report
}
_NOT_V1, _ONLY_V1 = frozenset({0xA5, 0xA6, 0xA7, 0xA8}), frozenset({0xA4})
_LONGEST_NUMBER = 5
_LONGEST_COMMUNITY = 255


def _read_message(cursor: Cursor) -> dict[str, str]:
    _enter(cursor, _SEQUENCE)
    cursor.literal(bytes((_INTEGER, 1)))
    version = _VERSIONS[cursor.one_of(_VERSIONS)]
    if version == "3":
        _read_v3(cursor)
        return {"version": version}
    cursor.literal(bytes((_OCTETS,)))
    community = cursor.take(read_length(cursor, 0, len(cursor.data)))
    if len(community) > _LONGEST_COMMUNITY:
        raise MalformedError
    pdu = cursor.one_of(_PDUS - (_NOT_V1 if version == "1" else _ONLY_V1))
    cursor.at -= 1
    _enter(cursor, pdu)
    return {"version": version, "community": community.decode("latin-1")}


def _read_v3(cursor: Cursor) -> None:
    cursor.literal(bytes((_SEQUENCE,)))
    after = read_length(cursor, 0, len(cursor.data)) + cursor.at
    for _ in range(2):  # the number of the message, and how long an answer may be
        cursor.literal(bytes((_INTEGER,)))
        cursor.take(read_length(cursor, 1, cursor.at + 1 + _LONGEST_NUMBER))
    cursor.literal(bytes((_OCTETS, 1)))
    cursor.take(1)
    cursor.literal(bytes((_INTEGER,)))
    cursor.take(read_length(cursor, 1, cursor.at + 1 + _LONGEST_NUMBER))
    if cursor.at != after:
        raise MalformedError
    cursor.literal(bytes((_OCTETS,)))
    cursor.take(read_length(cursor, 0, len(cursor.data)))
    is_scoped = cursor.left and cursor.data[cursor.at] in {_SEQUENCE, _OCTETS}
    _enter(cursor, cursor.data[cursor.at] if is_scoped else _SEQUENCE)


def _enter(cursor: Cursor, tag: int) -> None:
    """Read the tag and the length of an element that reaches to the end."""
    cursor.literal(bytes((tag,)))
    if read_length(cursor, 0, len(cursor.data)) != cursor.left:
        raise MalformedError


snmp = MessageMatcher(
    "snmp",
    "SNMP versions 1, 2c and 3",
    _read_message,
    options=(Option("community", "patterns of the community; none is in version 3", "public"),),
    facts=("version",),
    source="RFC 1157, section 4; RFC 3416, section 3; RFC 3412, section 6",
)
