"""The supervisor: starts, watches, reloads and stops the workers.

Theory of operation. The supervisor reads no byte of a client, and forks no worker.

- It owns what outlives a worker: the listening sockets, the memory of counters and limits, the health of servers, and the addresses
  of names. All workers accept from the same sockets. When a worker dies, its connections are lost, but clients in the accept queue
  are not.
- The starter forks the workers. A process with a reactor cannot be forked safely, and a new Python process starts slowly and might
  import a newer version. The starter has no state: it is restarted when it ends, and the workers continue.
- A reload has two phases. Until all workers have prepared, any failure leaves everything unchanged. After the commit there is no
  rollback: a worker that fails to commit keeps its connections under their rules, and is replaced. A worker that ends during a
  reload counts as prepared, since the worker that replaces it gets the new rules. A halted one catches up when it goes on.
- If the helper ends, the workers continue, but the service fails when it cannot replace a worker. If the supervisor ends, its workers
  stop accepting, and exit after their last connection, without a time limit.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from socket import SOCK_DGRAM
from typing import Any

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.access.across_processes import SharedLimits
from txmux.access.bans import rows_of
from txmux.backends.health.observer import ServerObserver
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.pool import no_server_up
from txmux.backends.upstreams import PreparedUpstreams, Upstreams
from txmux.client.io_runtime import IORuntime
from txmux.client.overrides import Overrides
from txmux.client.tls.terminators import PreparedTerminators, TlsTerminators, expiry_warnings
from txmux.control.broadcast import broadcast
from txmux.control.overrides import ServiceState
from txmux.control.service_files import ServiceFiles, lost_files, pack_files
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.net.sockets.descriptors import soft_limit
from txmux.net.turns import Turns, in_thread
from txmux.net.watched import RECEIVED, FilesInUse
from txmux.processes.oom import KILLS
from txmux.processes.opener import HELPER_ENDED
from txmux.processes.opening_server import OpeningServer
from txmux.processes.supervisor.adopted import AdoptedWorker
from txmux.processes.supervisor.moving import LONGEST_WAIT
from txmux.processes.supervisor.pool import (
    STARTING,
    ServersElsewhere,
    WorkerPool,
    WorkersError,
    failures,
)
from txmux.processes.supervisor.privilege import open_for_worker
from txmux.processes.supervisor.resources import Resources
from txmux.processes.supervisor.sent_rules import PendingRules, RemovedRoutes, SentRules
from txmux.processes.supervisor.starter import Starter
from txmux.processes.supervisor.worker import Worker
from txmux.processes.usable import too_many_sockets
from txmux.processes.worker import landlock
from txmux.processes.worker.sandbox import NO_LANDLOCK, Sandbox, sandbox_of
from txmux.rules.model import Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import is_as_read
from txmux.serving.listen_addresses import are_all_sockets
from txmux.serving.state import (
    VERSION,
    TransferState,
    buckets_of,
    found_by_checks,
    merged,
    restore_sources,
)
from txmux.serving.store import PreparedSockets
from txmux.telemetry.access_log import open_log
from txmux.telemetry.counting.counters import OWN
from txmux.telemetry.folding import FoldedLog
from txmux.telemetry.formatting import plural
from txmux.telemetry.steps import CommittedSteps

_GRACE = 5.0
"""Seconds that a worker has to exit, after the time limit of its connections."""

_LOOK = 5.0  # seconds between two tries to listen


class Supervisor:
    """Runs the workers; serves no clients itself.

    Args:
        reactor: This process's reactor; workers use one of the same kind.
        resources: The sockets, files and helper of the service; the caller closes them.
        failed: Called once, with the error, if a worker cannot be started.
        served: Called when all workers are ready.
        accepting: Whether ready workers accept clients immediately.
        limits: The memory of the limits of the service that this one replaces, and what is where in it.

    Attributes:
        version: The version of the rules, from 1.
        state: What workers share besides the rules: overrides, bans, and the results of health checks and look-ups of this process.
        reading_files: Held while the files for TLS of other rules are read, and until those of a reload are in force.
        older: How many connections of each worker kept older rules at the last reload, or when it had caught up.
        is_changing: Whether a reload is being prepared. Meanwhile no retiring worker exits, since the reload may reuse it.
    """

    _log = Logger()
    is_changing = False

    def __init__(
        self,
        rules: Rules,
        reactor: Any,
        resources: Resources,
        starter: Starter,
        failed: Callable[[MuxError], object],
        *,
        served: Callable[[], object],
        accepting: bool,
        limits: tuple[int, Mapping[str, Any]] | None,
    ) -> None:
        self._rules = rules
        self._reactor = reactor
        self._failed = failed
        self._served = served
        self._failing = False
        self._resources = resources
        self._sockets = resources.sockets
        self.limits = SharedLimits.of_service(
            lambda: self._rules, resources.counters.has_connections, limits
        )
        self._privilege = resources.privilege
        self._parts = resources.parts
        self._files = OpeningServer(rules.path, is_privileged=False)
        self.counters = counters = resources.counters
        self.starter = starter
        self.folded_log = FoldedLog(reactor.seconds)
        self._published_places = dict(counters.layout.places)
        self.pool = pool = WorkerPool(self._worker, reactor, self._tick, resources.recurring)
        pool.accepting = accepting
        self.servers_elsewhere = ServersElsewhere(pool, counters, lambda: self._rules)
        self._is_started = False
        self.terminators = TlsTerminators(reactor)
        self.reading_files = DeferredLock()
        self._try_again_at = 0.0
        self._pending: PendingRules | None = None
        self.catching_up: set[Deferred[None]] = set()
        self._problems: list[str] = []
        self.older: dict[Worker, int] = {}
        self._sent = SentRules()
        self._removed = RemovedRoutes(pool)
        self.version = 1
        self._deadline: IDelayedCall | None = None
        runtime = IORuntime(reactor, rules.settings.relay)
        self._names = NameResolver(
            reactor, publish=lambda names: self.pool.send_to_all(messages.NAMES, names=names)
        )
        upstreams = Upstreams(
            reactor,
            runtime.clock,
            runtime.dialler,
            publish=self._publish,
            counters=counters.column(OWN),
            names=self._names,
        )
        self._files_in_use = ServiceFiles(self.terminators, upstreams, self._send_files)
        self.state = ServiceState(
            pool.all,
            self._status,
            self._missing,
            upstreams,
            self._files_in_use,
            ServerObserver(upstreams, counters, reactor),
            resources.parts,
            troubles=resources.privilege.troubles,
            condition=lambda: pool.condition(
                is_changing=bool(self.catching_up) or not pool.accepting
            ),
            per_source=lambda: (
                self.limits.sources(reactor.seconds, self._rules.listeners)
                if pool.accepting
                else {}
            ),
        )

    def check(
        self, owner: tuple[int, int] | None = None, pem: Sequence[Mapping[str, Any]] = ({}, {})
    ) -> None:
        """Check the rules for problems that would stop every worker, before the sockets are opened.

        `owner` has the user and group IDs of the workers, if they differ from this process's; `pem` is of `txmux.serving.state`.
        """
        RECEIVED.update(lost_files(*pem))
        self.state.upstreams.add_backends(self._rules)
        self.state.lists.prepare(self._rules)
        self._check(self._rules, owner)
        self._check_room(self._rules)
        self.terminators.prepare(self._rules).commit()
        self._files_in_use.prepare(self._rules)
        self._files_in_use.commit()
        RECEIVED.clear()
        self._files.prepare(self._rules)

    def _check(self, rules: Rules, owner: tuple[int, int] | None) -> None:
        if not is_as_read(rules):
            message = "rules that are not all read from a file cannot be handed to workers; serve them by txmux.EmbeddedService"
            raise WorkersError(message)
        sandbox_of(rules)
        most = self.limits.workers
        if rules.settings.workers > most:
            message = f"workers: no more than {most} while the service runs; restart it for more"
            raise WorkersError(message)
        self._parts.prepare(rules, owner)
        if self._is_started and rules.settings.log == self._rules.settings.log:
            return  # workers say so where they cannot open it again
        access_log = open_log(rules.settings, owner=owner)
        if access_log is not None:
            access_log.close()

    def ending_certificates(self) -> list[Problem]:
        shown = [
            problem
            for backend, validity in self.state.upstreams.certificates()
            for problem in expiry_warnings(backend.section, [validity])
        ]
        return [*self.terminators.ending_certificates(self._rules), *shown]

    def start(self) -> None:
        KILLS.look()
        self.limits.extend(self._rules)
        if self._rules.settings.sandbox == "auto" and not landlock.abi():
            self._log.info("workers have no sandbox: {why}", why=NO_LANDLOCK)
        self.starter.start_forking(
            self._rules, self.pool.process_ended, self._starter_ended, self.state.note_refused_call
        )
        self.pool.resize(self._rules.settings.workers)
        self._is_started = True
        self.pool.watch()
        # Health checks and look-ups run only here, so that their number does not depend on that of the workers.
        self.state.upstreams.start()

    def _worker(self, number: int) -> Worker:
        return Worker(self, number, self._reactor, is_first=not self._is_started)

    def _starter_ended(self, how: str) -> None:
        self.state.ended_workers.append((time.monotonic(), 0, how))
        for worker in self.pool.all():
            worker.starter_ended()

    def _publish(self, backend: str, key: str, ok: bool, why: str) -> None:  # noqa: FBT001 - a message's fields
        self.pool.send_to_all(messages.CHECK, backend=backend, key=key, ok=ok, why=why)

    def report_waiting_clients(self, number: int, backend: str, *, waiting: bool) -> None:
        """Start the servers of a backend while clients of any worker wait for a server; once for all workers."""
        rules = self._pending.rules if self._pending is not None else self._rules
        if not waiting or any(served.name == backend for served in rules.every_backend()):
            self.state.upstreams.server_starter.report(backend, waiting, number)

    def sandbox(self) -> Sandbox:
        return sandbox_of(self._rules)

    def start_message(self, worker: Worker) -> dict[str, Any]:
        """Return the message that starts a worker; see `txmux.processes.worker.received_rules.Start`."""
        pending = self._pending
        if pending is not None and worker in self.pool.added:
            rules, version, worker.sockets = pending.rules, pending.version, pending.sockets
        else:
            rules, version, worker.sockets = self._rules, self.version, self._sockets.sockets()
        worker.version = version
        message: dict[str, Any] = {
            "rules": "" if rules is self.starter.inherited else self._sent.whole(rules),
            "version": version,
            "limits": attrs.asdict(self.limits.layout, recurse=False),
        }
        descriptors = [self.limits.descriptor, *map(socket.socket.fileno, worker.sockets.values())]
        message |= {"sockets": [*worker.sockets], "descriptors": descriptors}
        message["column"] = self.limits.assign(worker.number, worker.pid)
        banned = rows_of((ban.network, ban) for ban in self.state.bans)
        state = {
            **self._shared_state(self._servers()),
            "names": self._names.as_json(),
            "banned": banned,
        }
        worker.files = self._files_in_use.in_use()
        state["files"] = pack_files(worker.files)
        state["parts"] = {name: part.state() for name, part in self._parts.items()}
        return {**message, "may_lack": worker.has_served, "state": state}

    def _shared_state(
        self, servers: Iterable[Mapping[str, Any]], now: float = 0.0
    ) -> dict[str, Any]:
        return {
            "servers": [*servers],
            "wanted": self.state.overrides.as_json(now),
            "networks": self.state.lists.contents,
        }

    def _servers(self) -> list[dict[str, Any]]:
        return found_by_checks(self.state.upstreams.as_json())

    async def state_to_hand_over(self, *, again: bool) -> TransferState:
        """Return the state for the next process at an upgrade; see `txmux.serving.state`.

        With `again`, it has an earlier state, and gets only the changes of bans.
        """
        reports = await broadcast(self.pool.ready(), messages.SERVERS)
        await self._files_in_use.look_now()  # some may be lost since a moment ago
        now = time.monotonic()
        servers = merged([*(servers for _, servers in reports), self._servers()])
        return {
            **self._shared_state(servers, now),
            "version": VERSION,
            "at": now,
            "sources": buckets_of(self.limits.sources(self._reactor.seconds)),
            "names": self._names.as_json(),
            "found_at": self._names.found_at(now),
            "woken": self.state.upstreams.server_starter.as_json(),
            "removed": self._removed.rows,
            "pem": self._files_in_use.lost(),
            "bans": self.state.bans.state(now, again=again),
            "recent": self.state.recent.state(),
            "ended": [*self.state.ended_workers],
            "observed": self.state.observer.as_json(),
            "limits": self.limits.handed_over(),
        }

    def _send_files(self, in_use: Mapping[str, FilesInUse]) -> Deferred[Any]:
        return DeferredList([worker.send_files(in_use) for worker in self.pool.all()])

    def restore(self, state: TransferState) -> None:
        """Apply the state of another process, here and in all workers."""
        # The clock of all processes: ends are those that they were, however long this one took to start.
        servers, at = state.get("servers", ()), state.get("at", time.monotonic())
        if "wanted" in state:
            self.state.apply_overrides(Overrides.read(state["wanted"], at))
        self.state.lists.feed(state.get("networks", {}))
        self.state.upstreams.restore(found_by_checks(servers), knew="servers" in state)
        self.state.observer.restore(state.get("observed", ()))
        self._names.take_results(state.get("names", {}))
        self._names.take_found_at(state.get("found_at", {}), time.monotonic())
        self.state.upstreams.server_starter.restore(state.get("woken", {}))
        self._removed.rows = [*state.get("removed", self._removed.rows)]
        self._removed.commit(self._rules)
        self.state.recent.restore(state.get("recent", self.state.recent.state()))
        self.state.add_ended_workers(state.get("ended", ()))
        rows = rows_of(self.state.bans.restore(state.get("bans", {}), at))
        if self._is_started:
            self.pool.send_to_all(messages.RECALL, state=self._shared_state(servers))
            self.pool.send_to_all(messages.BAN, rows=rows)
            restore_sources(state, self.limits.sources(self._reactor.seconds))

    def connect_to_opener(self) -> socket.socket | None:
        """Return a worker's connection to the process that opens files for it; ``None`` if workers open files themselves."""
        try:
            if self._privilege.opener is not None and not self.lacks_helper():
                return self._privilege.opener.another()
            if self.sandbox() != "off":
                return open_for_worker(self._reactor, self._files)
        except OSError as problem:
            self._log.error("{problem}", problem=problem.strerror)
        return None

    def lacks_helper(self) -> bool:
        return self._privilege.has_lost_helper()

    def is_served(self) -> bool:
        return self.pool.is_served()

    def ready(self, worker: Worker) -> None:
        if self._deadline is not None:
            return  # the service is stopping, and the sockets may be closed
        pending = self._pending
        if pending is not None and worker in self.pool.added:
            self._check_added(pending)
            return
        self._have_it_accept(worker)
        if self.pool.are_ready():
            count = len({*self.pool.workers} - self.pool.leaving)
            self._log.info("serving with {workers}", workers=plural(count, "worker"))
            self.starter.drop_privileges()
            self._served()

    def _have_it_accept(self, worker: Worker) -> None:
        if worker.version != self.version or worker.sockets != self._sockets.sockets():
            # A reload was committed after it had been started.
            self._start_catch_up(worker)
        elif self.pool.accepting:
            self.servers_elsewhere.share()
            self.pool.start_accepting(worker)

    def replace(self, worker: Worker) -> None:
        self.pool.replace_soon(worker, self._most_workers)

    def _most_workers(self) -> int:
        # Two workers cannot listen at the same address, except by plain sockets.
        return self.limits.workers if are_all_sockets(self._rules) else 0

    def replace_hung(self, worker: Worker, why: str) -> bool:
        # Without clients to accept, a successor would never take over.
        most = self._most_workers() if self.pool.accepting else 0
        return self.pool.replace_hung(worker, why, most)

    # Reloads.

    async def change(
        self,
        rules: Rules,
        sockets: PreparedSockets,
        owner: tuple[int, int] | None,
        steps: CommittedSteps,
        *,
        rules_changed: bool,
    ) -> None:
        """Reload: switch the workers to other rules. Call `all_serve` afterwards.

        The sockets are committed or abandoned. Without `rules_changed`, only certificates and other files are read again.
        What follows the commit is run by `steps`, so an error means that there was none.

        Raises:
            MuxError: The rules cannot be used; nothing has changed.
        """
        pending, unanswered = None, self.state.upstreams.unanswered()
        with ExitStack() as undo:
            undo.callback(sockets.abandon)
            self.is_changing = True
            undo.callback(setattr, self, "is_changing", False)  # noqa: FBT003 - as for `setattr`
            undo.callback(self._parts.abandon)
            self._check(rules, owner)
            self._check_room(rules)
            terminators, upstreams = await self._read_tls_files(rules, undo)
            await in_thread(self._files.prepare, rules)
            self._extend(rules)
            # The new names alone: others may have no answer for long.
            await (self.state.upstreams.first_look_ups(besides=unanswered) or defer.succeed(None))
            await self.pool.settled()
            while self.catching_up:
                await DeferredList([*self.catching_up])
            pending = self._pending = PendingRules(
                rules, sockets.sockets, self.version + rules_changed, upstreams, terminators
            )
            undo.callback(self._drop_pending, pending)
            await self._prepare(pending, rules_changed=rules_changed)
            draining = self._sockets.draining()
            if draining or any(
                opened.type == SOCK_DGRAM for opened in self._sockets.sockets().values()
            ):
                # The commit may retire the worker that flows are moving to.
                await self.pool.flows_moved(pending.preparing)
            sockets.listen()
            undo.pop_all()
        fetch_flows = self.pool.fetch_flows(draining.keys() & sockets.sockets.keys())
        steps.run("use the listening sockets", sockets.commit)
        await steps.wait("switch the workers", lambda: self._commit_pending(pending, steps))
        steps.run("fetch flows of listeners that are back", fetch_flows)
        steps.run("close the sockets of removed listeners", self.close_removed)

    async def check_tls_files(self, rules: Rules) -> None:
        """Read the files for TLS as a reload does, and change nothing; raises a `MuxError` if it would be refused."""
        with ExitStack() as undo:
            await self._read_tls_files(rules, undo)

    async def _read_tls_files(
        self, rules: Rules, undo: ExitStack
    ) -> tuple[PreparedTerminators, PreparedUpstreams]:
        turns = Turns()
        terminators = await turns.run(self.terminators.prepare_in_steps(rules, rules.routes))
        undo.callback(terminators.abandon)
        if terminators.problems:
            raise RulesError(terminators.problems)
        upstreams = await turns.run(self.state.upstreams.prepare_all_in_steps(rules))
        undo.callback(upstreams.abandon)
        if upstreams.problems:
            raise MuxError("\n".join(dict.fromkeys(upstreams.problems)))
        undo.callback(self._files_in_use.abandon)
        self._files_in_use.prepare(rules)
        return terminators, upstreams

    def close_removed(self) -> None:
        """Close the sockets of removed listeners; `close_unused` closes UDP sockets once they have no flows."""
        self._sockets.drain_unused()
        self._sockets.close_unused()

    def _tick(self) -> None:
        do = self.pool.recurring.run
        do("see whom the kernel has killed", KILLS.look)
        do("look at the process that starts workers", self.starter.look)
        do("log what repeats", self.folded_log.report)
        do("look at the helper", self._privilege.look)
        do(
            "look at the queues of listeners",
            lambda: self.state.queues.observe(self._sockets.sockets()),
        )
        do("see which processes count for limits", self.limits.collect)
        do("count what other processes have of servers", self.servers_elsewhere.share)
        if not self.is_changing:
            do("look at certificates", self._files_in_use.look)
        if self.pool.accepting and self.pool.workers and not self.is_changing:
            do("listen again", lambda: self._listen_on_new(self._resources.look()))
            do("try to listen where units could not", self._try_unavailable)
        do("lift bans that have ended", self._end_bans)
        do("end connections of removed routes", self._removed.look)
        if self.pool.accepting:  # otherwise another process logs it
            do("end holds", self.state.end_holds)
        if self.pool.workers:  # otherwise the service is shutting down
            do("judge servers by what is counted", self.state.observer.tick)
            for part in self._parts.values():
                if part.step and self.pool.accepting and self.pool.are_ready():
                    do(part.step, part.look)
            do("close what is unused", lambda: Deferred.fromCoroutine(self.close_unused()))

    def _end_bans(self) -> None:
        if gone := self.state.bans.expire(time.monotonic()):
            self.pool.send_to_all(messages.BAN, rows=rows_of(gone))

    def _try_unavailable(self) -> None:
        now = self._reactor.seconds()
        if now >= self._try_again_at:
            self._try_again_at = now + _LOOK
            self._sockets.look_at_awaited()

    def _listen_on_new(self, keys: Collection[str]) -> None:
        for worker in self.pool.workers if keys else ():
            if worker.ready:
                worker.give_up(keys)
                self._start_catch_up(worker)

    async def close_unused(self) -> None:
        """Close the UDP sockets of removed listeners on which no worker has a flow."""
        if not (draining := self._sockets.draining()):
            return
        version = self.version
        left = await self.pool.flows_left()
        if left is not None and self.version == version and not self.is_changing:
            for key in draining.keys() - {*left}:
                self._sockets.give_up(key)

    async def all_serve(self) -> list[str]:
        """Wait until all workers serve, or do not start in a minute; return the remaining problems, one line each."""
        while self.catching_up:
            await DeferredList([*self.catching_up])
        try:
            await self.pool.wait_for_start(self.pool.serving(), lambda: self.pool.workers)
        except defer.TimeoutError:
            self._report_problem(
                f"not all workers serve after {STARTING:g} s: see the service's log"
            )
        problems, self._problems = self._problems, []
        return problems

    def _report_problem(self, what: str) -> None:
        """Log why a worker does not serve the current rules, and add it to the reload's result."""
        self._problems.append(f"the rules are in force, but {what}")
        self._log.error("{why}", why=self._problems[-1])

    def _check_room(self, rules: Rules) -> None:
        """Check that the limit of descriptors allows more listening sockets than there are."""
        for problem in too_many_sockets(rules, soft_limit(), self._sockets.sockets()):
            raise WorkersError(problem.message)

    def _extend(self, rules: Rules) -> None:
        self.limits.extend(rules)
        layout = self.counters.layout
        more, gone = layout.changes(self._published_places)
        if more or gone:
            self._published_places = dict(layout.places)
            self.pool.send_to_all(messages.COUNT_MORE, places=more, cells=layout.cells, gone=gone)

    async def _prepare(self, pending: PendingRules, *, rules_changed: bool) -> None:
        rules = pending.rules
        self._files_in_use.send()
        pending.preparing = {worker: worker.pid for worker in self.pool.ready()}
        answers = {
            worker: self._ask_to_prepare(
                worker, lambda: pending.sockets, rules, pending.version, rules_changed=rules_changed
            )
            for worker in pending.preparing
        }
        halted = await self.pool.answered(answers)  # meanwhile, workers may be replaced
        for worker in halted:
            answers.pop(worker).addErrback(lambda _: None)
            del pending.preparing[worker]
            worker.leave_behind()
        old = {worker: answers.pop(worker) for worker in self.pool.retiring if worker in answers}
        problems = await failures(answers)
        able = len(self.pool.workers)
        most = self.limits.workers - len({*halted}.intersection(self.pool.retiring))
        for worker, answer in old.items():
            # A retiring worker that fails keeps the rules of its connections, and cannot serve again.
            if await failures({worker: answer}):
                del pending.preparing[worker]
                most -= 1
            else:
                able += worker.can_return
        if rules.settings.workers > most:
            problems.append(
                "workers: old ones do not answer; they will be replaced in a few seconds, reload again then"
            )
        if problems:
            raise MuxError(rules.locate("\n".join(problems)))
        if rules.settings.workers > able:
            self.starter.prepare(rules)
            await in_thread(self._sent.whole, rules)
            self.pool.add(rules.settings.workers - able)
            self._check_added(pending)
            try:
                await self.pool.wait_for_start(pending.ready, lambda: self.pool.added)
            except defer.TimeoutError:
                raise WorkersError(f"workers: new ones did not start in {STARTING:g} s") from None

    def _ask_to_prepare(self, *what: Any, **how: Any) -> Deferred[None]:
        known = self._rules, self.version
        return Deferred.fromCoroutine(self._sent.prepare(known, self.limits.layout, *what, **how))

    def _check_added(self, pending: PendingRules) -> None:
        if not pending.ready.called and all(worker.ready for worker in self.pool.added):
            pending.ready.callback(None)

    def _drop_pending(self, pending: PendingRules) -> None:
        self._pending = None
        self.starter.prepare(self._rules)
        self.pool.drop_added()
        for worker in pending.preparing:
            worker.send(messages.ABANDON)

    async def _commit_pending(self, pending: PendingRules, steps: CommittedSteps) -> None:
        # Prepared workers commit, of which retiring ones may accept clients again; so do others, which were started for these rules,
        # or have to catch up since they were started meanwhile.
        self.is_changing = False
        self._pending, self._problems, self.older = None, [], {}
        self._rules, self.version = pending.rules, pending.version
        self._sent.forget()
        run = steps.run
        run("import what workers need", self.starter.prepare, self._rules)
        run("follow the lists of networks", self.state.lists.prepare, self._rules)
        run("open the files of workers", self._files.commit)
        run("use the certificates", pending.terminators.commit)
        run("use the backends", pending.upstreams.commit)
        run("keep connections of what is back", self._removed.commit, self._rules)
        run("watch files", self._files_in_use.commit)
        # If the process ID has changed, the prepared worker has ended, and the one that replaced it has the previous rules.
        ready = [worker for worker, pid in pending.preparing.items() if worker.pid == pid]
        count = pending.rules.settings.workers
        self.pool.admit()
        again = run("keep old workers", self.pool.reuse_retiring, count, ready) or []
        switched = [run("switch a worker", self._commit, worker) for worker in ready]
        for worker in self.pool.workers:
            if worker.ready and (worker in again or worker not in ready):
                run("let a worker accept clients", self._have_it_accept, worker)
        run("change the number of workers", self.pool.resize, count)
        await gatherResults([one for one in switched if one is not None])

    def _commit(self, worker: Worker) -> Deferred[None]:
        worker.version = self.version
        listening = worker in self.pool.workers
        worker.sockets = worker.prepared if listening else {}

        def committed(older: int) -> None:
            self.older[worker] = older

        def failed(failure: Failure) -> None:
            worker.sockets = {}  # it is unknown which of them the worker has
            self._replace_failed(worker, failure.value)

        removed = self._sockets.ended_by_removal(self._sockets.unused)
        asking = worker.ask_to_work(messages.COMMIT, listening=listening, removed=removed)
        return asking.addCallbacks(committed, failed)

    def _replace_failed(self, worker: Worker, why: BaseException | None) -> None:
        # Retiring workers accept no clients, and what replaces one that has ended starts with the new rules.
        if worker in self.pool.workers and not isinstance(why, PeerGoneError):
            number = worker.number
            self._report_problem(f"worker {number} could not take them and is replaced: {why}")
            self.replace(worker)

    def _start_catch_up(self, worker: Worker) -> None:
        done = Deferred.fromCoroutine(self._catch_up(worker))
        self.catching_up.add(done)
        done.addBoth(lambda _: self.catching_up.discard(done))

    async def _catch_up(self, worker: Worker) -> None:
        async with worker.preparing:
            if not worker.ready:
                return
            rules = self._rules
            try:
                await self._ask_to_prepare(worker, self._sockets.sockets, rules, self.version)
            except ChannelError as problem:
                self._replace_failed(worker, problem)
                return
            if rules is not self._rules:
                return  # a reload was committed meanwhile, and has started the next of these
            await self._commit(worker)
            # Those that were replaced meanwhile, of which the next of these sends the others.
            now = self._sockets.sockets()
            worker.give_up([key for key, its in worker.sockets.items() if now.get(key) is not its])
        if self.pool.accepting and worker in self.pool.workers:
            self.pool.start_accepting(worker)

    def retired(self, worker: Worker) -> None:
        self.pool.retired(worker)

    def leave_answered(self) -> None:
        self.pool.changes.check()

    def end_removed(self, routes: Collection[str], backends: Collection[str]) -> None:
        gone = {"routes": [*routes], "backends": [*backends], "version": self.version}
        self._removed.end_later(self._rules.settings.drain_timeout, gone)

    async def _missing(self) -> list[str]:
        lines = await self.pool.missing()
        idle = map(no_server_up, self.state.observer.idle(self._rules))
        return [*dict.fromkeys([*lines, *self._sockets.unreached(), *idle])]

    async def _status(self) -> dict[str, Any]:
        return {"generation": self.version, **await self.pool.status()}

    def ended(self, worker: Worker) -> int:
        """Return how many connections have ended with the worker."""
        number, column = worker.number, worker.column
        self.pool.share_datagrams()
        self.state.upstreams.server_starter.process_ended(number)
        self.limits.worker_ended(number)
        lost = self.counters.ended(number)
        if isinstance(worker, AdoptedWorker) and column is not None:
            lost = self.counters.adopted_ended(column)
        if lost and worker.logs_end:
            said = "connections that ended with worker {number}: {lost}"
            self._log.warn(said, number=number, lost=lost)
        return lost

    def start_failed(self, worker: Worker, message: str) -> None:
        """Fail the reload that has added the worker, or else the service."""
        pending = self._pending
        if pending is not None and worker in self.pool.added:
            if not pending.ready.called:
                pending.ready.errback(WorkersError(message))
        elif not self._failing:
            self._failing = True
            if self.lacks_helper():
                message += f"; {HELPER_ENDED}"
            # Deferred, since the reactor may not run yet.
            self._reactor.callLater(0, self._failed, WorkersError(message))

    async def leave(self, *, is_replaced: bool = False) -> None:
        """Stop all workers: each exits after its last connection, and is killed after a time limit.

        With `is_replaced`, another process serves, and held clients of this one have more time.
        """
        workers = self.pool.leave()
        self.state.observer.stop()
        stopped = filter(None, [part.stop() for part in self._parts.values()])
        longest_wait = LONGEST_WAIT if is_replaced else 0
        seconds = self._rules.settings.drain_timeout + longest_wait + _GRACE
        self._deadline = deadline = self._reactor.callLater(seconds, self._kill_all, workers)
        await gatherResults([*stopped, *(worker.stop(longest_wait) for worker in workers)])
        if deadline.active():
            deadline.cancel()
        self.folded_log.finish()

    def _kill_all(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.kill()
        # The starter may be suspended (SIGSTOP), and would not report that the workers have ended.
        self.starter.kill()

    def take_back(self) -> None:
        """Return all workers to service, whose ports another supervisor may have closed."""
        self.pool.accepting = True
        for worker in self.pool.workers:
            if worker.ready:
                worker.sockets = {}
                self._start_catch_up(worker)

    async def drain(self) -> None:
        await self.leave()  # health checks continue until then, for held clients
        await (self.state.upstreams.stop() if self._is_started else succeed(None))
        self.pool.stop_watching()
        self._is_started = False
        self.starter.close()

    def end_all(self) -> None:
        self.pool.send_to_all(messages.END_ALL)
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(_GRACE)

    def reopen_log(self) -> None:
        self.pool.send_to_all(messages.REOPEN)
