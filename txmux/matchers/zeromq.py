"""Matches the signature with which a ZeroMQ peer begins, of ZMTP 2.0 to 3.1.

It is ``FF``, eight bytes and ``7F``. libzmq waits for that of the other side before it says its version, so there is nothing
else to look at; but the eight bytes are the length of a name in ZMTP 1.0, for which libraries write 0 or 1 here.
"""

from txmux.wire import Pattern, PlainMatcher

zeromq = PlainMatcher(
    "zeromq",
    "ZeroMQ (ZMTP 2.0 to 3.1), by the signature",
    Pattern(rb"\xff\x00{6}[\x00\x01][\x00-\xff]\x7f"),
    source='23/ZMTP and 37/ZMTP (rfc.zeromq.org), "Version Negotiation"; zmtp_engine.cpp of libzmq',
)
