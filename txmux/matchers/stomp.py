"""Matches the first line of a STOMP client.

That is ``CONNECT`` or ``STOMP`` and the end of the line, with which no request of HTTP begins.
"""

from txmux.wire import Pattern, PlainMatcher

stomp = PlainMatcher(
    "stomp",
    "STOMP, by the command of the first frame",
    Pattern(rb"(?:CONNECT|STOMP)\r?\n"),
    source='STOMP 1.2, sections "Augmented BNF" and "CONNECT or STOMP frame"',
)
