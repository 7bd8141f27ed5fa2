"""Matches the Start-Control-Connection-Request that a PPTP client begins with.

The length of 156 bytes, a control message, the magic cookie, the type of the message, and two bytes that are zero.
"""

from txmux.wire import PlainMatcher, Prefix

pptp = PlainMatcher(
    "pptp",
    "PPTP, by the request that starts the control connection",
    Prefix(bytes.fromhex("009c 0001 1a2b3c4d 0001 0000")),
    source="RFC 2637, sections 2 and 2.1",
)
