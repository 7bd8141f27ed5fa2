"""The limits of a service, counted over all its processes."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from txmux.access.across_processes import SharedLimits, names_counted
from txmux.rules.model import Rules
from txmux.telemetry.counting.counters import Counters

_MOST_WORKERS = 16
"""The least number of workers for which there is room."""


class ServiceLimits:
    """Owns the shared memory of limits while the service runs; the clock is the same in all processes."""

    def __init__(
        self, seconds: Callable[[], float], rules: Callable[[], Rules], counters: Counters
    ) -> None:
        self._seconds = seconds
        self._rules = rules
        self._counters = counters
        self._limits: SharedLimits | None = None

    def limits(self, rules: Rules) -> SharedLimits:
        """Return the limits, with room for these rules, too."""
        if self._limits is None:
            most = max(_MOST_WORKERS, 2 * rules.settings.workers)
            self._limits = SharedLimits.make(rules, most, self._in_use)
        self._limits.extend(rules)
        return self._limits

    def _in_use(self, names: Collection[str]) -> set[str]:
        """Return those that are in the rules in force or have connections, including those that are not admitted yet."""
        in_rules = {*names_counted(self._rules())}
        return {name for name in names if name in in_rules or self._counters.has_connections(name)}

    def as_json(self) -> dict[str, Any]:
        return self._limits.as_json() if self._limits is not None else {}

    def expect(self, values: Mapping[str, Any]) -> None:
        if self._limits is not None:
            self._limits.expect(values, self._seconds())

    def expect_no_more(self) -> None:
        if self._limits is not None:
            self._limits.expect_no_more()

    def close(self) -> None:
        """Release the memory; the next start makes it anew."""
        if self._limits is not None:
            self._limits.close()
            self._limits = None
