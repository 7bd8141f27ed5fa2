"""Matches the first request line of an RTSP client.

That is a method of RTSP 1.0 or 2.0, a target and the version, in a line of at most 8 KiB. RTSP through an HTTP tunnel
is HTTP.
"""

from txmux.wire import Pattern, PlainMatcher

_METHODS = b"|".join(
    b"""
    ANNOUNCE DESCRIBE GET_PARAMETER OPTIONS PAUSE PLAY PLAY_NOTIFY RECORD REDIRECT SETUP SET_PARAMETER TEARDOWN
    """.split()
)

rtsp = PlainMatcher(
    "rtsp",
    "RTSP 1.0 and 2.0, by the first request line",
    Pattern(rb"(?:%b) [!-~\x80-\xff]+ RTSP/[12]\.0\r?\n" % _METHODS, within=8192),
    source="RFC 2326, sections 6.1 and 10; RFC 7826, sections 7.1 and 13",
)
