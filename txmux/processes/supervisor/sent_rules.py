"""Rules on their way to workers: all of them to one that starts, what is different to one that has others, and what is gone."""

import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txmux.access.across_processes import LimitsLayout
from txmux.backends.upstreams import PreparedUpstreams
from txmux.classes import define
from txmux.client.tls.terminators import PreparedTerminators
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.net.turns import in_thread
from txmux.processes.supervisor.pool import WorkerPool
from txmux.processes.supervisor.worker import Worker
from txmux.rules.difference import difference, digest
from txmux.rules.model import Rules
from txmux.rules.packing import pack, pack_difference
from txmux.serving.ending import forget_restored


@define(eq=False)
class PendingRules:
    """The rules of a reload that is being prepared; `preparing` has the process ID of each worker."""

    rules: Rules
    sockets: Mapping[str, socket.socket]
    version: int
    upstreams: PreparedUpstreams
    terminators: PreparedTerminators
    preparing: dict[Worker, int] = attrs.field(factory=dict)
    ready: Deferred[None] = attrs.field(factory=Deferred)


class SentRules:
    """Packs rules, once for all workers."""

    def __init__(self) -> None:
        self._whole: tuple[Rules, str] | None = None
        self._part: tuple[Rules, Rules, str | None] | None = None

    def forget(self) -> None:
        self._whole = self._part = None

    def whole(self, rules: Rules) -> str:
        if self._whole is None or self._whole[0] is not rules:
            self._whole = rules, b64encode(pack(rules)).decode()
        return self._whole[1]

    def part(self, old: Rules, rules: Rules) -> str | None:
        """Pack what rules have else than older ones; ``None`` if all is less work."""
        if rules is old:
            return ""
        part = self._part
        if part is None or part[0] is not old or part[1] is not rules:
            found = difference(old, rules)
            text = b64encode(pack_difference(found, rules)).decode() if found.is_small else None
            part = self._part = old, rules, text
        return part[2]

    async def prepare(
        self,
        known: tuple[Rules, int],
        limits: LimitsLayout,
        worker: Worker,
        sockets: Callable[[], Mapping[str, socket.socket]],
        rules: Rules,
        version: int,
        *,
        rules_changed: bool = True,
    ) -> None:
        """Ask a worker to prepare rules; `known` are those in force, which most workers have, and their version; `sockets` are asked for when they are sent."""
        (old, base), pid, of_rules = known, worker.pid, digest(rules)

        def ask(**how: Any) -> Deferred[Any]:
            if worker.pid != pid:  # while a thread packed them
                raise PeerGoneError
            how |= {"digest": of_rules, "rules_changed": rules_changed, "version": version}
            return worker.ask_to_prepare(sockets(), limits, **how)

        if worker.version == base:
            part = await in_thread(self.part, old, rules)
            if part is not None and await ask(rules=part, base=base):
                return
        if not await ask(rules=await in_thread(self.whole, rules), base=0):
            raise ChannelError("it has understood other rules than were sent")


@define(eq=False)
class RemovedRoutes:
    """What is gone, and when its connections end: in whichever workers they are by then.

    Attributes:
        rows: The times, on the clock that all processes share, and the fields of `END_REMOVED`.
    """

    _pool: WorkerPool
    rows: list[tuple[float, dict[str, Any]]] = attrs.field(factory=list, init=False)

    def end_later(self, seconds: float, gone: dict[str, Any]) -> None:
        self.rows.append((time.monotonic() + seconds, gone))

    def commit(self, rules: Rules) -> None:
        forget_restored([gone for _, gone in self.rows], rules)

    def look(self) -> None:
        """Called each second."""
        now, rows = time.monotonic(), self.rows
        self.rows = [(until, gone) for until, gone in rows if until > now]
        for until, gone in rows:
            if until <= now:
                self._pool.send_to_all(messages.END_REMOVED, **gone)
