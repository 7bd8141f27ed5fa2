"""Matches the first request of a client that speaks JSON-RPC without HTTP, such as a miner (Stratum).

An object, or an array that begins with one, whose members come in any order, up to ``"jsonrpc":`` or ``"method":`` and the
quotation mark behind that. Values before it may be three levels deep. Stratum, which leaves ``"jsonrpc"`` out, adds members
of its own.
"""

from txmux.wire import Pattern, PlainMatcher

_LONGEST_BEGINNING = 4096
_DEEPEST = 3
_BLANK = rb"[ \t\r\n]*"
_STRING = rb'"(?:[^"\\\x00-\x1f]|\\[!-~])*"'
_OTHER = rb"[-+.0-9A-Za-z]+"


def _value(depth: int) -> bytes:
    """Describe a value whose arrays and objects are at most `depth` levels deep; commas may be missing."""
    scalar = rb"%b|%b" % (_STRING, _OTHER)
    if not depth:
        return scalar
    inner = rb"%b(?:%b)%b" % (_BLANK, _value(depth - 1), _BLANK)
    return rb"%b|[{\[](?:%b[,:]?)*%b[}\]]" % (scalar, inner, _BLANK)


_NAME = rb'"(?:jsonrpc|method)"'
_MEMBER = rb"%b%b:%b(?:%b)%b,%b" % (_STRING, _BLANK, _BLANK, _value(_DEEPEST), _BLANK, _BLANK)

jsonrpc = PlainMatcher(
    "jsonrpc",
    "JSON-RPC without HTTP, as miners speak it (Stratum)",
    Pattern(
        rb'(?:\[%b)?\{%b(?:%b)*%b%b:%b"' % (_BLANK, _BLANK, _MEMBER, _NAME, _BLANK, _BLANK),
        within=_LONGEST_BEGINNING,
    ),
    source='"JSON-RPC 2.0 Specification", sections 4 and 6; RFC 8259; "Stratum mining protocol" of the Bitcoin wiki',
)
