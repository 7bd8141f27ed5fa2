"""Gives the workers of a service to the next one, which retires them: what each side does with them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater

from txmux.classes import frozen
from txmux.control.broadcast import broadcast
from txmux.control.report import Report
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError
from txmux.processes.supervisor.adopted import CUT_OFF, AdoptedWorker
from txmux.processes.supervisor.moving import (
    LONGEST_WAIT,
    Takers,
    WorkerHandover,
    could_move,
    staying,
    total,
)
from txmux.processes.supervisor.pool import failures
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.processes.supervisor.worker import Worker

_COUNTING = 10.0
"""Seconds that a worker may take to go through very many connections."""
LONGEST = 60.0
"""Seconds that the report waits for connections to move."""
_PROMPT = 1.0
"""Seconds that a worker may take to answer; one that hangs accepts no clients either."""
_STILL = 10.0
"""The same, while none does."""
_GRACE = 5.0
"""Seconds that an adopted worker has to exit, after the time limit of its connections."""


class GivingError(MuxError):
    """Workers cannot be given to another supervisor."""


@frozen
class Moved:
    """What has become of the connections of an old process.

    Attributes:
        moved: How many have moved.
        stays: How many have not, by the reason.
        ended: A sentence for each worker that has ended meanwhile.
        is_over: Whether no further one is about to move.
        stays_of: As `stays`, by the ID of each old worker's process; older versions do not report it.
    """

    moved: int
    stays: Mapping[str, int]
    ended: Sequence[str] = ()
    is_over: bool = True
    stays_of: Mapping[str, Mapping[str, int]] = {}

    @classmethod
    def by(cls, handovers: Sequence[WorkerHandover]) -> Moved:
        return cls(
            sum(handover.moved for handover in handovers),
            total(handover.stays for handover in handovers),
            [handover.ended for handover in handovers if handover.ended],
            all(handover.done.called for handover in handovers),
            {str(handover.process): dict(handover.stays) for handover in handovers},
        )

    def report(
        self, pid: int, seconds: float, left: Callable[[int], float], more: Sequence[str]
    ) -> Report:
        """Describe what has moved, for the answer to the upgrade; `left` returns the seconds that are left to a worker, by its process."""
        stays_of = self.stays_of or {"0": self.stays}
        text, until = staying((stays, left(int(old))) for old, stays in stays_of.items())
        changes = (
            f"process {pid} serves from now on; "
            f"connections handed over: {self.moved}, in {1000 * seconds:.0f} ms{text}"
        )
        if not self.is_over:
            changes += "; those not taken are offered again until then"
        changes = "; ".join([changes, *self.ended, *more])
        is_complete = not (self.ended or could_move(self.stays))
        details = {"moved": self.moved, "stays": dict(self.stays), "until": until}
        return Report(ok=True, changes=changes, details={**details, "complete": is_complete})


class WorkerTransfers:
    """The workers of a service in an upgrade; `drain_timeout` is that of its rules."""

    def __init__(self, supervisor: Supervisor, drain_timeout: float = 0.0) -> None:
        self._supervisor = supervisor
        self._drain_timeout = drain_timeout
        self._pool = supervisor.pool
        self._flows_are_here: Callable[[], None] = lambda: None
        self._are_stopped = False

    @property
    def processes(self) -> int:
        return len(self._pool.workers)

    async def would_stay(self) -> Report:
        """Report how many connections an upgrade would move now, and how many would stay, by the reason."""
        answers = await broadcast(
            self._pool.ready(), messages.WOULD_STAY, seconds=_COUNTING, if_late="skip"
        )
        moves = sum(counts["moves"] for _, counts in answers)
        stays = total(counts["stays"] for _, counts in answers)
        processes = {worker.number: worker.pid for worker in self._pool.all()}
        text, until = staying(
            (counts["stays"], self.seconds_left(processes.get(number, 0)))
            for number, counts in answers
        )
        details = {"moves": moves, "stays": stays, "until": until, "incomplete": [*answers.missing]}
        changes = f"connections that an upgrade would hand over: {moves}{text}"
        changes = "; not counted: ".join([changes, *answers.missing])
        return Report(ok=True, changes=changes, details=details)

    # In the old process.

    def seconds_left(self, pid: int) -> float:
        """Return for how long a worker that is replaced now keeps connections; one of an earlier upgrade has less time."""
        longest = self._drain_timeout
        of_it = (worker for worker in self._pool.all() if worker.pid == pid)
        return next((worker.seconds_left(longest) for worker in of_it), longest)

    def ended_workers(self) -> list[tuple[float, int, str]]:
        return [*self._supervisor.state.ended_workers]

    async def give(self) -> tuple[list[Mapping[str, Any]], list[socket.socket], list[int]]:
        """Let another supervisor take all workers over: return what it has to know of each, its end of a channel to each, and their files.

        From now on, workers that are started accept no clients; the old ones do so until the other supervisor has them retire.
        """
        await self._pool.flows_moved(self._pool.ready())
        self._pool.accepting = False
        attaching, given = dict[Worker, Deferred[Any]](), dict[Worker, tuple[int, socket.socket]]()
        with ExitStack() as undo:
            # The other supervisor has told the workers nothing.
            undo.callback(setattr, self._pool, "accepting", True)  # noqa: FBT003 - as for `setattr`
            for worker in self._pool.ready():
                own, other = socket.socketpair()
                undo.callback(other.close)
                with own:
                    attaching[worker] = worker.attach(own)
                given[worker] = worker.pid, other
            if failed := await failures(attaching):
                raise GivingError("; ".join(failed))
            rows, ends, files = list[Mapping[str, Any]](), list[socket.socket](), list[int]()
            for worker, (pid, end) in given.items():
                # It has ended meanwhile; its file is closed.
                if not worker.ready or worker.pid != pid:
                    end.close()
                    continue
                ends.append(end)
                rows.append(worker.to_be_adopted(self._drain_timeout))
                if worker.column is not None and worker.column.descriptor is not None:
                    files.append(worker.column.descriptor)
            undo.pop_all()
        return rows, ends, files

    async def hand_over(
        self, to: Takers, left_out: Collection[str], removed: Sequence[str]
    ) -> list[WorkerHandover]:
        """Hand over to a process that adopts no workers."""
        self._pool.accepting = False
        return await self.retire(self._pool.leave(), left_out, removed, to)

    async def take_back(self) -> None:
        """Undo `give`; also if the other supervisor has had workers close their ports."""
        if not self._pool.accepting:
            for worker in self._pool.ready():
                self._lend_opener(worker)
            self._supervisor.take_back()
        await self.accept()

    # In the new one.

    async def accept(self) -> None:
        """Make all workers accept clients; it is a `ChannelError` if one does not answer, and does not work either."""
        self._pool.accepting = True
        self._supervisor.limits.forget_elsewhere()  # which the process that owned them will not do
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

    def adopt(
        self, rows: Sequence[Mapping[str, Any]], ends: Sequence[socket.socket], reactor: Any
    ) -> list[Worker]:
        """Adopt the workers of another process, by its `give`."""
        supervisor, pool = self._supervisor, self._pool
        adopted: list[Worker] = []
        for row, end in zip(rows, ends, strict=True):
            worker = AdoptedWorker(supervisor, pool.free_number(), reactor, end, row)
            pool.retiring.append(worker)
            adopted.append(worker)
            self._lend_opener(worker)
        return adopted

    async def retire(
        self,
        workers: Sequence[Worker],
        left_out: Collection[str],
        removed: Sequence[str],
        to: Takers | None = None,
    ) -> list[WorkerHandover]:
        """Stop workers from accepting clients, and move their connections as soon as others take them.

        Where the new rules do not listen, they accept who waits first; see `Worker.give_up`.
        """
        await gatherResults([worker.give_up(left_out, removed) for worker in workers])
        handovers = self._pool.retire(workers, to)
        # What they have accepted by now counts for the limits of servers, before others accept.
        await broadcast(workers, messages.PING, seconds=_PROMPT)
        return handovers

    def _lend_opener(self, worker: Worker) -> None:
        """Send the opener of this supervisor to a worker that has opened files by another one."""
        with self._supervisor.connect_to_opener() or nullcontext() as opener:
            if opener is not None:
                asking = worker.ask(messages.OPENER, seconds=None, descriptors=[opener.fileno()])
                asking.addErrback(lambda _: None)  # it has ended

    def _adopted(self) -> list[AdoptedWorker]:
        return [one for one in self._pool.retiring if isinstance(one, AdoptedWorker)]

    async def check_adopted(self, reactor: Any) -> None:
        """Raise a `ChannelError` if an adopted worker lives, and cannot be reached: the old process still can."""
        if any(worker.is_cut_off for worker in self._adopted()):
            await deferLater(reactor, CUT_OFF)
        for worker in self._adopted():
            if worker.is_cut_off:
                raise ChannelError(f"the old worker {worker.pid} has closed its channel")

    def keep_adopted(self) -> None:
        for worker in self._adopted():
            worker.keep()

    def stop_adopted(self, reactor: Any) -> None:
        """End adopted workers after their last connections, and these after the time that the rules give them."""
        if self._are_stopped:
            return
        self._are_stopped = True
        for worker in self._adopted():
            seconds = worker.drain_timeout + LONGEST_WAIT + _GRACE
            kill = reactor.callLater(seconds, worker.kill)
            worker.stop(LONGEST_WAIT).addCallback(_cancel, kill)


def close(ends: Sequence[socket.socket]) -> None:
    for end in ends:
        end.close()


def _cancel(_: object, call: Any) -> None:
    if call.active():
        call.cancel()


async def settled(
    handovers: Sequence[WorkerHandover], is_over: Deferred[Any], reactor: Any
) -> Moved:
    all_done = DeferredList([handover.done for handover in handovers])
    done: Deferred[Any] = DeferredList([all_done, is_over], fireOnOneCallback=True)
    moved, end = -1, reactor.seconds() + LONGEST
    while not done.called and reactor.seconds() < end:
        have = sum(handover.moved for handover in handovers)
        if have == moved and all(handover.rounds for handover in handovers):
            break
        moved = have
        pause: Deferred[Any] = deferLater(reactor, _STILL)
        await DeferredList([done, pause], fireOnOneCallback=True, consumeErrors=True)
        pause.cancel()
    return Moved.by(handovers)
