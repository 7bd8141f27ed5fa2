"""A plugin that goes by another name in workers. The tests copy it to where plugins are looked for."""

from __future__ import annotations

import sys

from txmux.matchers.any import AnyMatcher


class ShyMatcher(AnyMatcher):
    """Any client."""

    name = "hidden" if "txmux.processes.child" in sys.orig_argv else "shy"


shy = ShyMatcher()
