"""Matches the first request line of a SIP client.

That is a method of the IANA registry, a URI and ``SIP/2.0``, in a line of at most 8 KiB. Up to two empty lines may
come before it, such as a ping.
"""

from txmux.interfaces import Transport
from txmux.wire import Pattern, PlainMatcher

_METHODS = b"|".join(
    b"""
    ACK BYE CANCEL INFO INVITE MESSAGE NOTIFY OPTIONS PRACK PUBLISH REFER REGISTER SUBSCRIBE UPDATE
    """.split()
)
_URI = rb"[A-Za-z][A-Za-z0-9+.-]*:[!-~\x80-\xff]+"

sip = PlainMatcher(
    "sip",
    "SIP, by the first request line",
    Pattern(rb"(?:\r\n){0,2}(?:%b) %b SIP/2\.0\r?\n" % (_METHODS, _URI), within=8192),
    transports=tuple(Transport),
    source="RFC 3261, sections 7.1 and 7.5; RFC 5626, section 4.4.1",
)
