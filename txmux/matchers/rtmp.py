"""Matches the handshake with which an RTMP client begins.

Version 3 (C0), then of C1 the time, four bytes, and zero, or the version of the player there, as Flash Player 9 and later
and FFmpeg have it. RTMPE, which is obfuscated, has another version and is a *no*; RTMPS is TLS, and RTMPT is HTTP.

Whole seconds of the time are given up to others: two zeros behind a byte that is none are the length of a message of MongoDB,
Modbus or Oracle, and a ``50`` there, in front of a player's version, is an OpenVPN client's reset with --tls-crypt-v2.
"""

from txmux.wire import Pattern, PlainMatcher

_TIME = rb"(?:\x00.{3}|[^\x00](?:[^\x00].|\x00[^\x00]).)"
_TIME_OF_PLAYER = rb"(?:\x00.{3}|[^\x00](?:[^\x00\x50].|\x00[^\x00]).)"
_PLAYER = rb"[\x09-\x20][\x00-\x09].{2}"
"""The versions of Flash Player: 9.0 to 32.0."""

rtmp = PlainMatcher(
    "rtmp",
    "RTMP, by the client's handshake",
    Pattern(
        rb"(?s:\x03(?:%b(?:\x00{4}|\x80\x00[\x00-\x0f]{2})|%b%b))"
        % (_TIME, _TIME_OF_PLAYER, _PLAYER)
    ),
    source='"Adobe\'s Real Time Messaging Protocol" 1.0, sections 5.2.2 and 5.2.3; rtmp.h of FFmpeg and handshake.h of librtmp',
)
