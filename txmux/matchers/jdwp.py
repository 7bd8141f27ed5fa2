"""Matches the handshake of a Java debugger.

The debugger sends the 14 bytes ``JDWP-Handshake``, and the virtual machine answers with the same. A machine that
itself connects to a waiting debugger sends nothing first.
"""

from txmux.wire import PlainMatcher, Prefix

jdwp = PlainMatcher(
    "jdwp",
    "Java debuggers (JDWP)",
    Prefix(b"JDWP-Handshake"),
    source='"Java Debug Wire Protocol", section "JDWP Start-up"',
)
