"""The state that workers share beside the rules."""

import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import attrs
from twisted.logger import Logger

from txmux.access.bans import Bans
from txmux.access.dynamic_networks import Lists
from txmux.access.per_source import PerSource
from txmux.backends.health.observer import ServerObserver
from txmux.backends.upstreams import Upstreams
from txmux.classes import define, frozen
from txmux.client.overrides import Overrides
from txmux.client.parts import Parts, ServicePart
from txmux.control.broadcast import WorkerLink
from txmux.control.service_files import ServiceFiles
from txmux.net.sockets.queues import ListenQueues
from txmux.telemetry.recent import Recent

_MOST_REFUSED = 100
"""System calls of which the operator learns: a worker could make up any."""


@frozen
class WorkersCondition:
    """How the workers are, by what they do.

    Attributes:
        none_serves: Whether none serves, nor is about to.
        is_unsettled: Whether a worker that is about to accept clients does not accept them yet.
        none_answers: Whether some serve, and none of them does its work.
        silent: The number and the process ID of each worker that serves and does not do its work.
    """

    none_serves: bool = False
    is_unsettled: bool = False
    none_answers: bool = False
    silent: Sequence[tuple[int, int]] = ()


@define(eq=False)
class ServiceState:
    """The workers of a running service, and the state that they share beside the rules.

    Attributes:
        status: Counts the connections, in all and in each worker.
        missing: Returns what prevents clients from being served, one line each.
        files: Those for TLS, and others that workers get from the supervisor.
        lists: The contents of lists that change without a reload.
        parts: What features keep for the service.
        recent: The last connections that did not end as they should.
        troubles: Returns what is wrong with the helper that opens files.
        observer: Judges servers by what all workers have counted.
        queues: Notices overflows of the accept queues.
        ended_workers: Of each worker that was started again, or has ended with connections: when (monotonic), its number, and why; 0 stands for the starter.
        condition: Returns how the workers are.
        per_source: Returns what counts the sources of each listener in all workers, while these accept clients.
        refused_calls: By the system call that a sandbox has refused: when first, as above, and the number of the worker.
    """

    _log = Logger()

    workers: Callable[[], Sequence[WorkerLink]]
    status: Callable[[], Coroutine[Any, Any, dict[str, Any]]]
    missing: Callable[[], Awaitable[list[str]]]
    upstreams: Upstreams
    files: ServiceFiles
    observer: ServerObserver
    parts: Parts[ServicePart] = attrs.field(factory=lambda: Parts(lambda _: None))
    overrides: Overrides = attrs.field(factory=Overrides)
    bans: Bans = attrs.field(factory=Bans)
    lists: Lists = attrs.field(factory=Lists)
    recent: Recent = attrs.field(factory=Recent)
    troubles: Callable[[], Sequence[str]] = tuple
    queues: ListenQueues = attrs.field(factory=ListenQueues)
    ended_workers: deque[tuple[float, int, str]] = attrs.field(factory=lambda: deque(maxlen=1000))
    refused_calls: dict[str, tuple[float, int]] = attrs.field(factory=dict)
    condition: Callable[[], WorkersCondition] = WorkersCondition
    per_source: Callable[[], Mapping[str, PerSource | None]] = dict

    def end_holds(self) -> None:
        """Forget the holds that have reached their end, which workers see by themselves."""
        held, now = self.overrides.held, time.monotonic()
        kept = {name: until for name, until in held.items() if until > now}
        if kept != held:
            self.overrides = attrs.evolve(self.overrides, held=kept)
        for backend in held.keys() - kept.keys():
            self._log.info(
                "backend {backend}: the hold by an operator has ended, its clients go on",
                backend=backend,
            )

    def note_refused_call(self, number: int, call: str) -> None:
        """Count a system call that a worker's sandbox has refused; the first time, it is logged."""
        if call not in self.refused_calls and len(self.refused_calls) < _MOST_REFUSED:
            self.refused_calls[call] = time.time(), number
            self._log.warn(
                "worker {number}: the sandbox has refused system call {call}",
                number=number,
                call=call,
            )

    def add_ended_workers(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add those of another process."""
        known: set[Any] = {*self.ended_workers, *map(tuple, rows)}
        self.ended_workers.clear()
        self.ended_workers.extend(sorted(known))

    def apply_overrides(self, overrides: Overrides) -> None:
        """Apply overrides to the checks of this process; the caller sends them to the workers."""
        self.overrides = overrides
        self.upstreams.apply_overrides(overrides.servers, overrides.held)
