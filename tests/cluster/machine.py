"""Machines that share bans, in one process, each with a clock of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from typing_extensions import override

from txmux.live.banning import Banning
from txmux.networks.bans import Ban, Bans, banned_network, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.networks.bans import Change


class Machine(Banning):
    """What a service has of bans.

    Args:
        ahead: Seconds by which its clock is.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self._bans = Bans()
        self._ahead = ahead

    def now(self) -> float:
        """Tell the time of day, as this machine has it."""
        return time.time() + self._ahead

    @override
    def kept_bans(self) -> Bans:
        return self._bans

    @override
    async def _change_bans(self, changes: Sequence[Change]) -> list[str]:
        self._bans.change(changes)
        return []

    @override
    def bans(self) -> list[Ban]:
        return self._bans.at(self.now())

    def banned(self) -> list[str]:
        """Give who is banned."""
        return [written(ban.network) for ban in self.bans()]

    async def say(self, network: str, seconds: float = 600.0) -> None:
        """Ban somebody, as its operator does."""
        now = self.now()
        await self.ban(Ban(banned_network(network), now, now + seconds, "a test"))

    async def take_back(self, network: str) -> None:
        """Ban somebody no more; to be called of a network that is banned here."""
        self._bans.change([(banned_network(network), None)])
        assert self.tell_others is not None
        self.tell_others(banned_network(network), None)
