"""A plugin that goes by another name in workers. The tests copy it to where plugins are looked for."""

from __future__ import annotations

import sys

from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Pattern

shy = PlainMatcher(
    "hidden" if "txmux.processes.workers.child" in sys.orig_argv else "shy",
    "any client",
    Pattern(b"."),
)
