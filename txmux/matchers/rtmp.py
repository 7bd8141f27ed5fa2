"""Matches the handshake with which an RTMP client begins.

Version 3 (C0), then of C1 the time, four bytes, and zero, or the version of the player there, as Flash Player 9 and later
and FFmpeg have it. RTMPE, which is obfuscated, has another version and is a *no*; RTMPS is TLS, and RTMPT is HTTP.
"""

from __future__ import annotations

from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Pattern

_PLAYER = rb"[\x09-\x20].{3}|\x80\x00[\x00-\x0f]{2}"

rtmp = PlainMatcher(
    "rtmp",
    "RTMP, by the client's handshake",
    Pattern(rb"(?s:\x03.{4}(?:\x00{4}|%b))" % _PLAYER),
    source='"Adobe\'s Real Time Messaging Protocol" 1.0, sections 5.2.2 and 5.2.3; rtmp.h of FFmpeg and handshake.h of librtmp',
)
