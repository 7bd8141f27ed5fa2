"""What a service counts for limits, in all its processes and under all its rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.access.across_processes import SharedLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from txmux.rules.model import Rules
    from txmux.telemetry.counting.counters import Counters

__all__ = ["ServiceLimits"]

_MOST_WORKERS = 16
"""How many workers there may be later, at least."""


class ServiceLimits:
    """Has the memory for it, as long as the service runs.

    Args:
        seconds: Tells the time, the same in all processes.
        rules: Gives those in force, until others are.
        counters: Those of all processes.
    """

    def __init__(
        self, seconds: Callable[[], float], rules: Callable[[], Rules], counters: Counters
    ) -> None:
        self._seconds = seconds
        self._rules = rules
        self._counters = counters
        self._limits: SharedLimits | None = None

    def limits(self, rules: Rules) -> SharedLimits:
        """Return the memory, with room for what these rules count, too."""
        if self._limits is None:
            most = max(_MOST_WORKERS, 2 * rules.settings.workers)
            self._limits = SharedLimits.make(rules, most, self._in_use)
        self._limits.extend(rules)
        return self._limits

    def _in_use(self, names: Collection[str]) -> set[str]:
        """Return the listeners that are in the rules in force or have connections, including those that are not admitted yet."""
        known = {listener.name for listener in self._rules().listeners}
        return {name for name in names if name in known or self._counters.has_connections(name)}

    def as_json(self) -> dict[str, Any]:
        """Return what the next service is to expect; see `SharedLimits.as_json`."""
        return self._limits.as_json() if self._limits is not None else {}

    def expect(self, values: Mapping[str, Any]) -> None:
        """Count connections that another service will hand over; see `SharedLimits.expect`."""
        if self._limits is not None:
            self._limits.expect(values, self._seconds())

    def expect_no_more(self) -> None:
        """Drop what has not come."""
        if self._limits is not None:
            self._limits.expect_no_more()

    def close(self) -> None:
        """Free the memory when its last user closes it; the next start makes it anew."""
        if self._limits is not None:
            self._limits.close()
            self._limits = None
