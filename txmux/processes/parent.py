"""The parent: opens the sockets, starts and watches the workers, and stops them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from txmux.backends.upstream import Upstreams
from txmux.errors import ListenError, MuxError
from txmux.frontend.engine import Engine
from txmux.observe.access_log import open_log
from txmux.processes.exchange import Workers
from txmux.processes.limits import SharedLimits
from txmux.processes.worker import Worker
from txmux.rules.reading.parser import is_as_read
from txmux.serving.places import places_of
from txmux.tls.termination import Terminations

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall

    from txmux.processes.opener import Opener
    from txmux.rules.model import Listener, Rules
    from txmux.serving.store import ListeningSockets

__all__ = ["Parent", "WorkersError"]

_PING = 1.0
"""Seconds between two questions to a worker whether it does its work."""

_GRACE = 5.0
"""Seconds that a worker has to end, beyond those that its connections have."""


class WorkersError(MuxError):
    """Workers cannot be started, or one could not start."""


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
        if not is_as_read(self._rules):
            raise WorkersError(
                "workers: rules that are not all read from a file cannot be handed to several processes; write workers = 1"
            )
        self._upstreams.add(self._rules)
        Terminations(self._reactor).add(self._rules)
        access_log = open_log(self._rules.settings, owner=owner)
        if access_log is not None:
            access_log.close()
        check_shareable(self._rules.listeners)

    def start(self) -> None:
        """Start the workers."""
        count = self._rules.settings.workers
        self._limits = SharedLimits.make(self._rules, count)
        self._workers += [Worker(self, number, self._reactor) for number in range(count)]
        for worker in self._workers:
            worker.start()
        self._pinging.start(_PING, now=False)
        # A server is checked once, however many workers lead connections to it.
        self._upstreams.start()

    def _publish(self, backend: str, key: str, ok: bool, why: str) -> None:  # noqa: FBT001 - a message's fields
        for worker in self._workers:
            worker.tell("check", backend=backend, key=key, ok=ok, why=why)

    def start_message(self) -> dict[str, Any]:
        """Give what every worker has to know."""
        settings = self._rules.settings
        return {
            "rules": attrs.asdict(self._rules.files),
            "workers": settings.workers,
            "sockets": list(self._sockets.sockets()),
            "accepting": self.exchange.accepting,
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
        sockets = self._sockets.sockets().values()
        return [self._limits.descriptor, *(opened.fileno() for opened in sockets)]

    def opener(self) -> socket.socket | None:
        """Give what leads a worker to the helper that opens files, if there is one."""
        try:
            return None if self._opener is None else self._opener.another()
        except OSError as problem:
            self._log.error("{problem}", problem=problem.strerror)
            return None

    def _ping(self) -> None:
        for worker in self._workers:
            worker.ping()

    def answers(self) -> bool:
        """Tell whether some worker serves, and each that is there does its work."""
        return self.is_served() and all(worker.answers for worker in self._workers)

    def is_served(self) -> bool:
        """Tell whether any worker serves."""
        return any(worker.ready for worker in self._workers)

    def ready(self) -> None:
        """Note that a worker serves."""
        if all(worker.ready for worker in self._workers):
            self._log.info("workers that serve: {count}", count=len(self._workers))
            self._served()

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
        checks = self._upstreams.stop() if self._workers else succeed(None)
        await gatherResults([checks, *(worker.stop() for worker in self._workers)])
        if self._deadline.active():
            self._deadline.cancel()
        if self._workers:
            self._limits.close()

    def end_all(self) -> None:
        """End every connection, and every worker soon."""
        for worker in self._workers:
            worker.tell("end_all")
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(_GRACE)

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.kill()

    def reopen_log(self) -> None:
        """Open the access log's file again in every worker."""
        self.reopen_files()

    def reopen_files(self) -> None:
        """Open the access log's file, and read all certificates, again in every worker."""
        for worker in self._workers:
            worker.tell("reopen")


def check_shareable(listeners: Iterable[Listener]) -> None:
    """See whether several processes can accept from all endpoints.

    Raises:
        ListenError: One is for Twisted to open.
    """
    for listener in listeners:
        for place in places_of(listener):
            if not place.is_plain:
                raise ListenError(
                    f"[listen {listener.name}] endpoint {place.text}: several workers cannot share an endpoint of type "
                    f"{place.kind!r}; write ADDRESS:PORT, :PORT, unix: or systemd:, or workers = 1"
                )
