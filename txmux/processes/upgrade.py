"""A new process of the same program goes on with what this one does: the old one's part.

old: starts the new one with the listening sockets, and serves on
new: reads the rules, opens what else it needs, and says that it could serve
old: leaves new clients in the queues
new: accepts clients                                              until here, the old one goes on if anything fails
old: hands over its connections, and ends when the others have
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.processes.channel import ChannelError
from txmux.processes.successor import Successor, UpgradeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from txmux.processes.exchange import Exchange

_READY = 60.0
"""Seconds that the new process has to get ready to serve."""
_ACCEPTS = 15.0
"""Seconds that it may take to begin."""

_log = Logger()


class Upgrade:
    """One attempt.

    Args:
        exchange: What serves now.
        reactor: Starts the new process.
        command: That which starts it, if not the one that started this.
        seconds: How long the new process may take to get ready.

    Attributes:
        is_committed: Whether the new process serves.
    """

    def __init__(
        self,
        exchange: Exchange,
        reactor: Any,
        command: Sequence[str] = (),
        seconds: float = _READY,
    ) -> None:
        self._exchange = exchange
        self._seconds = seconds
        self._successor = Successor(reactor, command)
        self.is_committed = False

    async def run(self, sockets: Mapping[str, socket.socket], state: dict[str, Any]) -> str:
        """Let a new process serve.

        Args:
            sockets: Those that listen, by the keys of their places.
            state: What the new process is to know.

        Returns:
            What is different now.

        Raises:
            UpgradeError: It does not, and this one serves as before.
        """
        successor, exchange = self._successor, self._exchange
        itself = await successor.begin(sockets, state, self._seconds)
        try:
            await exchange.pause()
            await successor.channel.ask("accept", seconds=_ACCEPTS)
        except ChannelError as problem:
            successor.end()
            await exchange.accept()
            await successor.ended()
            raise UpgradeError(f"the new process cannot serve: {problem}") from problem
        self.is_committed = True
        changes = f"process {successor.pid} serves from now on"
        try:
            moved = await self._hand_over(itself.get("processes", 0))
        except ChannelError as problem:
            _log.warn("connections cannot be handed over, and end here: {why}", why=problem)
            moved = 0
        return f"{changes}; connections handed over: {moved}"

    async def _hand_over(self, processes: int) -> int:
        """Have the connections of each old process go to the new ones.

        Args:
            processes: The number of the new ones; 0 if it is of a version that takes sockets alone.
        """
        if not processes:
            return 0
        pairs = [socket.socketpair() for _ in range(max(processes, self._exchange.processes))]
        own, others = ([pair[side] for pair in pairs] for side in (0, 1))
        asked = self._successor.channel.ask(
            "take_over", seconds=_ACCEPTS, descriptors=[end.fileno() for end in others]
        )
        for end in others:
            end.close()
        try:
            await asked
        except ChannelError:
            for end in own:
                end.close()
            raise
        return await self._exchange.hand_over(own)

    def give_up(self) -> None:
        """End the new process, unless it serves: this one is to stop."""
        if not self.is_committed:
            self._successor.end()
