"""Matches the CONNECT message of an adb server to a device.

All its numbers are little-endian: ``CNXN``, the version (0x01000000 or 0x01000001), the largest data that is
accepted, the length of the identity string (5 to 4096 bytes), a checksum, ``CNXN`` with all bits inverted. The
identity of a server begins with ``host:``. One release of adb sent an empty message before it: 20 bytes 00, 4 bytes
FF (change 342653 of the Android project, which was taken back).
"""

from txmux.wire import Pattern, PlainMatcher

_CONNECT = (
    rb"(?s)(?:\x00{20}\xff{4})?"
    rb"CNXN[\x00\x01]\x00\x00\x01"
    rb"...\x00"
    rb"(?:[\x05-\xff]\x00|.[\x01-\x0f]|\x00\x10)\x00\x00"
    rb"....\xbc\xb1\xa7\xb1"
    rb"host:"
)

adb = PlainMatcher(
    "adb",
    "Android Debug Bridge, as spoken to devices over TCP",
    Pattern(_CONNECT),
    source='"ADB protocol", protocol.txt of Android\'s adb',
)
