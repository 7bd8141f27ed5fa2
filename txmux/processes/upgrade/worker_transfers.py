"""Moves clients and connections between the workers of two services in an upgrade."""

import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

from twisted.internet.defer import gatherResults

from txmux.control.broadcast import broadcast
from txmux.control.report import Report
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError
from txmux.processes.workers.moving import Takers, WorkerHandover, staying, total
from txmux.processes.workers.pool import WorkerPool, failures
from txmux.processes.workers.worker import Worker
from txmux.serving.store import ListeningSockets

_COUNTING = 10.0
"""Seconds that a worker may take to go through very many connections."""
_PROMPT = 1.0
"""Seconds that a worker may take to answer; one that hangs accepts no clients either."""


async def _leave_nothing(_: object) -> None:
    pass


class WorkerTransfers:
    """Passes the steps of an upgrade to all workers.

    Attributes:
        accepting: Whether workers accept clients, now and when they are started.
        able: The workers that answered when all were paused.
        leave_elsewhere: Has the process that this one has replaced close removed sockets, by their keys.
        left_out: The keys of addresses at which no worker may listen, since the new process does not.
    """

    def __init__(self, pool: WorkerPool, sockets: ListeningSockets, *, accepting: bool) -> None:
        self._sockets = sockets
        self.left_out: Collection[str] = ()
        self._of_datagrams: Sequence[str] = ()
        self._pool = pool
        self.able: Sequence[Worker] = []
        self._flows_are_here: Callable[[], None] = lambda: None
        self.accepting = accepting
        self.leave_elsewhere: Callable[[Sequence[str]], Awaitable[object]] = _leave_nothing

    @property
    def processes(self) -> int:
        return len(self._pool.workers)

    async def pause(self) -> None:
        """Make all workers leave new clients in the queues."""
        # Hanging workers are found first, while all accept, so that no client waits for one.
        ready = [worker for worker in self._pool.all() if worker.ready]
        pongs = await broadcast(ready, messages.PING, seconds=_PROMPT)
        answered = dict(pongs)
        self.able = [worker for worker in ready if worker.number + 1 in answered]
        await self._pool.flows_moved(self.able)
        self.accepting = False
        paused = [worker for worker in self._pool.workers if worker in self.able]
        for worker in self._pool.workers:
            if worker not in paused:
                worker.send(messages.PAUSE)
        await broadcast(paused, messages.PAUSE, seconds=_PROMPT)
        await self._pool.flows_moved(self.able)  # a reader may have been replaced in between

    async def would_stay(self, drain_timeout: float) -> Report:
        """Report how many connections an upgrade would move now, and how many would stay, by the reason."""
        ready = [worker for worker in self._pool.all() if worker.ready]
        answers = await broadcast(ready, messages.WOULD_STAY, seconds=_COUNTING, if_late="skip")
        moves = sum(counts["moves"] for _, counts in answers)
        stays = total(counts["stays"] for _, counts in answers)
        text, until = staying(stays, drain_timeout)
        details = {"moves": moves, "stays": stays, "until": until, "incomplete": [*answers.missing]}
        changes = f"connections that an upgrade would hand over: {moves}{text}"
        changes = "; not counted: ".join([changes, *answers.missing])
        return Report(ok=True, changes=changes, details=details)

    async def leave_out(self, keys: Collection[str], *, is_over: bool = False) -> None:
        """Accept waiting clients where the new process does not listen, and refuse others until `listen_again`.

        Flows of datagrams continue there while this process has some. Before all flows have moved, its sockets for new ones stay, too;
        `is_over` says that these have.
        """
        left_out = [
            key for key in keys if key in self._sockets.addresses and (is_over or key[:4] != "udp:")
        ]
        self._of_datagrams = [key for key in keys if key[:4] == "udp:" and not is_over]
        self.left_out = [*dict.fromkeys([*self.left_out, *left_out])]
        ready = [worker for worker in self._pool.all() if worker.ready]
        removed = self._sockets.ended_by_removal(left_out)
        given_up = {worker: worker.give_up(left_out, removed) for worker in ready}
        await gatherResults([done for worker, done in given_up.items() if worker in self.able])
        self._sockets.refuse(left_out)

    async def leave_out_datagrams(self) -> None:
        """Close the UDP sockets that were left out until all flows had moved; a worker keeps its own while it has some."""
        if keys := self._of_datagrams:
            await self.leave_out(keys, is_over=True)

    def listen_again(self) -> bool:
        """Listen there again where possible; return whether more addresses are free than before."""
        before, self.left_out = self.left_out, self._sockets.listen_again()
        return len(before) > len(self.left_out)

    async def accept(self) -> None:
        """Make all workers accept clients; it is a `ChannelError` if one does not answer, and does not work either."""
        self.accepting = True
        self._pool.share_datagrams()  # before flows of another process come
        # Those that are not ready, like the successor of one that has ended, are asked when they are.
        ready = [worker for worker in self._pool.workers if worker.ready]
        failed = await failures(
            {worker: worker.ask_while_active(messages.ACCEPT) for worker in ready}
        )
        if failed:
            raise ChannelError("; ".join(failed))

    def await_flows(self, *, on: bool) -> None:
        """Hold datagrams of unknown clients while their flows may come from another process."""
        if on:
            self._flows_are_here = self._pool.await_flows()
        else:
            self._flows_are_here()

    def hand_over(
        self, to: Takers, is_needed: Callable[[], bool], handovers: Iterable[WorkerHandover] = ()
    ) -> list[WorkerHandover]:
        """Make all workers hand over, except those of `handovers`; one that hangs does so when it continues."""
        processes = {handover.process for handover in handovers}
        ready = [
            worker for worker in self._pool.all() if worker.ready and worker.pid not in processes
        ]
        return [WorkerHandover(worker, to, is_needed) for worker in ready]

    def adopt(self, ends: Sequence[socket.socket], offered: int) -> None:
        self._pool.take(ends, offered)
        for end in ends:
            end.close()  # each was duplicated
