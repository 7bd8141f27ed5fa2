"""What a process that serves does while another one takes its place, or it takes another one's."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet import defer
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from txmux.frontend.connection import MuxProtocol
from txmux.processes.channel.channel import Channel, ChannelError, GoneError, attach
from txmux.processes.upgrade.collecting import UNCOLLECTED
from txmux.processes.upgrade.handover import Adopting, hand_over
from txmux.processes.upgrade.keeping import Keeping
from txmux.processes.workers.starting import sockets_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from txmux.admin.endpoint import Endpoints
    from txmux.datagrams.port import DatagramPort
    from txmux.frontend.listener import MuxFactory
    from txmux.processes.workers.pool import Pool
    from txmux.processes.workers.worker import Worker
    from txmux.serving.serving import Serving
    from txmux.serving.state import Told

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

    @property
    def holders(self) -> int:
        """How many have connections: those that serve, and those that only keep some."""

    async def pause(self) -> None:
        """Leave new clients in the queues.

        Raises:
            ChannelError: A worker does not answer; `accept` is next.
        """

    async def accept(self) -> None:
        """Accept clients."""

    def await_flows(self, *, on: bool) -> None:
        """Keep what unknown clients say by datagrams, or no more, since their flows may come from another process."""

    def expect(self, servers: Iterable[Told]) -> None:
        """Count for limits of servers what another process is about to hand over.

        Args:
            servers: As that one has told of them; without any, no more will come.
        """

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

    Attributes:
        flows_gone: Fires when flows of datagrams were handed over for the first time.
    """

    processes = holders = 1

    def __init__(self, serving: Serving, reactor: Any) -> None:
        self._serving = serving
        self._reactor = reactor
        self._adopting: dict[Adopting, int] = {}  # with the flows that were awaited as each began
        self._giving = 0
        self.flows_gone: Deferred[None] = Deferred()
        self._keeping: set[Keeping] = set()
        self._is_closed = False
        self._quiet: Deferred[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether connections may be on their way to another process, or from one."""
        return self._giving > 0 or not all(one.has_all for one in self._adopting)

    async def close(self) -> None:
        """Take no more connections, since this process is about to end; wait for what is on its way, to here or from here.

        What another process has been promised to take would be lost with this one, and nobody would log its end.
        """
        self._is_closed = True
        for adopting in self._adopting:
            adopting.is_closed = True
        if self._is_moving():
            self._quiet = Deferred()
            with suppress(defer.TimeoutError):
                await self._quiet.addTimeout(_PATIENCE, self._reactor)
            self._quiet = None

    def _is_moving(self) -> bool:
        return self._giving > 0 or any(one.is_waiting for one in self._adopting)

    def _moved(self) -> None:
        if self._quiet is not None and not self._quiet.called and not self._is_moving():
            self._quiet.callback(None)

    async def pause(self) -> None:
        """Leave new clients in the queues."""
        self._serving.pause()

    async def accept(self) -> None:
        """Accept clients."""
        self._serving.accept()

    def await_flows(self, *, on: bool) -> None:
        """Keep what unknown clients say by datagrams, or no more; see `Exchange`."""
        doors = self._serving.doors
        (doors.await_flows if on else doors.flows_are_here)()

    def expect(self, servers: Iterable[Told]) -> None:
        """Count what another process is about to hand over; see `Exchange`."""
        self._serving.upstreams.known.expect(servers)

    async def _hand_over_flows(self, to: Sequence[Keeping]) -> int:
        flows = [one for one in self._serving.connections() if not isinstance(one, MuxProtocol)]
        moved = 0
        for keeping in to:
            if flows:
                from txmux.datagrams.handover import hand_over_flows  # noqa: PLC0415 - only who has flows has imported it

                # One may be of a version that knows no flows.
                with suppress(ChannelError, KeyError, TypeError):
                    moved += await hand_over_flows(flows, keeping.channel)
            if self._serving.doors.reads_datagrams:
                keeping.channel.send("flows_done")
        return moved

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Let others go on with the connections that can be moved; see `Exchange`."""
        all_keeping = [*filter(None, map(self._kept, ends))]
        self._giving += 1
        try:
            # First, since datagrams wait nowhere for long.
            moved = await self._hand_over_flows(all_keeping)
            if not self.flows_gone.called:
                self.flows_gone.callback(None)
            connections = self._serving.connections()
            streams = [one for one in connections if isinstance(one, MuxProtocol)]
            return moved + await hand_over(streams, all_keeping)
        finally:
            self._giving -= 1
            for keeping in all_keeping:
                keeping.close_when_done()
            self._moved()

    def _kept(self, end: socket.socket) -> Keeping | None:
        keeping = Keeping()

        def lost() -> None:
            self._keeping.discard(keeping)
            keeping.lost()

        try:
            keeping.channel = self._channel(end, keeping.handlers, lost)
        except OSError as problem:  # there may be no more descriptors
            _log.warn("connections cannot be handed over, and go on here: {why}", why=problem)
            return None
        self._keeping.add(keeping)
        return keeping

    def keep_no_places(self) -> None:
        """Give back the places of connections that have been handed over: this process serves again, or has none any more."""
        for keeping in self._keeping:
            keeping.channel.close()

    async def adopt(self, ends: Sequence[socket.socket]) -> None:
        """Go on with connections that come over each of these; they are closed."""
        for end in ends:
            self._adopt(end)

    def _adopt(self, end: socket.socket) -> None:
        adopting = Adopting(self._serving.factory_of, UNCOLLECTED, self._moved)
        adopting.is_closed = self._is_closed
        self._adopting[adopting] = awaited = self._serving.doors.awaited
        lost = partial(self._adopted, adopting)
        handlers: dict[str, Callable[..., object]] = {
            **adopting.handlers,
            "adopt_flows": self._adopt_flows,
            "end_flows": self._end_flows,
            "flows_done": partial(self._serving.doors.flows_are_here, awaited),
        }
        adopting.channel = self._channel(end, handlers, lost)

    def _adopt_flows(
        self, descriptors: Sequence[int] = (), flows: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any]:
        """Go on with flows of datagrams, if this is the process that reads them."""
        from txmux.datagrams.handover import adopt_flows  # noqa: PLC0415 - only who has a port for them has imported it

        serving = self._serving
        if self._is_closed:
            for descriptor in descriptors:
                os.close(descriptor)
            return {"taken": []}

        def find(listener: str, place: str) -> tuple[MuxFactory, DatagramPort] | None:
            port = serving.doors.reader_at(place)
            return None if port is None else (serving.factory_of(listener), port)

        return adopt_flows(descriptors, flows, find)

    def _end_flows(self, reasons: dict[str, Any]) -> None:
        from txmux.datagrams.handover import end_flows  # noqa: PLC0415 - as above

        end_flows(self._serving.connections(), reasons)

    def takers(self) -> list[socket.socket]:
        """Give an end of a pair of sockets, at the other end of which this process takes over connections."""
        own, far = socket.socketpair()
        self._adopt(far)
        return [own]

    def _adopted(self, adopting: Adopting) -> None:
        awaited = self._adopting.pop(adopting, 0)
        adopting.lost()
        if awaited not in self._adopting.values():
            self._serving.doors.flows_are_here(awaited)
        self._moved()

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
            return await self.hand_over(sockets_of(descriptors))

        async def take(descriptors: Sequence[int]) -> None:
            await self.adopt(sockets_of(descriptors))

        return {"pause": self.pause, "accept": self.accept, "hand_over": give, "take_over": take}


class Workers:
    """Other processes serve.

    Args:
        pool: Has them; there may be others later.
        accepting: Whether they accept clients.

    Attributes:
        accepting: As above; for those that are started later, too.
    """

    def __init__(self, pool: Pool, *, accepting: bool) -> None:
        self._pool = pool
        self._flows_are_here: Callable[[], None] = lambda: None
        self.accepting = accepting

    @property
    def processes(self) -> int:
        """How many."""
        return len(self._pool.workers)

    @property
    def holders(self) -> int:
        """How many have connections."""
        return len(self._pool.all())

    async def pause(self) -> None:
        """Leave new clients in the queues; see `Exchange`."""
        self.accepting = False
        await self._tell_all("pause")

    async def accept(self) -> None:
        """Accept clients."""
        self.accepting = True
        self._pool.share_datagrams()  # before flows of another process come
        await self._tell_all("accept")

    def await_flows(self, *, on: bool) -> None:
        """Keep what unknown clients say by datagrams, or no more; see `Exchange`."""
        if on:
            self._flows_are_here = self._pool.await_flows()
        else:
            self._flows_are_here()

    def expect(self, servers: Iterable[Told]) -> None:
        """Do nothing: each worker has limits of its own, and nobody knows who gets which connection."""

    async def _tell_all(self, kind: str) -> None:
        # The others are told when they are ready, like the successor of one that is gone.
        ready = [worker for worker in self._pool.workers if worker.ready]
        asked = [worker.ask(kind, seconds=_PATIENCE) for worker in ready]
        for problem in [await _outcome(answer) for answer in asked]:
            if isinstance(problem, ChannelError) and not isinstance(problem, GoneError):
                raise problem

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Let others go on with the connections that can be moved; see `Exchange`."""
        return sum(await _share(self._pool.reader_first(self._pool.all()), "hand_over", ends))

    async def adopt(self, ends: Sequence[socket.socket]) -> None:
        """Go on with connections that come over each of these; they are closed."""
        await _share(self._pool.reader_first(self._pool.workers), "take_over", ends)


class Together:
    """What serves, and what serves no more and keeps connections.

    Args:
        serving: The one.
        keeping: The others.
    """

    def __init__(self, serving: Exchange, keeping: Sequence[Exchange]) -> None:
        self._serving = serving
        self._all = [serving, *keeping]
        self.pause = serving.pause
        self.accept = serving.accept
        self.adopt = serving.adopt
        self.expect = serving.expect
        self.await_flows = serving.await_flows

    @property
    def processes(self) -> int:
        """How many serve."""
        return self._serving.processes

    @property
    def holders(self) -> int:
        """How many have connections."""
        return sum(one.holders for one in self._all)

    async def hand_over(self, ends: Sequence[socket.socket]) -> int:
        """Let others go on with the connections of all that can be moved; see `Exchange`."""
        # Each process has one end, or more.
        owners = [one for one in self._all for _ in range(one.holders)]
        shares: dict[Exchange, list[socket.socket]] = {}
        for owner, end in zip(cycle(owners), ends, strict=False):
            shares.setdefault(owner, []).append(end)
        moving = [Deferred.fromCoroutine(one.hand_over(share)) for one, share in shares.items()]
        return sum(await gatherResults(moving))


async def _share(workers: Sequence[Worker], kind: str, ends: Sequence[socket.socket]) -> list[Any]:
    """Give each worker its share of the ends."""
    asked = []
    for number, worker in enumerate(workers):
        descriptors = [end.fileno() for end in ends[number :: len(workers)]]
        if descriptors:
            asked.append(worker.ask(kind, seconds=_MOVING, descriptors=descriptors))
    for end in ends:
        end.close()  # each was duplicated
    outcomes = [await _outcome(answer) for answer in asked]
    for problem in outcomes:
        if isinstance(problem, ChannelError):
            _log.warn("a worker can exchange no connections: {why}", why=problem)
    return [answer for answer in outcomes if not isinstance(answer, ChannelError)]


class WithEndpoints:
    """The service's own endpoints are paused with what serves.

    Args:
        exchange: Of what serves.
        endpoints: Of the service.
    """

    def __init__(self, exchange: Exchange, endpoints: Endpoints) -> None:
        self._exchange = exchange
        self._endpoints = endpoints
        self.hand_over = exchange.hand_over
        self.adopt = exchange.adopt
        self.expect = exchange.expect
        self.await_flows = exchange.await_flows

    @property
    def processes(self) -> int:
        """How many."""
        return self._exchange.processes

    @property
    def holders(self) -> int:
        """How many have connections."""
        return self._exchange.holders

    async def pause(self) -> None:
        """Leave new clients of both in the queues; see `Exchange`."""
        self._endpoints.pause()
        await self._exchange.pause()

    async def accept(self) -> None:
        """Accept clients."""
        self._endpoints.accept()
        await self._exchange.accept()


async def _outcome(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except ChannelError as problem:
        return problem
