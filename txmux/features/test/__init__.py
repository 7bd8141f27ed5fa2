"""`txmux test`: tests whether a port's answers depend on the packets in which a client's first bytes come."""

from txmux.rules.feature import Feature

FEATURE = Feature(
    "test",
    commands={
        "test": "Test whether a port's answers depend on the packets in which a client's first bytes come."
    },
)
