"""Matches the link message of a SPICE client: its magic and the major version, of whose numbers the lowest byte comes first.

A client opens a connection for each channel, and each begins so. Version 1 is that of the first release.
"""

from txmux.wire import Pattern, PlainMatcher

spice = PlainMatcher(
    "spice",
    "SPICE, by the link message of a client",
    Pattern(rb"REDQ[\x01\x02]\x00{3}"),
    source='"Spice Protocol", sections "Protocol Magic number", "Protocol version" and "Channel link"',
)
