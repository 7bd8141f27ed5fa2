"""Observes the servers of a service by what all its processes count, and tries those that are failing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txmux.backends.health.checking import CheckResult, CheckRun
from txmux.backends.health.observing import (
    FAILURES,
    Activity,
    ObservedState,
    ServerObservation,
    has_answered,
    is_suspicious,
    usual_wait,
)
from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Rules, Server
from txmux.telemetry.counting.counter_groups import SERVER
from txmux.telemetry.counting.counters import Counters, ServerChanges
from txmux.telemetry.events import server_event
from txmux.telemetry.formatting import duration

ServerKey = tuple[str, str]
"""A backend's name, and the server as the rules write it."""

_TRY_EVERY = 5.0
_MOST_STARTED = 100  # tries that begin in one turn of the reactor


@attrs.frozen
class ObservedServer:
    """The state of a server by its connections; `since` is in seconds since 1970."""

    state: ObservedState
    why: str
    since: float


@attrs.define(eq=False)
class _Watched:
    observation: ServerObservation
    shown: ObservedServer | None = None
    next_try: float = 0.0
    attempts: list[CheckRun] = attrs.field(factory=list)
    awaited: int = 0  # results of attempts

    def stop_trying(self) -> None:
        attempts, self.attempts, self.awaited = self.attempts, [], 0
        for attempt in attempts:
            attempt.abort()


class ServerObserver:
    """Finds servers that are failing or silent; see `ServerObservation`. Only those with a trouble are remembered."""

    _log = Logger()

    def __init__(self, upstreams: Upstreams, counters: Counters, clock: IReactorTime) -> None:
        self._upstreams = upstreams
        self._counters = counters
        self._clock = clock
        self._changes = ServerChanges(counters)
        self._watched: dict[ServerKey, _Watched] = {}
        self._usual: dict[ServerKey, float] = {}  # of those that take long; see `usual_wait`
        self._known: list[Upstream] = []
        self._servers: dict[ServerKey, tuple[Upstream, Server]] = {}

    def observed(self) -> dict[ServerKey, ObservedServer]:
        return {key: one.shown for key, one in self._watched.items() if one.shown is not None}

    def idle(self, rules: Rules) -> list[str]:
        """Return the names of those used backends of which no server serves, some of them by what is observed."""
        observed = self.observed()
        return [
            name
            for name, backend in (rules.used_backends() if observed else {}).items()
            if any((name, server.text) in observed for server in backend.servers)
            and not any(self._serves((name, server.text)) for server in backend.servers)
        ]

    def _serves(self, key: ServerKey) -> bool:
        members = self._members(key) or ()
        is_up = any(member.state is MemberState.UP for member in members)
        return is_up and (key not in self._watched or self._watched[key].shown is None)

    def stop(self) -> None:
        """Forget all, and end tries."""
        for key in [*self._watched]:
            self._forget(key)

    def tick(self) -> None:
        """Read the counters, and try servers; called each second."""
        changes = self._changes.take()
        if not (changes or self._watched):
            return
        now = self._clock.seconds()
        self._use(self._upstreams.all())
        for key, (cells, *sources) in changes.items():
            if key in self._servers:
                self._record(key, now, Activity.of(cells, *sources), cells)
        left = _MOST_STARTED
        for key, watched in [*self._watched.items()]:
            members = self._members(key)
            if members is None:
                if watched.shown is not None:
                    self._log_end(key, watched.shown, "; it has been taken out of use")
                self._forget(key)
                continue
            is_down = bool(members) and all(member.state is MemberState.DOWN for member in members)
            if is_down:
                # Its checks have the say: what its clients meet meanwhile says nothing once it is up.
                watched.stop_trying()
                watched.observation = self._observation(key)
            else:
                if members and left and self._shall_try(watched, now):
                    left -= 1
                    self._start_try(key, watched, members)
                self._update(key, watched, members, now)
            if watched.observation.is_idle and watched.shown is None:
                self._forget(key)

    def _use(self, upstreams: list[Upstream]) -> None:
        if upstreams != self._known:
            self._known = upstreams
            self._servers = {
                (upstream.backend.name, server.text): (upstream, server)
                for upstream in upstreams
                for server in upstream.backend.servers
                if not server.depends_on_client
            }
            self._usual = {key: self._usual[key] for key in self._usual.keys() & self._servers}

    def _members(self, key: ServerKey) -> list[Member] | None:
        """Return the addresses of a server; ``None`` if it is gone, or out as an operator or the rules want it."""
        if key not in self._servers:
            return None
        upstream, server = self._servers[key]
        members = upstream.pool.members_of(server)
        is_out = bool(members) and all(member.state.is_out for member in members)
        return None if server.down or is_out else members

    def _record(self, key: ServerKey, now: float, activity: Activity, cells: Sequence[int]) -> None:
        if usual := usual_wait(cells, self._usual.get(key, 0.0)):
            self._usual[key] = usual
        watched = self._watched.get(key)
        if watched is None:
            if not is_suspicious(cells):
                return
            watched = _Watched(self._observation(key))
        watched.observation.record(now, activity)
        if not watched.observation.is_idle:
            self._watched[key] = watched

    def _observation(self, key: ServerKey) -> ServerObservation:
        upstream, server = self._servers[key]
        is_udp, eject = server.kind == "udp", upstream.backend.eject
        expected = None if eject is None else eject.unanswered
        check = upstream.backend.check
        # Many servers of datagrams never answer, such as those of logs. Where a check speaks the protocol, that one knows.
        may_be_silent = expected != 0 and bool(
            not is_udp or expected or has_answered(self._counters.cells(SERVER.key(*key)))
        )
        if check is not None and check.kind != "tcp":
            may_be_silent = False
        return ServerObservation(may_be_silent, is_udp=is_udp, tries_tls=upstream.tls is not None)

    def as_json(self) -> list[dict[str, Any]]:
        """Return what is known of servers that are failing or silent, for another process."""
        now = self._clock.seconds()
        return [
            {"backend": backend, "server": server, **watched.observation.as_json(now)}
            for (backend, server), watched in self._watched.items()
            if watched.shown is not None
        ]

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Continue what another process has observed of servers that the rules here have, too."""
        self._use(self._upstreams.all())
        for fields in rows:
            with suppress(KeyError, TypeError, ValueError):  # of another version
                key = fields["backend"], fields["server"]
                watched = _Watched(self._observation(key))
                watched.observation.restore(fields, self._clock.seconds())
                self._watched.setdefault(key, watched)

    def _forget(self, key: ServerKey) -> None:
        self._watched.pop(key).stop_trying()

    def _update(self, key: ServerKey, watched: _Watched, members: list[Member], now: float) -> None:
        observation, before = watched.observation, watched.shown
        observation.usual = self._usual.get(key, observation.usual)
        state = observation.state(now)
        if state is None:
            watched.shown = None
        else:
            since = time.time() - (now - observation.began(state))
            if before is not None and before.state == state:
                since = before.since
            watched.shown = ObservedServer(state, observation.why(state, now), since)
        if (before and before.state) != state:
            self._report(key, before, watched, members)

    def _report(
        self,
        key: ServerKey,
        before: ObservedServer | None,
        watched: _Watched,
        members: list[Member],
    ) -> None:
        backend, server = key
        now, usual = watched.shown, members[0].state.value if members else "up"
        address = members[0].target.text if len(members) == 1 else server
        is_stale = now is None and watched.observation.is_stale
        why = now.why if now else "no client has come" if is_stale else "it serves again"
        states = before.state if before else usual, now.state if now else usual
        self._upstreams.report(server_event(backend, server, address, *states, why))
        if now is not None:
            tried = f"; it is tried every {_TRY_EVERY:g} s" if now.state == "failing" else ""
            self._log.warn(
                "backend {backend}: {server} is {state}: {why}{tried}",
                backend=backend,
                server=server,
                state=now.state,
                why=why,
                tried=tried,
            )
        elif before is not None:
            unknown = "; no client has come to show whether it answers"
            self._log_end(key, before, unknown if is_stale else "")

    def _log_end(self, key: ServerKey, before: ObservedServer, more: str) -> None:
        self._log.info(
            "backend {backend}: {server} is no longer {state}, after {seconds}{more}",
            backend=key[0],
            server=key[1],
            state=before.state,
            seconds=duration(round(time.time() - before.since)),
            more=more,
        )

    # Tries.

    def _shall_try(self, watched: _Watched, now: float) -> bool:
        """Whether to try it now: before it counts as failing, too, since it may just have been restarted."""
        is_due = not watched.awaited and now >= watched.next_try
        return watched.observation.failures >= FAILURES and is_due

    def _start_try(self, key: ServerKey, watched: _Watched, members: list[Member]) -> None:
        watched.stop_trying()  # those that have their result, but whose server has not closed
        watched.next_try = self._clock.seconds() + _TRY_EVERY
        watched.awaited = len(members)
        upstream, _ = self._servers[key]
        finished = partial(self._tried, key, watched)
        for member in members:
            watched.attempts.append(self._upstreams.try_member(upstream, member, finished))

    def _tried(self, key: ServerKey, watched: _Watched, result: CheckResult) -> None:
        """Take the result of one address of a server; one that works is enough."""
        watched.awaited -= 1
        is_last = not watched.awaited and result.ok is not None
        if self._watched.get(key) is watched and (result.ok or is_last):
            watched.observation.tried(
                self._clock.seconds(),
                ok=bool(result.ok),
                why=result.why,
                has_answered=result.has_answered,
            )
