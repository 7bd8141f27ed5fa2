"""Matches a Telnet client that negotiates at once: IAC, WILL or DO, and an option.

The options are those of the IANA registry "Telnet Options": 0 to 49, 138 to 140 and 255. WON'T and DON'T can only be
answers, since all options are off in the beginning and no party may announce what is so already.
"""

from txmux.wire import Pattern, PlainMatcher

telnet = PlainMatcher(
    "telnet",
    "Telnet clients that begin with the negotiation of options",
    Pattern(rb"\xff[\xfb\xfd][\x00-\x31\x8a-\x8c\xff]"),
    source="RFC 854",
)
