"""For tests of plugins and embedding programs: the contract of a matcher, and a transport without a network."""

from txmux.testing.datagrams import check_datagrams, flow_decided
from txmux.testing.matchers import check_matcher, check_predicate
from txmux.testing.predicates import Decided, calls_in, decided, facts, in_pieces, steps_in
from txmux.testing.transport import WaterMarkTransport
from txmux.testing.words import with_example

__all__ = [
    "Decided", "WaterMarkTransport", "calls_in", "check_datagrams", "check_matcher",
    "check_predicate", "decided", "facts", "flow_decided", "in_pieces", "steps_in", "with_example",
]  # fmt: skip
