"""Matches the connection setup of an X11 client.

Its first byte is the byte order, ``l`` or ``B``; the second is unused; then come the versions of the protocol, 11 and
0, in that order.
"""

from txmux.wire import Pattern, PlainMatcher

x11 = PlainMatcher(
    "x11",
    "X11, by the connection setup",
    Pattern(rb"(?s)l.\x0b\x00\x00\x00|B.\x00\x0b\x00\x00"),
    source='"X Window System Protocol", section 8, "Connection Setup"',
)
