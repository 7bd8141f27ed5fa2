"""What the tests of matchers use of `txmux.testing`."""

from txmux.testing import Decided, calls_in, decided, facts, in_pieces

__all__ = ["Decided", "calls_in", "decided", "facts", "in_pieces"]
