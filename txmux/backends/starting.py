"""Starts servers while clients wait for them, as features know how to."""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.errors import MuxError, cause_of
from txmux.rules.feature import ServerStart
from txmux.rules.installed import start_of
from txmux.rules.model import Backend

_EVERY = 30.0  # seconds

_log = Logger()


class ServerStarter:
    """Starts the servers of a backend when its first client waits, and every 30 seconds while one does.

    `backend_of` returns a backend by its name; ``None`` if its servers are not to be started.
    """

    def __init__(self, reactor: Any, backend_of: Callable[[str], Backend | None]) -> None:
        self._reactor = reactor
        self._backend_of = backend_of
        self._waiting: dict[str, set[int]] = {}  # by backend, the processes with clients
        self._timers: dict[str, IDelayedCall] = {}
        self._sending: dict[str, Deferred[None]] = {}
        self._held: set[str] = set()  # by an operator, since the last that was sent

    def report(self, backend: str, waiting: bool, process: int = 0) -> None:  # noqa: FBT001 - a message's field
        """Record whether clients of a backend wait in a process; called again if no server is up after an operator's hold."""
        processes = self._waiting.setdefault(backend, set())
        (processes.add if waiting else processes.discard)(process)
        if not processes:
            del self._waiting[backend]
            timer = self._timers.pop(backend, None)
            if timer is not None:
                timer.cancel()
                _log.info("backend {backend}: no client is waiting any longer", backend=backend)
        elif backend not in self._timers:
            _log.warn("backend {backend}: clients wait for a server", backend=backend)
            self._start(backend)
        elif waiting and backend in self._held:
            self._timers.pop(backend).cancel()
            self._start(backend)

    def hold(self, backends: Iterable[str]) -> None:
        self._held.update(backends)

    def process_ended(self, process: int) -> None:
        for backend in [*self._waiting]:
            self.report(backend, waiting=False, process=process)

    def stop(self) -> None:
        for process in set().union(*self._waiting.values()):
            self.process_ended(process)
        for sending in [*self._sending.values()]:
            sending.cancel()

    def _start(self, name: str) -> None:
        self._timers[name] = self._reactor.callLater(_EVERY, self._start, name)
        backend = self._backend_of(name)
        start = None if backend is None else start_of(backend)
        if start is None:
            return
        self._held.discard(name)
        if name in self._sending:
            return
        sending = self._sending[name] = Deferred.fromCoroutine(self._send(name, start))
        sending.addBoth(self._sent, name)

    def _sent(self, failure: object, backend: str) -> None:
        del self._sending[backend]
        if isinstance(failure, Failure) and not failure.check(CancelledError):
            _log.failure("backend {backend}: cannot wake its server", failure, backend=backend)

    async def _send(self, backend: str, start: ServerStart) -> None:
        try:
            await start.send(self._reactor)
        except (OSError, MuxError) as problem:
            why = problem if isinstance(problem, MuxError) else cause_of(problem)
            _log.warn(
                "backend {backend}: cannot wake its server ({wake}): {why}; it is tried again in {seconds:g} s while a client waits",
                backend=backend,
                wake=start.text,
                why=why,
                seconds=_EVERY,
            )
        else:
            _log.info(
                "backend {backend}: a client waits for a server: sent {wake}",
                backend=backend,
                wake=start.text,
            )
