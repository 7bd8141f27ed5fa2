"""Matches the first line with which an IRC client registers.

That is ``PASS``, ``NICK``, ``USER``, ``CAP`` or ``WEBIRC`` in any case, with the parameters that they need, in a line
of at most 512 bytes without NUL. The CR or LF that ends it decides.
"""

from txmux.wire import Pattern, PlainMatcher

_WORD = rb"[^\x00\r\n :][^\x00\r\n ]*"
_TEXT = rb"[^\x00\r\n]+"
_LINES = b"|".join(
    (
        rb"CAP (?:LS|LIST|REQ|END)(?: [^\x00\r\n]*)?",
        rb"PASS %b" % _TEXT,
        rb"NICK :?%b ?" % _WORD,
        rb"USER %b(?: %b){2} %b" % (_WORD, _WORD, _TEXT),
        rb"WEBIRC %b(?: %b){2} %b" % (_WORD, _WORD, _TEXT),
    )
)

irc = PlainMatcher(
    "irc",
    "IRC clients, by the first line of their registration",
    Pattern(rb"(?i:%b)[\r\n]" % _LINES, within=512),
    source='RFC 2812, sections 2.3 and 3.1; IRCv3 "Capability negotiation" and "WebIRC"',
)
