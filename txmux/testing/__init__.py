"""For tests of what others build on txmux: the contract of a matcher, and a transport without a network."""

from txmux.testing.matchers import check_matcher, check_predicate, with_example
from txmux.testing.predicates import (
    Decided,
    calls_in,
    decided,
    facts,
    in_pieces,
    steps_in,
)
from txmux.testing.transport import WaterMarkTransport

__all__ = [
    "Decided",
    "WaterMarkTransport",
    "calls_in",
    "check_matcher",
    "check_predicate",
    "decided",
    "facts",
    "in_pieces",
    "steps_in",
    "with_example",
]
