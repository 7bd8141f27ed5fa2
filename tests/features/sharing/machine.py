"""Machines that share bans, in one process, each with a clock of its own."""

import time
from collections.abc import Sequence

from txmux.access.bans import Ban, Bans, Change, ServiceBans, banned_network, written


class Machine:
    """What a service has of bans.

    Args:
        ahead: Seconds by which its clock is.

    Attributes:
        kept: The bans, of which some may be over.
        bans: What changes them.
    """

    def __init__(self, ahead: float = 0.0) -> None:
        self._ahead = ahead
        self.kept = Bans()
        self.bans = ServiceBans(lambda: self.kept, self._change, self.now)

    def now(self) -> float:
        return time.monotonic() + self._ahead

    async def _change(self, changes: Sequence[Change]) -> list[str]:
        self.kept.change(changes)
        return []

    def banned(self) -> list[str]:
        return [written(ban.network) for ban in self.bans.current()]

    async def ban(self, network: str, seconds: float = 600.0) -> None:
        now = self.now()
        await self.bans.add(Ban(banned_network(network), now, now + seconds, "a test"))

    async def lift(self, network: str) -> None:
        self.kept.change([(banned_network(network), None)])
        assert self.bans.publish is not None
        self.bans.publish(banned_network(network), None)
