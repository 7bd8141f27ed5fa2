"""Matches the header with which a client of Java RMI begins a connection.

``JRMI``, version 1 or 2, and one of the three protocols: stream, single operation, multiplex. A client of the first waits
for the server's acknowledgement then.
"""

from txmux.wire import Pattern, PlainMatcher

rmi = PlainMatcher(
    "rmi",
    "Java RMI, by the header of the connection",
    Pattern(rb"JRMI\x00[\x01\x02][\x4b-\x4d]"),
    source='"Java Remote Method Invocation Specification", section 10.2',
)
