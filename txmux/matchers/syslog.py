"""Matches the beginning of the first syslog message on a TCP connection.

A message begins with ``<PRIVAL>``, a number from 0 to 191 without leading zeros. With octet counting its length and a
blank come before it: a number without leading zeros, here of at most six digits.
"""

from __future__ import annotations

from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Pattern

_COUNT = rb"[1-9][0-9]{0,5} "
_PRIORITY = rb"<(?:[0-9]|[1-9][0-9]|1[0-8][0-9]|19[01])>"

syslog = PlainMatcher(
    "syslog",
    "syslog over TCP, with octet counting or without",
    Pattern(rb"(?:%b)?%b" % (_COUNT, _PRIORITY)),
    source="RFC 6587, section 3.4",
)
