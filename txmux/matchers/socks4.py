"""Matches the request of a SOCKS client, version 4 or 4a.

4, CONNECT (1) or BIND (2), a port, an IPv4 address, a user ID that ends with a NUL; and behind the address 0.0.0.x, x
not 0, a host name that ends with a NUL.
"""

from txmux.wire import Pattern, PlainMatcher

_REQUEST = (
    rb"(?s)\x04[\x01\x02](?:[^\x00].|\x00[^\x00])"
    rb"(?:"
    rb"(?:[^\x00]...|\x00[^\x00]..|\x00\x00[^\x00].|\x00{4})[^\x00-\x1f\x7f]*\x00"
    rb"|"
    rb"\x00{3}[^\x00][^\x00-\x1f\x7f]*\x00[^\x00-\x20\x7f]+\x00"
    rb")"
)

socks4 = PlainMatcher(
    "socks4",
    "SOCKS 4 and 4a, by the request",
    Pattern(_REQUEST, within=8 + 256 + 256),
    source='"SOCKS: A protocol for TCP proxy across firewalls" (Ying-Da Lee), and its extension "SOCKS 4A"',
)
