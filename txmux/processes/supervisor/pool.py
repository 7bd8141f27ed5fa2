"""The workers of a service: those that serve, and retiring ones, whose connections to servers count for the limits of the others."""

import itertools
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.classes import define
from txmux.control.attention import NONE_ANSWERS, NONE_SERVES
from txmux.control.broadcast import broadcast
from txmux.control.conditions import Conditions
from txmux.control.overrides import WorkersCondition
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.net.channel.message import Message
from txmux.processes.supervisor.moving import Takers, WorkerHandover
from txmux.processes.supervisor.worker import Worker
from txmux.rules.model import Backend, Rules
from txmux.telemetry.attention import OF_FEW
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.steps import RecurringSteps

STARTING = 60.0
"""Seconds that workers may take to start, and longer while they are about to serve."""

_LOOK_AT_START = 1.0  # seconds between two looks at whether they still are

_FLOWS_MOVED = 5.0  # seconds; as long as a port waits for flows of another process


_LOOK = 1.0
"""Seconds between two looks at what workers do."""
_WHOLE = 0.5
"""Seconds to wait for a signal that was sent to all processes of the service."""
_MAX_CONNECTIONS = attrgetter("max_connections")


class WorkersError(MuxError):
    """Workers cannot be started, or one could not start."""


async def failures(requests: Mapping[Worker, Deferred[Any]]) -> list[str]:
    """Return the errors of failed workers; one that has ended did not fail, since its successor starts with the new rules."""
    answers = await DeferredList([*requests.values()], consumeErrors=True)
    failed: dict[str, list[str]] = {}
    for worker, (answered, answer) in zip(requests, answers, strict=True):
        if not answered and not answer.check(PeerGoneError):
            failed.setdefault(answer.getErrorMessage(), []).append(str(worker.number))
    return [f"worker {', '.join(numbers)}: {why}" for why, numbers in failed.items()]


def _name_of_look(worker: Worker) -> str:
    return f"look at worker {worker.number}"


@define(eq=False, slots=False)
class WorkerPool:
    """Keeps a given number of workers running.

    Args:
        on_look: Called after each look.
        recurring: Runs what is done each second.

    Attributes:
        accepting: Whether workers accept clients, now and when they are started.
        changes: Checked each second, and when a worker has begun to serve, has ended, or stays after all.
        workers: The workers that serve, or will.
        retiring: The workers that end after their last connection.
        added: The workers started for rules that are not in force yet.
    """

    _log = Logger()
    accepting = True

    _make: Callable[[int], Worker]
    _reactor: Any
    _on_look: Callable[[], object] = lambda: None
    recurring: RecurringSteps = attrs.field(factory=RecurringSteps)
    changes: Conditions = attrs.field(factory=Conditions, init=False)
    workers: list[Worker] = attrs.field(factory=list, init=False)
    retiring: list[Worker] = attrs.field(factory=list, init=False)
    added: list[Worker] = attrs.field(factory=list, init=False)
    # By successor.
    _replaced: dict[Worker, Worker] = attrs.field(factory=dict, init=False)
    _accept_pending: set[Worker] = attrs.field(factory=set, init=False)
    _reads: Worker | None = attrs.field(default=None, init=False)
    _awaits_flows: object = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._looking = LoopingCall(self._look)
        self._looking.clock = self._reactor

    def watch(self) -> None:
        self._looking.start(_LOOK, now=False)

    def stop_watching(self) -> None:
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        for worker in self.all():
            self.recurring.run(_name_of_look(worker), worker.look)
        self.changes.check()
        self.recurring.run("do what is due each second", self._on_look)

    def all(self) -> list[Worker]:
        return [*self.workers, *self.added, *self.retiring]

    def ready(self) -> list[Worker]:
        return [worker for worker in self.all() if worker.ready]

    @property
    def leaving(self) -> set[Worker]:
        """The workers that accept no clients, or not for long, since one that takes their place is ready."""
        replaced = {old for successor, old in self._replaced.items() if successor.ready}
        return replaced.union(self.retiring)

    def process_ended(self, pid: int, status: int) -> None:
        for worker in self.all():
            if worker.pid == pid:
                worker.process_ended(status)

    def is_served(self) -> bool:
        return any(worker.ready for worker in self.workers)

    def are_ready(self) -> bool:
        return all(worker.ready for worker in self.workers)

    def is_starting(self) -> bool:
        return any(worker.is_starting for worker in self.workers)

    def lives(self) -> bool:
        """Whether clients are served, or will be, and no worker hangs without being replaced."""
        are_replaced = any(successor.ready or successor.is_starting for successor in self._replaced)
        hang = any(worker.hangs for worker in self.workers)
        return (are_replaced or not hang) and (self.is_served() or self.is_starting())

    def condition(self, *, is_changing: bool = False) -> WorkersCondition:
        """Return what of the workers needs attention; `is_changing` if some are about to accept clients."""
        ready = [worker for worker in self.workers if worker.ready]
        return WorkersCondition(
            none_serves=not ready and not self.is_starting(),
            is_unsettled=is_changing or not self._accept_pending.isdisjoint(ready),
            none_answers=bool(ready) and all(worker.is_silent for worker in ready),
            silent=[(worker.number, worker.pid) for worker in self.all() if worker.is_silent],
        )

    def reuse_retiring(self, count: int, able: Collection[Worker]) -> list[Worker]:
        """Return retiring workers to service where possible, and return these."""
        missing = max(0, count - len(self.workers))
        ready = [
            worker for worker in reversed(self.retiring) if worker in able and worker.can_return
        ]
        again = ready[:missing]
        for worker in again:
            worker.send(messages.LEAVE_DATAGRAMS)  # until `share_datagrams` chooses the reader
            self.retiring.remove(worker)
            self.workers.append(worker)
            worker.serve_again()
        return again

    def resize(self, count: int) -> None:
        """Set the number of workers; surplus ones retire."""
        replaced = [*self._replaced.values()]
        self._replaced.clear()
        unneeded = []
        while len(self.workers) > count:
            # First the workers that are not ready yet.
            worker = min(reversed(self.workers), key=lambda candidate: candidate.ready)
            self.workers.remove(worker)
            self.retiring.append(worker)
            unneeded.append(worker)
        self.retire(unneeded)
        while len(self.workers) < count:
            self._start_one(self.workers)
        for worker in replaced:
            self.replace(worker)

    def _start_one(self, among: list[Worker]) -> Worker:
        # It joins the list before it starts: `Supervisor.start_message` depends on that.
        worker = self._make(self.free_number())
        worker.has_served = worker.has_served and among is not self.added
        among.append(worker)
        worker.start()
        return worker

    def free_number(self) -> int:
        numbers = {worker.number for worker in self.all()}
        return min(set(range(1, len(numbers) + 2)) - numbers)

    def add(self, count: int) -> None:
        for _ in range(count):
            self._start_one(self.added)

    def admit(self) -> None:
        self.workers += self.added
        self.added = []

    def drop_added(self) -> None:
        dropped, self.added = self.added, []
        self.retiring += dropped
        for worker in dropped:
            worker.retire()

    def leave(self) -> list[Worker]:
        """Make all workers retiring ones, and return them for their `stop`."""
        self._replaced.clear()
        self.drop_added()
        leaving, self.workers = self.all(), []
        self.retiring = [*leaving]
        self.changes.check()
        return leaving

    async def give_away(self) -> None:
        """Leave all workers to another supervisor, which has adopted them, once all has come that they have sent to this one."""
        await broadcast(self.ready(), messages.PING, seconds=_FLOWS_MOVED, if_late="skip")
        self._replaced.clear()
        for worker in self.all():
            worker.give_away()
        self.workers, self.added, self.retiring = [], [], []

    def _count_own(self) -> int:
        return sum(not worker.is_adopted for worker in self.all())

    def replace_soon(self, worker: Worker, most: Callable[[], int]) -> None:
        """Replace a worker that has received a signal, unless the whole service has.

        If there are `most` own workers by then, it ends with its connections before it is replaced.
        """

        def replace() -> None:
            if not self.workers:
                return  # the service is shutting down
            if self._count_own() < most():
                self.replace(worker)
            else:
                worker.send(messages.STOP, longest_wait=0)

        self._reactor.callLater(_WHOLE, replace)

    def replace(self, worker: Worker) -> None:
        """Start another worker; when that serves, this one retires."""
        if worker in self.workers and worker not in self._replaced.values():
            successor = self._start_one(self.workers)
            self._replaced[successor] = worker
            log = self._log.error if worker.hangs else self._log.info
            log(
                "worker {number} {why}; worker {successor} takes its place",
                number=worker.number,
                why=worker.hangs or "was asked to end",
                successor=successor.number,
            )

    def replace_hung(self, worker: Worker, why: str, most: int) -> bool:
        """Replace a worker that hangs, unless another one is being replaced; return whether its successor is started.

        It keeps its clients until the successor serves, and moves them if it has recovered by then. If there are `most` own workers already,
        it is killed first.
        """
        others = [other for other in self.workers if other is not worker]
        if worker in self._replaced:  # it has no clients yet
            worker.kill_hung(why, ", and another one is started at once")
            return False
        if self._replaced or not all(other.ready for other in others):
            return False
        if self._count_own() >= most:
            worker.kill_hung(why, ", and another one is started at once")
            return False
        self.replace(worker)
        return True

    def start_accepting(self, worker: Worker) -> None:
        self._accept_pending.add(worker)

        def answered(_: object) -> None:
            self._accept_pending.discard(worker)
            self.changes.check()

        accepting = worker.ask(messages.ACCEPT, seconds=None)
        accepting.addCallbacks(lambda _: self._retire_replaced(worker), lambda _: None)
        accepting.addBoth(answered)

    async def answered(self, asked: Mapping[Worker, Deferred[Any]]) -> list[Worker]:
        """Wait for the answers of all these workers but the halted ones, which are returned."""
        answers = DeferredList([*asked.values()])
        answers.addCallback(lambda _: self.changes.check())
        await self.changes.until(
            lambda: all(answer.called or worker.is_halted for worker, answer in asked.items())
        )
        return [worker for worker in asked if worker.is_halted]

    def serving(self) -> Deferred[None]:
        return self.changes.until(
            lambda: self.are_ready() and not self._accept_pending.intersection(self.workers)
        )

    async def wait_for_start(
        self, started: Deferred[None], workers: Callable[[], Sequence[Worker]]
    ) -> None:
        """Wait until workers have started; a `TimeoutError` if they have not in a minute, and are not about to."""
        later: IDelayedCall

        def look() -> None:
            nonlocal later
            if all(worker.ready or worker.is_starting for worker in workers()):
                later = self._reactor.callLater(_LOOK_AT_START, look)
            else:
                started.cancel()

        later = self._reactor.callLater(STARTING, look)
        try:
            await started
        except defer.CancelledError:
            raise defer.TimeoutError from None
        finally:
            if later.active():
                later.cancel()

    def share_datagrams(self) -> None:
        """Make one worker read all datagrams, since a flow belongs to one process."""
        ready = [worker for worker in self.workers if worker.ready]
        if self._reads not in ready:
            # The flows that move to it would have to move again from one that is replaced.
            replaced = self._replaced.values()
            self._reads = min(ready, key=lambda worker: worker in replaced, default=None)
            if self._awaits_flows and self._reads is not None:
                self._reads.send(messages.AWAIT_FLOWS)
        for worker in ready:  # all, since any may be a new process
            worker.send(
                messages.TAKE_DATAGRAMS if worker is self._reads else messages.LEAVE_DATAGRAMS
            )

    def await_flows(self) -> Callable[[], None]:
        """Make workers hold datagrams of unknown clients, whose flows may come from another process.

        The returned function ends this, unless other flows are awaited by then.
        """
        self._awaits_flows = these = object()
        for worker in self.all():  # retiring ones may be about to serve again
            worker.send(messages.AWAIT_FLOWS)

        def are_here() -> None:
            if self._awaits_flows is these:
                self._awaits_flows = None
                for worker in self.all():
                    worker.send(messages.FLOWS_ARE_HERE)

        return are_here

    async def flows_moved(self, able: Collection[Worker]) -> None:
        """Wait until no flows of datagrams are moving between these workers.

        Otherwise a worker would hand over only those that have arrived, and report that these were all.
        """
        reader = self._reads
        if reader is not None and reader in able:
            with suppress(ChannelError):  # the reader may have ended
                await reader.ask(messages.FLOWS_MOVED, seconds=_FLOWS_MOVED)

    async def flows_left(self) -> list[str] | None:
        """Return the keys of closed ports that still have flows in some worker; ``None`` if one does not answer."""
        answers = await broadcast(self.ready(), messages.FLOWS_LEFT, if_late="skip")
        return None if answers.missing else [*itertools.chain(*(keys for _, keys in answers))]

    def fetch_flows(self, ports: Collection[str]) -> Callable[[], None]:
        """Make workers await the flows of ports that are about to be opened again, if there are any.

        The returned function, for when they are open, has retiring workers hand over, which read these sockets themselves.
        """
        are_here = self.await_flows() if ports else None

        def fetch() -> None:
            if are_here is None:
                return
            have = [worker for worker in self.retiring if worker.ready]
            handovers = [WorkerHandover(worker, self, lambda: False) for worker in have]
            DeferredList([one.done for one in handovers]).addCallback(lambda _: are_here())

        return fetch

    def retire(self, workers: Sequence[Worker], to: Takers | None = None) -> list[WorkerHandover]:
        """End workers when their connections have moved to those that serve, here or in another service, or have ended."""
        if not workers:
            return []
        ready = [worker for worker in workers if worker.ready]
        reader = self._reads
        for worker in workers:
            worker.retire()
        are_here = self.await_flows() if reader in ready else None
        # Before the connections move, since the next reader has to await the flows.
        self.share_datagrams()
        handovers = [
            WorkerHandover(worker, to or self, lambda one=worker: one in self.retiring)  # type: ignore[misc]
            for worker in ready
        ]
        for worker, handover in zip(ready, handovers, strict=True):
            if are_here is not None and worker is reader:
                handover.done.addCallback(lambda _: are_here())
        return handovers

    def _retire_replaced(self, worker: Worker) -> None:
        replaced = self._replaced.pop(worker, None)
        if replaced in self.workers:
            self.workers.remove(replaced)
            self.retiring.append(replaced)
            self.retire([replaced])
        self.share_datagrams()

    @property
    def takers(self) -> int:
        return len(self._answering())

    def _answering(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.ready and worker.answers]

    def pass_ends(self, ends: Sequence[socket.socket], offered: int) -> None:
        each = -(-offered // max(1, len(ends)))
        for worker, end in zip(self._answering(), ends, strict=False):
            # On failure, the other end finds its channel closed.
            taking = worker.ask(messages.TAKE_OVER, descriptors=[end.fileno()], offered=each)
            taking.addErrback(lambda _: None)

    def settled(self) -> Deferred[None]:
        """Wait until no retiring worker is unready or about to end."""
        return self.changes.until(
            lambda: all(worker.ready and not worker.is_leaving for worker in self.retiring)
        )

    def retired(self, worker: Worker) -> None:
        self.retiring.remove(worker)
        self.recurring.forget(_name_of_look(worker))
        self.changes.check()

    def send_to_all(self, message: Message, **values: Any) -> None:
        for worker in self.all():
            worker.send(message, **values)

    async def missing(self) -> list[str]:
        if not self.is_served():
            return [NONE_SERVES]
        answers = await broadcast(self.workers, messages.MISSING, if_late="skip")
        reports: list[list[str]] = [lines for _, lines in answers]
        if not reports:
            return [NONE_ANSWERS]
        # By section, since workers may have different reasons.
        every = sorted(itertools.chain(*reports), key=lambda line: line.endswith(OF_FEW))
        lines = {line.partition(": ")[0]: line for line in every}
        by_worker = [{line.partition(": ")[0] for line in report} for report in reports]
        everywhere = by_worker[0].intersection(*by_worker[1:])
        # A listener is served if one worker accepts its clients: others may be new.
        return [
            line
            for section, line in lines.items()
            if section in everywhere or not section.startswith("[listen ")
        ]

    async def status(self) -> dict[str, Any]:
        workers = self.all()
        # A starting worker does not answer, and has no connections.
        answers: dict[int, dict[str, Any]] = {
            worker.number: {} for worker in workers if not worker.ready
        }
        ready = [worker for worker in workers if worker.ready]
        reports = await broadcast(ready, messages.STATUS, if_late="skip")
        answers.update(reports)
        for worker in ready:
            worker.report_answered(answered=worker.number in answers)
        rows: list[dict[str, Any]] = [
            {
                "worker": worker.number,
                "number": worker.number,
                "pid": worker.pid,
                "ready": worker.ready,
                "retiring": worker in self.retiring,
                "sandbox": worker.is_confined,
                "connections": None if answer is None else answer.get("active", 0),
                **(answer or {}),
            }
            for worker in workers
            for answer in [answers.get(worker.number)]
            if worker in self.all()
        ]
        sums = {
            name: sum(row.get(name, 0) for row in rows) for name in ("active", "undecided", "older")
        }
        return {**sums, "workers": rows}


class ServersElsewhere:
    """Tells the workers that serve what retiring ones and processes of earlier upgrades have, by their counters.

    Each worker has the limits of servers and backends for itself, so each gets an equal part.
    """

    def __init__(
        self, pool: WorkerPool, counters: Counters, rules_in_force: Callable[[], Rules]
    ) -> None:
        self._pool = pool
        self._counters = counters
        self._rules_in_force = rules_in_force
        self._rules: Rules | None = None
        self._limited: list[Backend] = []
        self._sent: dict[int, list[dict[str, Any]]] = {}  # by the worker's process ID

    def share(self) -> None:
        """Send each worker its part, where it has changed; to be called each second, and before a worker accepts clients."""
        rules = self._rules_in_force()
        if rules is not self._rules:
            self._rules, self._limited = rules, [*filter(_is_limited, rules.every_backend())]
        leaving = self._pool.leaving
        workers = [one for one in self._pool.workers if one.ready and one not in leaving]
        if not workers or not (self._limited or any(self._sent.values())):
            return
        names = [
            (backend.name, server.text) for backend in self._limited for server in backend.servers
        ]
        counts = self._counters.connections_elsewhere(names, {worker.number for worker in leaving})
        sent, self._sent = self._sent, {}
        for place, worker in enumerate(workers):
            rows = [
                {"backend": backend, "server": server, "connections": part}
                for (backend, server), count in counts.items()
                if (part := (count + len(workers) - 1 - place) // len(workers))
            ]
            self._sent[worker.pid] = rows
            if rows != sent.get(worker.pid, []):
                worker.send(messages.EXPECT, servers=rows)


def _is_limited(backend: Backend) -> bool:
    return bool(backend.max_connections) or any(map(_MAX_CONNECTIONS, backend.servers))
