"""The health and the overrides of the servers of all backends, across reloads."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from txmux.backends.pool.overrides import AS_RULED
from txmux.backends.pool.server_health import BackendHealth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.backends.pool.overrides import ServerOverrides

__all__ = ["HealthRegistry"]


class HealthRegistry:
    """The `BackendHealth` of each backend, as long as somebody has them, and the orders for all, which are kept."""

    def __init__(self) -> None:
        self._backend_health: WeakValueDictionary[str, BackendHealth] = WeakValueDictionary()
        self._orders: ServerOverrides = {}

    def of(self, backend: str) -> BackendHealth:
        """Return what is known of a backend's servers, by its name."""
        found = self._backend_health.get(backend)
        if found is None:
            wanted = {
                server: (order.held, order.weight)
                for (of, server), order in self._orders.items()
                if of == backend
            }
            found = self._backend_health[backend] = BackendHealth(wanted)
        return found

    def get(self, backend: str) -> BackendHealth | None:
        """Return what is known of a backend's servers, if anybody has it."""
        return self._backend_health.get(backend)

    def expect(self, servers: Iterable[Mapping[str, Any]]) -> None:
        """Count the connections that another process is about to hand over; see `BackendHealth.expect`.

        Args:
            servers: As that process has told of them; without any, no more are expected.
        """
        counts: dict[str, dict[tuple[str, str], int]] = {}
        for told in servers:
            with suppress(KeyError, OverflowError, TypeError, ValueError):  # of another version
                key = told["server"], told["target"]
                counts.setdefault(told["backend"], {})[key] = int(told["connections"])
        for backend, backend_health in self._backend_health.items():
            backend_health.expect(counts.get(backend, {}))

    def apply_overrides(self, orders: ServerOverrides) -> None:
        """Apply an operator's overrides of servers, and reset the servers that have none.

        Args:
            orders: All there are.
        """
        before, self._orders = self._orders, orders
        for backend, server in {*before, *orders}:
            order = orders.get((backend, server), AS_RULED)
            backend_health = self._backend_health.get(backend)
            if backend_health is not None and order != before.get((backend, server), AS_RULED):
                backend_health.order(server, order.held, order.weight)
