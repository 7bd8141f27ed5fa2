"""Matches the greeting of a client of the rsync daemon.

Both sides send ``@RSYNCD: VERSION.SUBPROTOCOL`` first, without waiting; rsync reads it with ``@RSYNCD: %d.%d``. The
first digit of the version decides.
"""

from txmux.wire import Pattern, PlainMatcher

rsync = PlainMatcher(
    "rsync",
    "rsync clients of a daemon (rsync://)",
    Pattern(rb"@RSYNCD: [0-9]"),
    source="exchange_protocols in rsync's clientserver.c",
)
