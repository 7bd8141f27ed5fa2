"""Clients that get no byte from a server: how many in a row, and the ejection for it over TCP."""

from collections.abc import Iterable, Sequence

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmux.backends.health.probes import with_hint
from txmux.backends.pool.pool import BackendPool
from txmux.backends.pool.server_health import ENOUGH_SOURCES, MemberState
from txmux.classes import define
from txmux.rules.model import Ejection, Server
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


class SilenceWatch:
    """Ejects servers of TCP for which a backend has ``eject`` with ``unanswered=``, by what this process counts.

    One timer is for all servers of a backend, and connections cost nothing.
    """

    def __init__(self, clock: IReactorTime, pool: BackendPool, eject: Ejection) -> None:
        self._clock, self._pool, self._eject = clock, pool, eject
        self._servers: dict[Server, _WatchedSilence] = {}
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        self._timer = self._clock.callLater(_PERIOD, self.start)
        now = self._clock.seconds()
        for server in self._pool.backend.servers:
            if server.is_judged:
                self._look_at(server, now)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at(self, server: Server, now: float) -> None:
        members = self._pool.members_of(server)
        if all(member.health.state is MemberState.DOWN for member in members):
            self._servers.pop(server, None)  # clients from before it is up say nothing then
            return
        cells = members[0].counts.cells.tolist()  # of all its addresses
        asked, answered = cells[_ASKED], cells[_ANSWERED]
        watched = self._servers.get(server)
        if watched is None:
            silence = ServerSilence(self._eject.unanswered or 0)
            self._servers[server] = _WatchedSilence(silence, cells)
            return
        silence, before = watched.silence, watched.cells
        if answered > before[_ANSWERED]:
            silence.enough = self._eject.unanswered or 0
        sources = sources_in(before[WAITING], cells[WAITING])
        silence.record(now, asked - before[_ASKED], answered - before[_ANSWERED], sources)
        watched.cells = cells
        if silence.is_enough and now - silence.reached >= self._eject.after:
            clients = plural(silence.clients, "client")
            why = f"no byte to {clients} in a row for {duration(self._eject.after)}"
            for member in members:
                self._pool.eject_silent(member, with_hint(why, self._pool.backend))
            # Once it is back, the next client shows whether it answers.
            silence.clear()
            silence.enough = 1


@define(eq=False)
class _WatchedSilence:
    silence: ServerSilence
    cells: Sequence[int]
