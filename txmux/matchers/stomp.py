"""Matches the first line of a STOMP client.

That is ``CONNECT`` or ``STOMP`` and the end of the line, with which no request of HTTP begins.
"""

from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Pattern

stomp = PlainMatcher(
    "stomp",
    "STOMP, by the command of the first frame",
    Pattern(rb"(?:CONNECT|STOMP)\r?\n"),
    source='STOMP 1.2, sections "Augmented BNF" and "CONNECT or STOMP frame"',
)
