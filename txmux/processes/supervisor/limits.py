"""Makes the memory of the limits of a service, or goes on with that of the one which it replaces."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from twisted.logger import Logger

from txmux.access.across_processes import SharedLimits, names_counted
from txmux.errors import MuxError
from txmux.rules.model import Rules
from txmux.telemetry.counting.counters import Counters

_FEWEST_WORKERS = 16
"""The memory has columns for this many workers, or for twice those of the rules if that is more."""

_log = Logger()


def make_limits(
    rules_in_force: Callable[[], Rules],
    counters: Counters,
    before: tuple[int, Mapping[str, Any]] | None,
) -> SharedLimits:
    """Return the limits; `before` is the memory of the other service, which is closed if it cannot be used, and what is where in it."""

    def in_use(names: Collection[str]) -> set[str]:
        in_rules = {*names_counted(rules_in_force())}
        return {name for name in names if name in in_rules or counters.has_connections(name)}

    rules = rules_in_force()
    workers = max(_FEWEST_WORKERS, 2 * rules.settings.workers)
    if before is not None:
        descriptor, layout = before
        try:
            return SharedLimits.take_over(descriptor, layout, workers, in_use)
        except MuxError as problem:
            os.close(descriptor)
            _log.warn(
                "limits do not count the connections that stay in the old process: {why}",
                why=problem,
            )
    return SharedLimits.make(rules, workers, in_use)
