"""Matches the cookie with which an iperf3 client begins each of its connections.

36 letters of ``a`` to ``z`` and ``2`` to ``7``, and a NUL. Early releases put the name of the client's machine and
the time there; they are not matched.
"""

from txmux.wire import Pattern, PlainMatcher

iperf3 = PlainMatcher(
    "iperf3",
    "iperf3, by the cookie that begins its connections",
    Pattern(rb"[a-z2-7]{36}\x00"),
    source="make_cookie in iperf's iperf_util.c, COOKIE_SIZE in its iperf.h",
)
