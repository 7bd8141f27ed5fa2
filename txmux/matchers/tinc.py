"""Matches the ID request of a tinc daemon.

That is a line with the number of the request, 0, the daemon's name and the version of the meta-protocol: 17 in tinc
1.0, 17 with a minor version in 1.1. Who accepts an invitation has ``?`` and a key instead of a name
(``invitation.c``). At most 300 bytes.
"""

from txmux.wire import Pattern, PlainMatcher

tinc = PlainMatcher(
    "tinc",
    "tinc, by the ID request",
    Pattern(rb"0 (?:[A-Za-z0-9_]+|\?[A-Za-z0-9+/_-]+) 17(?:\.[0-9]{1,3})?\n", within=300),
    source="tinc's protocol_auth.c, send_id",
)
