"""Bans that an operator makes of a running service, for all its processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from txmux.control import Report
from txmux.networks.bans import written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from txmux.networks.bans import Ban, Bans, Change
    from txmux.rules.model import IPNetwork

__all__ = ["FULL", "Banning"]

_MOST = 100_000
"""Bans that are kept, in each process."""

FULL = f"there are {_MOST} bans already; ban networks, or use a file"


class Banning:
    """The part of `txmux.control.Control` that is about bans.

    Attributes:
        tell_others: Is told of each change here: the network, and its ban, or ``None``. Whatever it does, nobody waits for it.
    """

    tell_others: Callable[[IPNetwork, Ban | None], object] | None = None

    def kept_bans(self) -> Bans:
        """Give all bans, of which some may be over."""
        raise NotImplementedError

    async def _change_bans(self, changes: Sequence[Change]) -> list[str]:
        """Tell all processes, and name those that have not answered."""
        raise NotImplementedError

    def bans(self) -> list[Ban]:
        """List the bans that hold, in their order."""
        return self.kept_bans().at(time.time())

    async def ban(self, ban: Ban) -> Report:
        """Let nobody of a network come in, by any listener; in the place of an older ban of the same network."""
        bans = self.kept_bans()
        gone = bans.expire(time.time()) if len(bans) >= _MOST else []
        if len(bans) >= _MOST and bans.get(ban.network) is None:
            return Report.refused(FULL)
        late = await self._change_bans([*gone, (ban.network, ban)])
        if self.tell_others is not None:
            self.tell_others(ban.network, ban)
        return _report(f"{written(ban.network)} is banned", late)

    async def unban(self, network: IPNetwork) -> Report:
        """Take a ban back; it has to be of this very network."""
        bans = self.kept_bans()
        ban = bans.get(network)
        if ban is None or ban.until <= time.time():
            wider = bans.wider(network)
            hint = "" if wider is None else f"; {written(wider)} is, unban that"
            return Report.refused(f"{written(network)} is not banned{hint}")
        late = await self._change_bans([(network, None)])
        if self.tell_others is not None:
            self.tell_others(network, None)
        return _report(f"{written(network)} is not banned any more", late)

    async def have_bans(self, changes: Iterable[Change]) -> list[IPNetwork]:
        """Take in changes of another machine: of each network its ban, or ``None``.

        Returns:
            The networks whose bans there is no room for.
        """
        bans = self.kept_bans()
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
        await self._change_bans(taken)
        return left_out


def _report(changes: str, late: Sequence[str]) -> Report:
    return Report(ok=True, changes="; ".join([changes, *(f"not yet: {one}" for one in late)]))
