"""Clients that get no byte from a server: how many in a row, and the ejection for it over TCP."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.backends.health.probes import with_hint
from txmux.backends.pool.pool import BackendPool
from txmux.backends.pool.server_health import ENOUGH_SOURCES, MemberState
from txmux.classes import define
from txmux.rules.model import Server
from txmux.telemetry.counting.counter_groups import SERVER, WAITING, sources_in
from txmux.telemetry.formatting import duration, plural

_PERIOD = 1.0
_ASKED, _ANSWERED = SERVER.asked.at, SERVER.answered.at


@define(eq=False)
class ServerSilence:
    """Clients in a row that have sent something to a server and have had no byte from it.

    Args:
        enough: So many of them say something about the server, if they are of `ENOUGH_SOURCES`, or each of another one.

    Attributes:
        first: When the first of them had sent something.
        reached: When they were enough.
        sources: The last sources of them, and when each came last, the latest last.
    """

    enough: int
    clients: int = attrs.field(default=0, init=False)
    first: float = attrs.field(default=0.0, init=False)
    reached: float = attrs.field(default=0.0, init=False)
    sources: dict[int, float] = attrs.field(factory=dict, init=False)
    _enough_sources: int = attrs.field(init=False)

    @_enough_sources.default
    def _find_enough(self) -> int:
        return min(ENOUGH_SOURCES, self.enough)

    @property
    def is_enough(self) -> bool:
        return self.clients >= self.enough and len(self.sources) >= self._enough_sources

    @property
    def last(self) -> float:
        """Since when no longer enough sources have shown it: one alone does not keep a server silent."""
        return next(iter(self.sources.values()), 0.0)

    def clear(self) -> None:
        self.clients = 0
        self.sources.clear()

    def record(self, now: float, requests: int, answered: int, sources: Iterable[int]) -> None:
        """Record what came since the last time, in which an answer may have been the last, and the sources of those without one."""
        if answered:
            self.clear()
        elif requests:
            was_enough = self.is_enough
            self.first = self.first if self.clients else now
            self.clients += requests
            for source in sources:
                self.sources.pop(source, None)
                self.sources[source] = now
            while len(self.sources) > self._enough_sources:
                del self.sources[next(iter(self.sources))]
            if self.is_enough and not was_enough:
                self.reached = now


@define(eq=False)
class _WatchedServer:
    """A server; `cells` are the counters of all its addresses, `data` is what was in them, `silence` is ``None`` until it is up."""

    server: Server
    cells: memoryview[int] = attrs.field(factory=lambda: memoryview(b"").cast("Q"), init=False)
    data: bytes = attrs.field(default=b"", init=False)
    silence: ServerSilence | None = attrs.field(default=None, init=False)
    is_quiet: bool = attrs.field(default=False, init=False)


class SilenceWatch:
    """Ejects servers of TCP for which a backend has ``eject`` with ``unanswered=``, by what this process counts.

    One timer is for all servers of all backends, and connections cost nothing.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._pools: dict[BackendPool, list[_WatchedServer]] = {}
        self._timer: IDelayedCall | None = None

    def add(self, pool: BackendPool) -> None:
        judged = (server for server in pool.backend.servers if server.is_judged)
        self._pools[pool] = [*map(_WatchedServer, judged)]
        self._look_at_all(pool, self._clock.seconds())
        if self._timer is None:
            self._timer = self._clock.callLater(_PERIOD, self._look_at_pools)

    def remove(self, pool: BackendPool) -> None:
        self._pools.pop(pool, None)

    def stop(self) -> None:
        self._pools.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_pools(self) -> None:
        self._timer = self._clock.callLater(_PERIOD, self._look_at_pools) if self._pools else None
        now = self._clock.seconds()
        for pool in self._pools:
            self._look_at_all(pool, now)

    def _look_at_all(self, pool: BackendPool, now: float) -> None:
        for its in self._pools[pool]:
            # Of thousands, few have clients in a second: the others cost a comparison.
            if not its.is_quiet or its.data != its.cells.tobytes():
                self._look_at(pool, its, now)

    def _look_at(self, pool: BackendPool, its: _WatchedServer, now: float) -> None:
        members, eject = pool.members_of(its.server), pool.backend.eject
        if eject is None or all(member.health.state is MemberState.DOWN for member in members):
            its.silence, its.is_quiet = None, False
            return  # clients from before it is up say nothing then
        its.cells, before = members[0].counts.cells, its.data
        its.data = its.cells.tobytes()
        usual = eject.unanswered or 0
        if its.silence is None:
            its.silence, its.is_quiet = ServerSilence(usual), True
            return
        silence = its.silence
        _record(silence, now, usual, *(memoryview(data).cast("Q") for data in (before, its.data)))
        if silence.is_enough and now - silence.reached >= eject.after:
            clients = plural(silence.clients, "client")
            why = f"no byte to {clients} in a row for {duration(eject.after)}"
            for member in members:
                pool.eject_silent(member, with_hint(why, pool.backend))
            # Once it is back, the next client shows whether it answers.
            silence.clear()
            silence.enough = 1
        its.is_quiet = not silence.clients and silence.enough == usual


def _record(
    silence: ServerSilence, now: float, usual: int, before: memoryview[int], cells: memoryview[int]
) -> None:
    asked, answered = (cells[at] - before[at] for at in (_ASKED, _ANSWERED))
    if answered:
        silence.enough = usual
    sources = sources_in(before[WAITING].tolist(), cells[WAITING].tolist())
    silence.record(now, asked, answered, sources)
