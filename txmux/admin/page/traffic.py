"""What each route moves in a second for each listener, found from what it has moved so far."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OFTEN = 2.0  # seconds between two looks
_LONG = 30.0  # seconds over which is measured


@attrs.define
class Traffic:
    """Remembers what was moved a while ago.

    Args:
        started: When the service was, in seconds since 1970.
    """

    started: float
    _looks: deque[tuple[float, Mapping[tuple[str, str], int]]] = attrs.field(
        factory=deque, init=False
    )

    def now(self, time: float, routes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
        """Return the bytes a second of each route by listener, both ways: over the last half minute, or since the last look before it.

        Args:
            time: Seconds since 1970.
            routes: ``/api/routes``.
        """
        moved = {
            (route["name"], one["listener"]): one["bytes_in"] + one["bytes_out"]
            for route in routes
            for one in route.get("listeners", ())
        }
        while len(self._looks) > 1 and self._looks[1][0] <= time - _LONG:
            self._looks.popleft()
        before, then = self._looks[0] if self._looks else (self.started, {})
        if not self._looks or self._looks[-1][0] <= time - _OFTEN:
            self._looks.append((time, moved))
        seconds = max(time - before, 1.0)
        rates: dict[str, dict[str, float]] = {}
        for (name, listener), count in moved.items():
            grown = max(count - then.get((name, listener), 0), 0)
            rates.setdefault(name, {})[listener] = grown / seconds
        return rates
