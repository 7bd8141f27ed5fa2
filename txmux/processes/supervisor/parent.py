"""The parent: opens the sockets, starts and watches the workers, and stops them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.logger import Logger

from txmux.backends.pool.orders import from_json
from txmux.backends.upstreams import Upstreams
from txmux.errors import MuxError
from txmux.frontend.engine import Engine
from txmux.networks.lists import Lists
from txmux.observe.access_log import open_log
from txmux.observe.counting.counters import OWN
from txmux.processes.channel.channel import GoneError
from txmux.processes.privilege.sandbox import told_to_workers, without_first
from txmux.processes.supervisor.preparedworkers import PreparedWorkers
from txmux.processes.upgrade.exchange import Workers
from txmux.processes.workers.pool import Pool
from txmux.processes.workers.shareable import WorkersError, check_as_read, check_shareable, failures
from txmux.processes.workers.worker import Worker
from txmux.serving.state import found_by_checks, merged, recall_sources, state_of
from txmux.tls.terminations import Terminations

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.observe.counting.counters import Counters
    from txmux.processes.privilege.opener import Opener
    from txmux.processes.supervisor.limits import SharedLimits
    from txmux.rules.model import Rules
    from txmux.serving.state import Told
    from txmux.serving.store import ListeningSockets, PreparedSockets

__all__ = ["Parent", "WorkersError"]

_GRACE = 5.0
"""Seconds that a worker has to end, beyond those that its connections have."""


class Parent:
    """Serves nobody itself.

    Args:
        rules: They say how many workers there are.
        reactor: The process's own; workers use one of the same kind.
        sockets: Where clients come in; whoever owns them closes them.
        limits: What all processes count together.
        opener: Opens what workers may not open any more, if there is such a helper.
        counters: What all count.
        failed: Is told once if a worker cannot start while the service does.
        served: Is told when all serve, or could if they accepted clients.
        accepting: Whether they do from the first moment.

    Attributes:
        pool: The workers.
        exchange: How they take the place of others, and others theirs.
        counters: As above.
        generation: The number of the version of the rules, counted from 1.
        wanted: What an operator wants beside the rules.
        upstreams: The backends, of which this process only checks the servers.
        is_changing: Whether workers get ready for other rules; until they have, none that could serve again ends.
    """

    _log = Logger()
    is_changing = False

    def __init__(  # noqa: PLR0913 - all that workers share, by name
        self,
        rules: Rules,
        reactor: Any,
        sockets: ListeningSockets,
        limits: SharedLimits,
        opener: Opener | None,
        counters: Counters,
        failed: Callable[[MuxError], object],
        *,
        served: Callable[[], object] = lambda: None,
        accepting: bool = True,
    ) -> None:
        self._rules = rules
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._failed = failed
        self._served = served
        self._failing = False
        self._sockets = sockets
        self._limits = limits
        self._opener = opener
        self.counters = counters
        self._counting = dict(counters.layout.places)
        self.pool = pool = Pool(self._worker, reactor)
        self.exchange = Workers(pool, accepting=accepting)
        self._is_started = False
        self._given: Mapping[str, socket.socket] | None = None
        self._all_ready: list[Deferred[None]] = []
        self._catching_up: set[Deferred[None]] = set()
        self.generation = 1
        self.wanted: Mapping[str, Any] = {}
        self._lists = Lists()
        self._deadline: IDelayedCall | None = None
        engine = Engine(reactor, rules.settings.relay)
        column = counters.column(OWN)
        self.upstreams = Upstreams(
            reactor, engine.clock, engine.dial, publish=self._publish, column=column
        )

    def check(self, owner: tuple[int, int] | None = None) -> None:
        """Check what would stop every worker, before the sockets are opened.

        Args:
            owner: The user and group IDs that the workers run as, if not those of this process.

        Raises:
            ListenError: Several processes cannot accept from an endpoint.
            AccessLogError: The access log's file cannot be opened.
            WorkersError: The rules cannot be handed to workers.
        """
        check_as_read(self._rules)
        self.upstreams.add(self._rules)
        self._lists.hold(self._rules)
        self._check_files(self._rules, owner)
        check_shareable(self._rules.listeners)

    def _check_files(self, rules: Rules, owner: tuple[int, int] | None) -> None:
        Terminations(self._reactor).add(rules)
        access_log = open_log(rules.settings, owner=owner)
        if access_log is not None:
            access_log.close()

    def start(self, sockets: Mapping[str, socket.socket] | None = None) -> None:
        """Start the workers.

        Args:
            sockets: Where clients come in, if the service does not have these sockets yet. It will when all are ready.
        """
        self._given = sockets
        self._limits.share()
        self._limits.extend(self._rules)
        self.pool.resize(self._rules.settings.workers)
        self._is_started = True
        self.pool.watch()
        # A server is checked once, however many workers lead connections to it.
        self.upstreams.start()

    def _worker(self, number: int) -> Worker:
        return Worker(self, number, self._reactor, is_first=not self._is_started)

    def _publish(self, backend: str, key: str, ok: bool, why: str) -> None:  # noqa: FBT001 - a message's fields
        self.pool.tell("check", backend=backend, key=key, ok=ok, why=why)

    def start_message(self) -> dict[str, Any]:
        """Give what every worker has to know."""
        return {
            **told_to_workers(self._rules),
            "rules": attrs.asdict(self._rules.files),
            "generation": self.generation,
            "limits": attrs.asdict(self._limits.layout),
            "sockets": list(self._current()),
            "state": self._known(self._servers()),
        }

    def _known(self, servers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        return {"servers": [*servers], "wanted": self.wanted, "networks": self._lists.told}

    def _servers(self) -> list[dict[str, Any]]:
        return found_by_checks(self.upstreams.told())

    async def state(self) -> Told:
        """Give what the next process goes on with; see `txmux.serving.state`."""
        found = await self.pool.ask_all("servers")
        servers = merged([*found, self._servers()])
        sources = self._limits.sources(self._seconds)
        return state_of(servers, sources, self.wanted, self._lists.told)

    def recall(self, state: Told) -> None:
        """Go on with what another process has told, in all workers that there are."""
        servers = state.get("servers", ())
        self.obey(state.get("wanted", self.wanted))
        self.feed(state.get("networks", {}))
        self.upstreams.recall(found_by_checks(servers))
        if self._is_started:
            self.pool.tell("recall", state=self._known(servers))
            recall_sources(state, self._limits.sources(self._seconds))

    def obey(self, wanted: Mapping[str, Any]) -> None:
        """Do what an operator wants beside the rules, and tell it to workers that are started later; others are asked."""
        self.wanted = wanted
        self.upstreams.obey(from_json(wanted.get("servers", ())))

    def feed(self, told: Mapping[str, Any]) -> None:
        """Note what is in networks, for workers that are started later; others are asked."""
        self._lists.feed(told)

    @property
    def number(self) -> int:
        """The number of the version of the rules."""
        return self.generation

    def descriptors(self) -> list[int]:
        """Give what goes with that: the memory that all share, and the listening sockets."""
        sockets = self._current().values()
        return [self._limits.descriptor, *(opened.fileno() for opened in sockets)]

    def opener(self) -> socket.socket | None:
        """Give what leads a worker to the helper that opens files, if there is one."""
        try:
            return None if self._opener is None else self._opener.another()
        except OSError as problem:
            self._log.error("{problem}", problem=problem.strerror)
            return None

    def _current(self) -> Mapping[str, socket.socket]:
        return self._sockets.sockets() if self._given is None else self._given

    def answers(self) -> bool:
        """Tell whether some worker serves, and each that is there does its work."""
        return self.pool.answers()

    def is_served(self) -> bool:
        """Tell whether any worker serves."""
        return self.pool.is_served()

    def ready(self, worker: Worker) -> None:
        """Note that a worker can serve."""
        if self._deadline is not None:
            return  # it is told to stop already, and the sockets may be closed
        if worker.generation != self.generation:
            # The rules have changed since it was started.
            self._have_catch_up(worker)
        elif self.exchange.accepting:
            self.pool.let_accept(worker)
        if self.pool.are_ready():
            self._log.info("workers that serve: {count}", count=len(self.pool.workers))
            self._served()
            waiting, self._all_ready = self._all_ready, []
            for one in waiting:
                one.callback(None)

    def replace(self, worker: Worker) -> None:
        """Let another worker take the place of one that was asked to end, unless the whole service is."""
        self.pool.replace_soon(worker, self._limits.workers)

    async def accept(self) -> None:
        """Have workers accept clients that were started before the service had their sockets."""
        self._given = None
        await self.exchange.accept()

    def all_ready(self) -> Deferred[None]:
        """Wait until all workers serve."""
        ready: Deferred[None] = Deferred()
        self._all_ready.append(ready)
        return ready

    # Other rules.

    async def prepare(
        self,
        rules: Rules,
        sockets: PreparedSockets,
        owner: tuple[int, int] | None,
        *,
        afresh: bool,
    ) -> PreparedWorkers:
        """Have all workers get ready for other rules.

        Args:
            rules: The others.
            sockets: All that they need.
            owner: As for `open`.
            afresh: Whether they are others at all; otherwise only files are read again.

        Raises:
            MuxError: They cannot; nothing has changed.
        """
        check_as_read(rules)
        check_shareable(rules.listeners)
        most = self._limits.workers
        if rules.settings.workers > most:
            raise WorkersError(
                f"workers: no more than {most} while the service runs; restart it for more"
            )
        # A worker that gets ready for these rules while it does so for others would take one for the other.
        await DeferredList([*self._catching_up])
        self._check_files(rules, owner)
        upstreams = self.upstreams.prepare(rules)
        if upstreams.problems:
            upstreams.abandon()
            raise MuxError("\n".join(upstreams.problems))
        self._limits.extend(rules)
        layout = self.counters.layout
        more, gone = layout.changes(self._counting)
        if more or gone:
            self._counting = dict(layout.places)
            self.pool.tell("count_more", places=more, cells=layout.cells, gone=gone)
        self.is_changing = True
        await self.pool.settled()
        asked = {worker: worker.pid for worker in self.pool.all() if worker.ready}
        message: dict[str, Any] = {
            "rules": attrs.asdict(rules.files),
            "limits": attrs.asdict(self._limits.layout),
            "sockets": list(sockets.sockets),
            "afresh": afresh,
            "descriptors": [opened.fileno() for opened in sockets.sockets.values()],
        }
        prepared = PreparedWorkers(self, rules, upstreams, asked, afresh=afresh)
        answers = {worker: worker.ask("prepare", **message) for worker in asked}
        old = {worker: answers.pop(worker) for worker in asked if worker in self.pool.retiring}
        problems = await failures([*answers.values()])
        for worker, answer in old.items():
            # One that fails keeps the rules of its connections, and cannot serve again.
            if await failures([answer]):
                del asked[worker]
                most -= 1
        if rules.settings.workers > most:
            problems.append(
                "workers: old ones do not answer; they are replaced in a few seconds, reload then"
            )
        if problems:
            prepared.abandon()
            # Mostly all of them say the same.
            raise MuxError("\n".join(dict.fromkeys(problems)))
        return prepared

    async def commit(self, prepared: PreparedWorkers) -> int:
        """See `PreparedWorkers.commit`."""
        self.is_changing = False
        self._rules = prepared.rules
        self._lists.hold(self._rules)
        self.generation += prepared.afresh
        prepared.upstreams.commit()
        # Those that have ended in between have successors, which begin with the rules that were before.
        ready = [worker for worker, pid in prepared.workers.items() if worker.pid == pid]
        count = prepared.rules.settings.workers
        again = self.pool.take_back(count, ready)
        older = [self._commit(worker) for worker in ready]
        for worker in again:
            if self.exchange.accepting:
                self.pool.let_accept(worker)
        for worker in self.pool.workers:
            if worker.ready and worker not in ready:
                self._have_catch_up(worker)
        self.pool.resize(count)
        return sum(await gatherResults(older))

    def _commit(self, worker: Worker) -> Deferred[int]:
        worker.generation = self.generation
        listening = worker in self.pool.workers

        def failed(failure: Failure) -> int:
            if not failure.check(GoneError):
                self._log.error("{problem}", problem=failure.getErrorMessage())
                worker.kill()  # its successor begins with these rules
            return 0

        return worker.ask("commit", listening=listening).addErrback(failed)

    def _have_catch_up(self, worker: Worker) -> None:
        done = Deferred.fromCoroutine(self._catch_up(worker))
        self._catching_up.add(done)
        done.addBoth(lambda _: self._catching_up.discard(done))

    async def _catch_up(self, worker: Worker) -> None:
        message = without_first(self.start_message())
        message["descriptors"] = self.descriptors()[1:]
        asked = worker.ask("prepare", afresh=True, **message)
        problems = await failures([asked])
        if problems:
            self._log.error("{problem}", problem=problems[0])
            worker.kill()
        else:
            await self._commit(worker)
            if self.exchange.accepting:
                self.pool.let_accept(worker)

    def retire(
        self, gone: Sequence[str], takers: Callable[[], Sequence[socket.socket]]
    ) -> Deferred[Any]:
        """Have all workers end when their connections have; see `Pool.retire`."""
        return self.pool.retire(gone, takers)

    def retired(self, worker: Worker) -> None:
        """Forget a worker that was not needed any more."""
        self.pool.retired(worker)

    def end_removed(
        self, routes: Collection[str], backends: Collection[str], *, retired: bool = False
    ) -> None:
        """See `Serving.end_removed`."""
        self.pool.tell("end_removed", routes=list(routes), backends=list(backends), retired=retired)

    async def status(self) -> dict[str, Any]:
        """Count the connections, in all and in each worker, for ``/api/status``."""
        return {"generation": self.generation, **await self.pool.status()}

    async def missing(self) -> list[str]:
        """Tell what is missing for all clients to be served; see `Serving.missing`."""
        return await self.pool.missing()

    def ended(self, number: int, *, is_left: bool) -> None:
        """Forget the connections of a worker that has ended; `is_left` tells that it had none, and none on their way."""
        self.pool.share_datagrams()
        self._limits.clear(number + 1)
        if not is_left:
            self._limits.none_come()
        lost = self.counters.ended(number + 1)
        if lost:
            self._log.warn("connections that have ended with a worker: {lost}", lost=lost)

    def start_failed(self, message: str) -> None:
        """Give up, because a worker could not start."""
        if not self._failing:
            self._failing = True
            # Later, since the reactor may not even run yet.
            self._reactor.callLater(0, self._failed, WorkersError(message))

    async def drain(self) -> None:
        """Stop all workers, each when its connections have finished, and kill those that do not end."""
        seconds = self._rules.settings.drain_timeout + _GRACE
        self._deadline = self._reactor.callLater(seconds, self._kill_all)
        self.pool.watch_no_more()
        checks = self.upstreams.stop() if self._is_started else succeed(None)
        await gatherResults([checks, *(worker.stop() for worker in self.pool.all())])
        if self._deadline.active():
            self._deadline.cancel()
        self._is_started = False

    def end_all(self) -> None:
        """End every connection, and every worker soon."""
        self.pool.tell("end_all")
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(_GRACE)

    def _kill_all(self) -> None:
        for worker in self.pool.all():
            worker.kill()

    def reopen_log(self) -> None:
        """Open the access log's file again in every worker."""
        self.pool.tell("reopen")

    reopen_files = reopen_log
