"""Matches the protocol header of an AMQP client, eight bytes.

``AMQP``, then the protocol and version of 1.0, plain, with TLS or with SASL, of 0-9-1, or of the older 0-8, 0-9 and
0-10.
"""

from txmux.wire import Pattern, PlainMatcher

_AMQP_1_0 = rb"[\x00\x02\x03]\x01\x00\x00"
_AMQP_0 = rb"\x00\x00\x09\x01|\x01\x01(?:\x00[\x09\x0a]|\x08\x00)"

amqp = PlainMatcher(
    "amqp",
    "AMQP 0-8 to 0-10 and 1.0, by the protocol header",
    Pattern(rb"AMQP(?:%b|%b)" % (_AMQP_1_0, _AMQP_0)),
    source="OASIS AMQP 1.0, sections 2.2, 5.2.1 and 5.3.2; AMQP 0-9-1, section 4.2.2; AMQP 0-8 and 0-10, sections 4.2.2 and 4.3",
)
