"""Matches the Hello of an OPC UA client.

``HELF``, the length of the message, whose address has at most 4096 bytes, and version 0 of the protocol; numbers have their
least byte first. What a server that connects to its client says, ReverseHello, is a *no*.
"""

from txmux.wire import Pattern, PlainMatcher

opcua = PlainMatcher(
    "opcua",
    "OPC UA (opc.tcp), by the client's Hello",
    Pattern(rb"(?s:HELF(?:[\x20-\xff]\x00|.[\x01-\x0f]|[\x00-\x20]\x10)\x00\x00\x00{4})"),
    source="OPC 10000-6, sections 7.1.2.2 and 7.1.2.3",
)
