"""What a process that serves does while another one takes its place, or it takes another one's."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import Logger

from txmux.processes.channel import Channel, ChannelError, GoneError, attach
from txmux.processes.handover import Adopting, hand_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from txmux.processes.worker import Worker
    from txmux.serving.serving import Serving

_PATIENCE = 10.0
"""Seconds that a worker may take to stop accepting, or to begin."""
_MOVING = 60.0
"""Seconds that it may take to hand over all its connections."""

_log = Logger()


class Exchange(Protocol):
    """One process that serves, or several."""

    @property
    def processes(self) -> int:
        """How many."""

    async def pause(self) -> None:
        """Leave new clients in the queues.

        Raises:
            ChannelError: A worker does not answer; `accept` is next.
        """

    async def accept(self) -> None:
        """Accept clients."""

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Let others go on with the connections that can be moved.

        Args:
            ends: Each of a pair, at the other end of which a process adopts; they are closed.

        Returns:
            The number of connections that were moved.
        """

    async def adopt(self, ends: Sequence[socket.socket]) -> None:
        """Go on with connections that come over each of these; they are closed."""


class OneProcess:
    """This process serves.

    Args:
        serving: What it serves.
        reactor: For the channels.
    """

    processes = 1

    def __init__(self, serving: Serving, reactor: Any) -> None:
        self._serving = serving
        self._reactor = reactor

    async def pause(self) -> None:
        """Leave new clients in the queues."""
        self._serving.pause()

    async def accept(self) -> None:
        """Accept clients."""
        self._serving.accept()

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Let others go on with the connections that can be moved; see `Exchange`."""
        channels = [self._channel(end, {}, lambda: None) for end in ends]
        moved = await hand_over(self._serving.connections(), channels)
        for channel in channels:
            channel.close()
        return moved

    async def adopt(self, ends: Sequence[socket.socket]) -> None:
        """Go on with connections that come over each of these; they are closed."""
        for end in ends:
            adopting = Adopting(self._serving.factory_of)
            self._channel(end, adopting.handlers, adopting.lost)

    def _channel(
        self,
        end: socket.socket,
        handlers: dict[str, Callable[..., object]],
        lost: Callable[[], object],
    ) -> Channel:
        channel = Channel(handlers, lost, self._reactor)
        attach(self._reactor, channel, end)
        return channel

    # A worker is told so by its parent.

    @property
    def handlers(self) -> dict[str, Callable[..., object]]:
        """What a worker's channel calls."""

        async def give(descriptors: Sequence[int]) -> int:
            return await self.hand_over(_sockets(descriptors))

        async def take(descriptors: Sequence[int]) -> None:
            await self.adopt(_sockets(descriptors))

        return {"pause": self.pause, "accept": self.accept, "hand_over": give, "take_over": take}


class Workers:
    """Other processes serve.

    Args:
        workers: These; there may be others later.
        accepting: Whether they accept clients.

    Attributes:
        accepting: As above; for those that are started later, too.
    """

    def __init__(self, workers: Sequence[Worker], *, accepting: bool) -> None:
        self._workers = workers
        self.accepting = accepting

    @property
    def processes(self) -> int:
        """How many."""
        return len(self._workers)

    async def pause(self) -> None:
        """Leave new clients in the queues; see `Exchange`."""
        self.accepting = False
        await self._tell_all("pause")

    async def accept(self) -> None:
        """Accept clients."""
        self.accepting = True
        await self._tell_all("accept")

    async def _tell_all(self, kind: str) -> None:
        asked = [worker.ask(kind, seconds=_PATIENCE) for worker in self._workers]
        for problem in [await _outcome(answer) for answer in asked]:
            # The successor of one that is gone is told when it is started.
            if isinstance(problem, ChannelError) and not isinstance(problem, GoneError):
                raise problem

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Let others go on with the connections that can be moved; see `Exchange`."""
        return sum(await self._share("hand_over", ends))

    async def adopt(self, ends: Sequence[socket.socket]) -> None:
        """Go on with connections that come over each of these; they are closed."""
        await self._share("take_over", ends)

    async def _share(self, kind: str, ends: Sequence[socket.socket]) -> list[Any]:
        """Give each worker its share of the ends."""
        asked = []
        for number, worker in enumerate(self._workers):
            descriptors = [end.fileno() for end in ends[number :: len(self._workers)]]
            if descriptors:
                asked.append(worker.ask(kind, seconds=_MOVING, descriptors=descriptors))
        for end in ends:
            end.close()  # each was duplicated
        outcomes = [await _outcome(answer) for answer in asked]
        for problem in outcomes:
            if isinstance(problem, ChannelError):
                _log.warn("a worker can exchange no connections: {why}", why=problem)
        return [answer for answer in outcomes if not isinstance(answer, ChannelError)]


async def _outcome(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except ChannelError as problem:
        return problem


def _sockets(descriptors: Sequence[int]) -> list[socket.socket]:
    return [socket.socket(fileno=descriptor) for descriptor in descriptors]
