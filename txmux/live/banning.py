"""Bans that an operator makes of a running service, for all its processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from txmux.control import Report
from txmux.networks.bans import Bans, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from txmux.live.wanted import Wanted
    from txmux.networks.bans import Ban
    from txmux.rules.model import IPNetwork

__all__ = ["Banning"]

_MOST = 100_000
"""Bans that are kept: each change is told to all processes as a whole."""


class Banning:
    """The part of `txmux.control.Control` that is about bans.

    Attributes:
        tell_others: Is told of each change here: the network, and its ban, or ``None``. Whatever it does, nobody waits for it.
    """

    tell_others: Callable[[IPNetwork, Ban | None], object] | None = None

    def wanted(self) -> Wanted:
        """Give all that an operator wants."""
        raise NotImplementedError

    async def _want(self, wanted: Wanted) -> list[str]:
        raise NotImplementedError

    def bans(self) -> list[dict[str, Any]]:
        """List the bans that hold, in their order."""
        return self._bans().as_json()

    def _bans(self) -> Bans:
        return self.wanted().bans.at(time.time())

    def banned(self) -> dict[IPNetwork, Ban]:
        """Give the bans that hold, by network."""
        return dict(self._bans().by_network)

    async def ban(self, ban: Ban) -> Report:
        """Let nobody of a network come in, by any listener; in the place of an older ban of the same network."""
        bans = self._bans()
        if ban.network not in bans.by_network and len(bans.by_network) >= _MOST:
            return Report.refused(f"there are {_MOST} bans already; ban networks, or use a file")
        late = await self._have(bans.with_ban(ban))
        if self.tell_others is not None:
            self.tell_others(ban.network, ban)
        return _report(f"{written(ban.network)} is banned", late)

    async def unban(self, network: IPNetwork) -> Report:
        """Take a ban back; it has to be of this very network."""
        bans = self._bans()
        if network not in bans.by_network:
            wider = [written(one) for one in bans.by_network if _is_in(network, one)]
            hint = f"; {wider[0]} is, unban that" if wider else ""
            return Report.refused(f"{written(network)} is not banned{hint}")
        late = await self._have(bans.without(network))
        if self.tell_others is not None:
            self.tell_others(network, None)
        return _report(f"{written(network)} is not banned any more", late)

    async def have_bans(self, changes: Iterable[tuple[IPNetwork, Ban | None]]) -> None:
        """Take in changes that another machine has told: of each network its ban, or ``None``."""
        bans = self._bans()
        by_network = dict(bans.by_network)
        for network, ban in changes:
            if ban is not None and (network in by_network or len(by_network) < _MOST):
                by_network[network] = ban
            elif ban is None:
                by_network.pop(network, None)
        if by_network != bans.by_network:
            await self._have(Bans(by_network))

    async def _have(self, bans: Bans) -> list[str]:
        return await self._want(attrs.evolve(self.wanted(), bans=bans))


def _is_in(network: Any, other: Any) -> bool:
    return network.version == other.version and bool(network.subnet_of(other))


def _report(changes: str, late: Sequence[str]) -> Report:
    return Report(ok=True, changes="; ".join([changes, *(f"not yet: {one}" for one in late)]))
