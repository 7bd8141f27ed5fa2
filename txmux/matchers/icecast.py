"""Matches a source of Icecast: a program that sends a stream to it. Who listens is a client of HTTP.

Its request has the method SOURCE, with the version of HTTP or ``ICE/1.0``; or PUT with a field whose name begins with
``ice-``. libshout first asks with OPTIONS whether there is TLS, and is known by its name there.
"""

from txmux.wire import Pattern, PlainMatcher

_TARGET = rb"[!-~\x80-\xff]+"
_FIELDS = rb"(?:[^\r\n]+\r?\n)*"

icecast = PlainMatcher(
    "icecast",
    "sources that send a stream to Icecast",
    Pattern(
        rb"(?:SOURCE %b (?:HTTP|ICE)/1\.[0-9]\r?\n"
        rb"|PUT %b HTTP/1\.[0-9]\r?\n%b(?i:ice-)"
        rb"|OPTIONS \* HTTP/1\.[0-9]\r?\n%b(?i:user-agent:) *(?i:libshout)/)"
        % (_TARGET, _TARGET, _FIELDS, _FIELDS),
        within=8192,
    ),
    source='"Icecast 2 documentation", "Protocols"; http.c of libshout (shout_create_http_request); icecast.c of FFmpeg',
)
