"""Who is banned just now, in one process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from txmux.rules.model import NetworkSet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from txmux.rules.model import IPAddress, IPNetwork

__all__ = ["Banned"]

_NOBODY = NetworkSet([])


class Banned:
    """Networks that are banned until some time; whose time is over is let in without a timer.

    Args:
        now: Tells the time of day, in seconds since 1970.

    Attributes:
        any: Whether there may be somebody.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: Mapping[IPNetwork, float] = {}
        self._networks = _NOBODY
        self._over_at = math.inf
        self.any = False

    def use(self, until: Mapping[IPNetwork, float]) -> bool:
        """Ban these, and nobody else any more.

        Args:
            until: Until when each is banned, in seconds since 1970.

        Returns:
            Whether anybody is banned who was not.
        """
        before = self._until
        self._until = until
        self._sort_out()
        return any(network not in before for network in self._until)

    def _sort_out(self) -> None:
        now = self._now()
        self._until = {network: at for network, at in self._until.items() if at > now}
        self._networks = NetworkSet(self._until)
        self._over_at = min(self._until.values(), default=math.inf)
        self.any = bool(self._until)

    def __contains__(self, address: IPAddress) -> bool:
        if not self.any:
            return False
        if self._now() >= self._over_at:
            self._sort_out()
        return address in self._networks
