"""Matches the first message of a FIX client, the Logon of the side that connects.

Each message begins with the field 8, BeginString: the version of the protocol, ``FIX.4.0`` to ``FIX.4.4``, or
``FIXT.1.1``, the session protocol of FIX 5.0 and later; and the byte 01, with which all fields end.
"""

from txmux.wire import Pattern, PlainMatcher

fix = PlainMatcher(
    "fix",
    "FIX (financial orders), by the version that begins a message",
    Pattern(rb"8=FIX(?:\.4\.[0-4]|T\.1\.1)\x01"),
    source='FIX session layer, "Standard header"; FIX 4.4, volume 2',
)
