"""Matches the first message of an EtherNet/IP client: a session is registered, or a device is asked what it is.

The header has 24 bytes, with the lowest byte of a number first: command, length, no session yet, status 0, a number of
the client's, and no options. Behind a registration comes the version, 1, and flags.
"""

from txmux.interfaces import Transport
from txmux.wire import Pattern, PlainMatcher

_LIST = rb"[\x04\x63\x64]\x00\x00\x00"
_REGISTER = rb"\x65\x00\x04\x00"
_REST = rb"\x00{8}[\x00-\xff]{8}\x00{4}"

enip = PlainMatcher(
    "enip",
    "EtherNet/IP, by the first command of a client",
    Pattern(rb"%b%b|%b%b\x01\x00{3}" % (_LIST, _REST, _REGISTER, _REST)),
    transports=tuple(Transport),
    source='"The CIP Networks Library" volume 2, sections 2-3 and 2-4; packet-enip.c of Wireshark',
)
