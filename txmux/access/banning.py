"""The bans of a running service, in all its processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from txmux.access.bans import written
from txmux.errors import MuxError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from txmux.access.bans import Ban, Bans, Change
    from txmux.rules.model import IPNetwork

__all__ = ["FULL", "BanError", "ServiceBans"]

_MOST = 100_000
"""Bans that each process keeps."""

FULL = f"there are {_MOST} bans already; ban networks, or use a file"


class BanError(MuxError):
    """A ban cannot be added or lifted."""


class ServiceBans:
    """Adds and lifts bans in every process of a service.

    Args:
        kept: Returns the bans, of which some may be over.
        change: Sends changes to every process, and returns those that have not answered.
        now: Tells the time of day, in seconds since 1970.

    Attributes:
        publish: Is called for each change here with the network and its ban, or ``None``. Nobody waits for what it does.
    """

    def __init__(
        self,
        kept: Callable[[], Bans],
        change: Callable[[Sequence[Change]], Awaitable[list[str]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._change = change
        self._now = now
        self.publish: Callable[[IPNetwork, Ban | None], object] | None = None

    def __len__(self) -> int:
        return len(self._kept())

    def get(self, network: IPNetwork) -> Ban | None:
        """Return the ban of this very network, which may be over."""
        return self._kept().get(network)

    def current(self) -> list[Ban]:
        """List the bans that hold, in the order of their networks."""
        return self._kept().at(self._now())

    async def add(self, ban: Ban) -> str:
        """Ban a network on every listener; replaces an earlier ban of the same network.

        Returns:
            What has changed.

        Raises:
            BanError: There are too many.
        """
        bans = self._kept()
        gone = bans.expire(self._now()) if len(bans) >= _MOST else []
        if len(bans) >= _MOST and bans.get(ban.network) is None:
            raise BanError(FULL)
        late = await self._change([*gone, (ban.network, ban)])
        return self._changed(ban.network, ban, "is banned", late)

    async def lift(self, network: IPNetwork) -> str:
        """Lift the ban of this very network.

        Returns:
            What has changed.

        Raises:
            BanError: There is none.
        """
        bans = self._kept()
        ban = bans.get(network)
        if ban is None or ban.until <= self._now():
            wider = bans.wider(network)
            hint = "" if wider is None else f"; {written(wider)} is, unban that"
            raise BanError(f"{written(network)} is not banned{hint}")
        late = await self._change([(network, None)])
        return self._changed(network, None, "is not banned any more", late)

    def _changed(self, network: IPNetwork, ban: Ban | None, how: str, late: Sequence[str]) -> str:
        if self.publish is not None:
            self.publish(network, ban)
        return "; ".join([f"{written(network)} {how}", *(f"not yet: {one}" for one in late)])

    async def merge(self, changes: Iterable[Change]) -> list[IPNetwork]:
        """Apply changes of another machine: of each network its ban, or ``None``.

        Returns:
            The networks whose bans there is no room for.
        """
        bans = self._kept()
        room = _MOST - len(bans)
        taken: list[Change] = []
        left_out: list[IPNetwork] = []
        for network, ban in changes:
            if bans.get(network) is None and ban is not None:
                room -= 1
                if room < 0:
                    left_out.append(network)
                    continue
            taken.append((network, ban))
        await self._change(taken)
        return left_out
