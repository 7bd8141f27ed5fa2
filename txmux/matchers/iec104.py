"""Matches the first frame of a controlling station of IEC 60870-5-104: one without a number that starts the transfer, or tests the connection."""

from txmux.wire import Pattern, PlainMatcher

iec104 = PlainMatcher(
    "iec104",
    "IEC 60870-5-104, by STARTDT or TESTFR",
    Pattern(rb"\x68\x04[\x07\x43]\x00{3}"),
    source="IEC 60870-5-104, section 5.1; packet-iec104.c of Wireshark",
)
