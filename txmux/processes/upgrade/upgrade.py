"""A new process of the same program goes on with what this one does: the old one's part.

old: starts the new one with the listening sockets, and serves on
new: reads the rules, opens what else it needs, and says that it could serve
old: leaves new clients in the queues
new: accepts clients                                              until here, the old one goes on if anything fails
old: hands over its connections, and ends when the others have
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.net.channel.channel import ChannelError
from txmux.processes.upgrade.successor import VERSION, Successor, UpgradeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from txmux.admin.endpoint import AdminEndpoints
    from txmux.processes.upgrade.worker_transfers import WorkerTransfers
    from txmux.serving.state import Told
    from txmux.telemetry.counting.counters import Counters

_READY = 60.0
"""Seconds that the new process has to get ready to serve."""
_ACCEPTS = 15.0
"""Seconds that it may take to begin."""

_log = Logger()


class Upgrade:
    """One attempt.

    Args:
        transfers: The workers.
        endpoints: Those by which the service itself is reached.
        reactor: Starts the new process.
        command: That which starts it, if not the one that started this.
        seconds: How long the new process may take to get ready.

    Attributes:
        is_committed: Whether the new process serves.
        successor: The new process.
    """

    def __init__(
        self,
        transfers: WorkerTransfers,
        endpoints: AdminEndpoints,
        reactor: Any,
        command: Sequence[str] = (),
        seconds: float = _READY,
    ) -> None:
        self._transfers = transfers
        self._endpoints = endpoints
        self._seconds = seconds
        self.successor = Successor(reactor, command)
        self.is_committed = self._given_up = False

    async def run(
        self,
        sockets: Mapping[str, socket.socket],
        state: Callable[..., Awaitable[Told]],
        counters: Counters | None = None,
    ) -> str:
        """Let a new process serve.

        Args:
            sockets: Those that listen, by the keys of their places.
            state: Gives what the new process is to know, now and when this one accepts no more. That changes nothing here.
            counters: What it goes on with.

        Returns:
            What is different now.

        Raises:
            UpgradeError: It does not, and this one serves as before.
        """
        successor = self.successor
        known = await state()
        if self._given_up:
            raise UpgradeError("the service is shutting down")
        itself = await successor.begin(sockets, known, self._seconds)
        try:
            if counters is not None:
                await self._count_on(counters)
            self._endpoints.pause()
            await self._transfers.pause()
            await successor.channel.ask("accept", seconds=_ACCEPTS, state=await state(again=True))
        except BaseException as problem:
            successor.end()
            await self._accept_again()
            await successor.ended()
            if isinstance(problem, ChannelError):
                raise UpgradeError(f"the new process cannot serve: {problem}") from problem
            raise
        self.is_committed = True
        changes = f"process {successor.pid} serves from now on"
        began = time.monotonic()
        try:
            moved = await self._hand_over(_processes_in(itself))
        except (ChannelError, OSError) as problem:
            _log.warn("connections cannot be handed over, and end here: {why}", why=problem)
            moved = 0
        except Exception:  # noqa: BLE001 - there is no way back, so this process has to end
            _log.failure("connections that have not been handed over end here")
            moved = 0
        successor.channel.send("handed_over")
        milliseconds = 1000 * (time.monotonic() - began)
        return f"{changes}; connections handed over: {moved}, in {milliseconds:.0f} ms"

    async def _accept_again(self) -> None:
        self._endpoints.accept()
        try:
            await self._transfers.accept()
        except ChannelError as problem:  # whoever does not answer is replaced
            _log.warn("a worker does not accept clients yet: {why}", why=problem)

    async def _count_on(self, counters: Counters) -> None:
        """Let the new process read what this one counts, if it is of a version that does."""
        try:
            for told, descriptors in counters.handed_over():
                await self.successor.channel.ask(
                    "count_on", seconds=_ACCEPTS, descriptors=descriptors, **told
                )
        except (ChannelError, OSError) as problem:
            _log.warn("the new process does not go on with all counters: {why}", why=problem)

    async def _hand_over(self, processes: int) -> int:
        """Hand the connections of each old process to the new ones.

        Args:
            processes: The number of the new ones; 0 if it is of a version that takes sockets alone.
        """
        if not processes:
            return 0
        pairs = [socket.socketpair() for _ in range(max(processes, self._transfers.holders))]
        own, others = ([pair[side] for pair in pairs] for side in (0, 1))
        asked = self.successor.channel.ask(
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
        return await self._transfers.hand_over(own)

    def give_up(self) -> None:
        """End the new process, unless it serves: this one is to stop."""
        self._given_up = True
        if not self.is_committed:
            self.successor.end()


def _processes_in(itself: dict[str, Any]) -> int:
    """Return how many processes a new one has for connections; 0 if it takes sockets alone, of which the log is told why."""
    version = itself.get("version")
    if version != VERSION:
        _log.warn(
            "the new process hands connections over in another way (version {other}, here {version}), so they end in this one",
            other=version,
            version=VERSION,
        )
        return 0
    return int(itself.get("processes", 0))
