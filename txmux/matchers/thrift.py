"""Matches the first call of a Thrift client, with or without frames.

In the binary protocol version 1 and the type, which is a call or a oneway call, then the length of the method's name; in
the compact protocol its number, version and type, the sequence number and that length. The first letter of the name
decides. A frame is the length, four bytes, in front. The old binary protocol without a version, JSON and THeader are a *no*.
"""

from txmux.wire import Pattern, PlainMatcher

_FRAME = rb"(?:\x00[\x00-\xff]{3})?"
_BINARY = rb"\x80\x01\x00[\x01\x04]\x00\x00\x00[\x01-\xff]"
_COMPACT = rb"\x82[\x21\x81][\x80-\xff]{0,4}[\x00-\x7f](?:[\x01-\x7f]|[\x80-\xff]\x01)"

thrift = PlainMatcher(
    "thrift",
    "Thrift, binary and compact protocol, framed or not",
    Pattern(_FRAME + rb"(?:%b|%b)[A-Za-z_]" % (_BINARY, _COMPACT)),
    source="doc/specs/thrift-binary-protocol.md, thrift-compact-protocol.md and thrift-rpc.md of Apache Thrift",
)
