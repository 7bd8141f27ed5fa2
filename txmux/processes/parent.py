"""The parent: opens the sockets, starts and watches the workers, and stops them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.backends.upstream import Upstreams
from txmux.errors import MuxError
from txmux.frontend.engine import Engine
from txmux.observe.access_log import open_log
from txmux.processes.channel import GoneError
from txmux.processes.exchange import Workers
from txmux.processes.limits import SharedLimits
from txmux.processes.shareable import WorkersError, check_as_read, check_shareable, failures
from txmux.processes.worker import Worker
from txmux.tls.termination import Terminations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.backends.upstream import PreparedUpstreams
    from txmux.processes.opener import Opener
    from txmux.rules.model import Rules
    from txmux.serving.store import ListeningSockets, PreparedSockets

__all__ = ["Parent", "WorkersError"]

_PING = 1.0
"""Seconds between two questions to a worker whether it does its work."""

_MOST_WORKERS = 16
"""How many workers there may be later, at least, with those that still have old connections."""

_GRACE = 5.0
"""Seconds that a worker has to end, beyond those that its connections have."""


class Parent:
    """Serves nobody itself.

    Args:
        rules: They say how many workers there are.
        reactor: The process's own; workers use one of the same kind.
        sockets: Where clients come in; whoever owns them closes them.
        opener: Opens what workers may not open any more, if there is such a helper.
        failed: Is told once if a worker cannot start while the service does.
        served: Is told when all serve, or could if they accepted clients.
        accepting: Whether they do from the first moment.

    Attributes:
        exchange: How they take the place of others, and others theirs.
        generation: The number of the version of the rules, counted from 1.
    """

    _log = Logger()

    def __init__(
        self,
        rules: Rules,
        reactor: Any,
        sockets: ListeningSockets,
        opener: Opener | None,
        failed: Callable[[MuxError], object],
        *,
        served: Callable[[], object] = lambda: None,
        accepting: bool = True,
    ) -> None:
        self._rules = rules
        self._reactor = reactor
        self._failed = failed
        self._served = served
        self._failing = False
        self._sockets = sockets
        self._opener = opener
        self._workers: list[Worker] = []
        self.exchange = Workers(self._workers, accepting=accepting)
        self._retiring: list[Worker] = []
        self._is_started = False
        self._given: Mapping[str, socket.socket] | None = None
        self._empty: Deferred[Any] = Deferred()
        self._all_ready: list[Deferred[None]] = []
        self.generation = 1
        self._deadline: IDelayedCall | None = None
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = reactor
        engine = Engine(reactor, rules.settings.relay)
        self._upstreams = Upstreams(reactor, engine.clock, engine.dial, publish=self._publish)

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
        self._upstreams.add(self._rules)
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
        count = self._rules.settings.workers
        self._limits = SharedLimits.make(self._rules, max(_MOST_WORKERS, 2 * count))
        self._workers += [Worker(self, number, self._reactor) for number in range(count)]
        self._is_started = True
        for worker in self._workers:
            worker.start()
        self._pinging.start(_PING, now=False)
        # A server is checked once, however many workers lead connections to it.
        self._upstreams.start()

    def _publish(self, backend: str, key: str, ok: bool, why: str) -> None:  # noqa: FBT001 - a message's fields
        for worker in self._all():
            worker.tell("check", backend=backend, key=key, ok=ok, why=why)

    def start_message(self) -> dict[str, Any]:
        """Give what every worker has to know."""
        return {
            "rules": attrs.asdict(self._rules.files),
            "limits": attrs.asdict(self._limits.layout),
            "sockets": list(self._current()),
            "down": self.down(),
        }

    def down(self) -> list[dict[str, Any]]:
        """Give what another process has to know of servers; see `Upstreams.down`."""
        return self._upstreams.down()

    def check_found(self, backend: str, key: str, *, ok: bool, why: str) -> None:
        """Take in what a check of another process has found; see `Upstreams.apply`."""
        self._upstreams.apply(backend, key, ok=ok, why=why)

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

    def _ping(self) -> None:
        for worker in self._all():
            worker.ping()

    def answers(self) -> bool:
        """Tell whether some worker serves, and each that is there does its work."""
        return self.is_served() and all(worker.answers for worker in self._workers)

    def _all(self) -> list[Worker]:
        return [*self._workers, *self._retiring]

    def is_served(self) -> bool:
        """Tell whether any worker serves."""
        return any(worker.ready for worker in self._workers)

    def ready(self, worker: Worker) -> None:
        """Note that a worker can serve."""
        if worker.generation != self.generation:
            # The rules have changed since it was started.
            Deferred.fromCoroutine(self._catch_up(worker))
        elif self.exchange.accepting:
            self._let_accept(worker)
        if all(worker.ready for worker in self._workers):
            self._log.info("workers that serve: {count}", count=len(self._workers))
            self._served()
            waiting, self._all_ready = self._all_ready, []
            for one in waiting:
                one.callback(None)

    @staticmethod
    def _let_accept(worker: Worker) -> None:
        worker.ask("accept").addErrback(lambda _: None)  # one that does not answer is replaced

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
        most = self._limits.layout.columns - len(self._retiring)
        if rules.settings.workers > most:
            raise WorkersError(
                f"workers: no more than {most} while the service runs; restart it for more, or wait until old workers "
                "have ended with their connections"
            )
        self._check_files(rules, owner)
        upstreams = self._upstreams.prepare(rules)
        if upstreams.problems:
            upstreams.abandon()
            raise MuxError("\n".join(upstreams.problems))
        self._limits.extend(rules)
        asked = {worker: worker.pid for worker in self._all() if worker.ready}
        message: dict[str, Any] = {
            "rules": attrs.asdict(rules.files),
            "limits": attrs.asdict(self._limits.layout),
            "sockets": list(sockets.sockets),
            "afresh": afresh,
            "descriptors": [opened.fileno() for opened in sockets.sockets.values()],
        }
        prepared = PreparedWorkers(self, rules, upstreams, asked, afresh=afresh)
        problems = await failures([worker.ask("prepare", **message) for worker in asked])
        if problems:
            prepared.abandon()
            # Mostly all of them say the same.
            raise MuxError("\n".join(dict.fromkeys(problems)))
        return prepared

    async def commit(self, prepared: PreparedWorkers) -> int:
        """See `PreparedWorkers.commit`."""
        self._rules = prepared.rules
        self.generation += prepared.afresh
        prepared.upstreams.commit()
        # Those that have ended in between have successors, which begin with the rules that were before.
        ready = [worker for worker, pid in prepared.workers.items() if worker.pid == pid]
        older = [self._commit(worker) for worker in ready]
        for worker in self._workers:
            if worker.ready and worker not in ready:
                Deferred.fromCoroutine(self._catch_up(worker))
        self._resize(prepared.rules.settings.workers)
        return sum(await gatherResults(older))

    def _commit(self, worker: Worker) -> Deferred[int]:
        worker.generation = self.generation

        def failed(failure: Failure) -> int:
            if not failure.check(GoneError):
                self._log.error("{problem}", problem=failure.getErrorMessage())
                worker.kill()  # its successor begins with these rules
            return 0

        return worker.ask("commit").addErrback(failed)

    async def _catch_up(self, worker: Worker) -> None:
        message = self.start_message()
        del message["down"]
        _, *descriptors = self.descriptors()
        asked = worker.ask("prepare", descriptors=descriptors, afresh=True, **message)
        problems = await failures([asked])
        if problems:
            self._log.error("{problem}", problem=problems[0])
            worker.kill()
        else:
            await self._commit(worker)
            if self.exchange.accepting:
                self._let_accept(worker)

    def _resize(self, count: int) -> None:
        """Have as many workers as the rules say. Those that are too many end when their connections have."""
        while len(self._workers) > count:
            worker = self._workers.pop()
            self._retiring.append(worker)
            worker.retire()
            self._move(worker)
        while len(self._workers) < count:
            numbers = {worker.number for worker in self._all()}
            number = min(set(range(len(numbers) + 1)) - numbers)
            worker = Worker(self, number, self._reactor, is_first=False)
            self._workers.append(worker)
            worker.start()

    def _move(self, worker: Worker) -> None:
        """Have others go on with the connections of a worker, as far as these can be moved."""
        others = [other for other in self._workers if other.ready]
        if not others or not worker.ready:
            return
        own = []
        for other in others:
            end, far = socket.socketpair()
            with far:
                other.ask("take_over", descriptors=[far.fileno()]).addErrback(self._unmoved)
            own.append(end)
        descriptors = [end.fileno() for end in own]
        worker.ask("hand_over", seconds=60.0, descriptors=descriptors).addErrback(self._unmoved)
        for end in own:
            end.close()

    def _unmoved(self, failure: Failure) -> None:
        self._log.warn(
            "connections of a worker stay there until they end: {why}",
            why=failure.getErrorMessage(),
        )

    def retire(self) -> Deferred[Any]:
        """Have all workers end when their connections have; what this gives fires when all are gone."""
        self._resize(0)
        return self._empty

    def retired(self, worker: Worker) -> None:
        """Forget a worker that was not needed any more."""
        self._retiring.remove(worker)
        if not self._all() and not self._empty.called:
            self._empty.callback(None)

    def end_removed(self, routes: Collection[str], backends: Collection[str]) -> None:
        """See `Serving.end_removed`."""
        for worker in self._all():
            worker.tell("end_removed", routes=list(routes), backends=list(backends))

    async def status(self) -> dict[str, Any]:
        """Count the connections, in all and in each worker, for ``/api/status``."""
        workers = self._all()
        answers = await DeferredList(
            [worker.ask("status", seconds=2.0) for worker in workers], consumeErrors=True
        )
        told: list[dict[str, Any]] = [
            {
                "worker": worker.number + 1,
                "pid": worker.pid,
                "ready": worker.ready,
                "retiring": worker in self._retiring,
                **(answer if answered else {}),
            }
            for worker, (answered, answer) in zip(workers, answers, strict=True)
        ]
        sums = {
            name: sum(one.get(name, 0) for one in told) for name in ("active", "undecided", "older")
        }
        return {"generation": self.generation, **sums, "workers": told}

    def ended(self, number: int) -> None:
        """Forget the connections of a worker that has ended."""
        self._limits.clear(number)

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
        if self._pinging.running:
            self._pinging.stop()
        checks = self._upstreams.stop() if self._is_started else succeed(None)
        await gatherResults([checks, *(worker.stop() for worker in self._all())])
        if self._deadline.active():
            self._deadline.cancel()
        if self._is_started:
            self._is_started = False
            self._limits.close()

    def end_all(self) -> None:
        """End every connection, and every worker soon."""
        for worker in self._all():
            worker.tell("end_all")
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(_GRACE)

    def _kill_all(self) -> None:
        for worker in self._all():
            worker.kill()

    def reopen_log(self) -> None:
        """Open the access log's file again in every worker."""
        for worker in self._all():
            worker.tell("reopen")

    reopen_files = reopen_log


@attrs.define
class PreparedWorkers:
    """Workers that are ready for other rules, with the IDs of their processes; ends by `commit` or `abandon`."""

    _parent: Parent
    rules: Rules
    upstreams: PreparedUpstreams
    workers: dict[Worker, int]
    afresh: bool = attrs.field(kw_only=True)

    async def commit(self) -> int:
        """Have them accept the next clients under these rules, and tell how many connections go on under older ones.

        Everything that decides has happened when this first waits.
        """
        return await self._parent.commit(self)

    def abandon(self) -> None:
        """Have all go on as before."""
        self.upstreams.abandon()
        for worker in self.workers:
            worker.tell("abandon")
