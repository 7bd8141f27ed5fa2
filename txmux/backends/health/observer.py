"""Observes the servers of a service by what all its processes count, and tries those that are failing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txmux.backends.health.checking import CheckResult, CheckRun
from txmux.backends.health.probes import with_hint
from txmux.backends.health.silence import ServerSilence
from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import ENOUGH_SOURCES, MemberState
from txmux.backends.upstream import Upstream
from txmux.backends.upstreams import Upstreams
from txmux.classes import define, frozen
from txmux.rules.model import Rules, Server
from txmux.telemetry.counting.counter_groups import SERVER, SERVER_CAUSES
from txmux.telemetry.counting.counters import Counters, ServerChanges
from txmux.telemetry.events import server_event
from txmux.telemetry.formatting import duration, plural
from txmux.telemetry.reasons import FAILURE_TEXTS, ServerFailure
from txmux.wire import codec
from txmux.wire.codec import NUMBER, TEXT, WHOLE, converted, sent

ObservedState = Literal["failing", "silent"]

FAILURES = 3
"""Attempts in a row that have failed when a server is failing."""

_FAILING_AFTER = 2.0  # seconds since the first of them
_SETTLED = 10.0
"""Seconds without a reset after which a connection is a success: gateways accept first, and reset when their server does not answer."""

_REFUSED_LATELY = 3.0
"""Seconds since a client was refused in which a datagram that nothing refuses says little: systems limit such refusals, by ICMP."""

_RESET_LATELY = 30.0
"""Seconds since a client was reset in which a connection that stays open without a byte says little: some reset who sends something."""

_BY_CLIENTS: tuple[ServerFailure, ...] = ("reset", "tls-failed")
"""What a server may do rightly for what one client sends: of one or two sources, it says nothing."""

_SILENT_CLIENTS = 5
_SILENT_AFTER = 15.0  # seconds since the first of them has sent something
_PATIENCE = 3.0  # seconds that the last of them had for a byte
_TIMES_AS_LONG = 3  # as a server usually needs for its first byte
_LONGEST_USUAL = 200.0  # seconds of that: one answer may come after hours
_FADES = 0.9  # of it remains if the next slow answer is faster
_STALE = 60.0  # seconds after which what the last sources have met no longer counts

_FAILED = {cause: SERVER.failed.positions[cause] for cause in SERVER_CAUSES}
_ASKED, _ANSWERED = SERVER.asked.at, SERVER.answered.at
_CLOSED, _BAD_REQUESTS = SERVER.closed.at, SERVER.bad_requests.at
_CELLS = SERVER.total.at, _ASKED, _ANSWERED, SERVER.unanswered.at
_LOCAL, _ANSWER_TIME = SERVER.local_faults.at, SERVER.answer_time.at


def has_answered(cells: Sequence[int]) -> bool:
    return cells[_ANSWERED] > 0


def usual_wait(cells: Sequence[int], before: float) -> float:
    """Return how many seconds a server takes for its first byte where it takes long, as for long polls; `before` is the last such result.

    The mean of a second counts: where much faster answers hide slow ones, they also show that it answers.
    """
    wait = cells[_ANSWER_TIME] / 1e6 / max(1, cells[_ANSWERED])
    is_slow = wait * _TIMES_AS_LONG > _PATIENCE
    return min(_LONGEST_USUAL, max(wait, _FADES * before)) if is_slow else before


def is_suspicious(cells: Sequence[int]) -> bool:
    """Whether growth of cells may be the beginning of a trouble."""
    if cells[_ANSWERED] > cells[_BAD_REQUESTS]:
        return False
    return any(cells[at] for at in (_ASKED, _CLOSED, _BAD_REQUESTS, *_FAILED.values()))


@frozen
class Activity:
    """What has happened at a server since the last reading.

    Attributes:
        failed: Its failures, by cause.
        waiting: The sources of clients that have had no byte from it.
        reset: The sources of clients that it has reset before its first byte, or whose TLS failed.
        closed: Connections that it has closed before the client did, without a byte.
        bad_requests: Of `answered`, those that were HTTP's status 400, behind a PROXY header.
    """

    connected: int = 0
    asked: int = 0
    answered: int = 0
    unanswered: int = 0
    failed: Mapping[ServerFailure, int] = attrs.field(factory=dict)
    waiting: Collection[int] = ()
    reset: Collection[int] = ()
    closed: int = 0
    bad_requests: int = 0

    @classmethod
    def of(
        cls, cells: Sequence[int], waiting: Collection[int] = (), reset: Collection[int] = ()
    ) -> Activity:
        failed = {cause: cells[at] for cause, at in _FAILED.items() if cells[at]}
        if local := cells[_LOCAL]:
            failed["error"] = max(0, failed.get("error", 0) - local)
        connected, asked, answered, unanswered = (cells[at] for at in _CELLS)
        others = cells[_CLOSED], cells[_BAD_REQUESTS]
        return cls(connected, asked, answered, unanswered, failed, waiting, reset, *others)


@define(eq=False)
class _Streak:
    """Connections in a row that had no use, though none has failed."""

    _count: int = 0
    _first: float = 0.0
    _last: float = 0.0

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, now: float, count: int) -> None:
        if count:
            self._first, self._last = self._first if self._count else now, now
            self._count += count

    def clear(self) -> None:
        self._count = 0

    def is_long(self, now: float) -> bool:
        if now - self._last >= _STALE:
            self.clear()
        return self._count >= FAILURES

    def __str__(self) -> str:
        return f"{self._count} of {self._count} in {_span(self._first, self._last)}"


_CAUSE = converted(lambda text: text if text in SERVER_CAUSES else "error")


@define(eq=False)
class ServerObservation:
    """Judges one server by its connections. Pure.

    Readings come about once a second, so the order of what happened within one is unknown; a success then outweighs failures.

    Attributes:
        failures: Attempts in a row that have failed.
        may_be_silent: Whether an answer can be expected of it.
        is_udp: Whether it gets datagrams, which may go unanswered without a server, too.
        tries_tls: Whether an attempt of txmux itself includes TLS, as that of a client does.
        usual: For how many seconds its clients usually wait for its first byte; see `usual_wait`.
    """

    may_be_silent: bool = True
    is_udp: bool = False
    tries_tls: bool = attrs.field(default=False, kw_only=True)
    usual: float = sent(NUMBER, default=0.0, kw_only=True)
    failures: int = sent(WHOLE, default=0, init=False)
    _first_failure: float = attrs.field(default=0.0, init=False)
    _last_failure: float = attrs.field(default=0.0, init=False)
    _kind: ServerFailure = sent(_CAUSE, default="error", init=False)
    _cause: str = sent(TEXT, default="", init=False)
    # Of connections since the first failure: those that are still young, the number of others, and of resets.
    _young: deque[tuple[float, int]] = attrs.field(factory=deque, init=False)
    _settled: int = attrs.field(default=0, init=False)
    _resets: int = attrs.field(default=0, init=False)
    _by_clients: int = sent(WHOLE, default=0, init=False)  # of the failures
    _sources: set[int] = attrs.field(factory=set, init=False)  # of those
    # Of txmux itself, all in vain.
    _tries: int = sent(WHOLE, name="tried", default=0, init=False)
    _last_try: float = attrs.field(default=0.0, init=False)
    _closed: _Streak = attrs.field(factory=_Streak, init=False)
    _bad_requests: _Streak = attrs.field(factory=_Streak, init=False)
    _try_failed: bool = attrs.field(default=False, init=False)  # the last one of txmux itself
    _silence: ServerSilence = attrs.field(
        factory=lambda: ServerSilence(_SILENT_CLIENTS), init=False
    )

    @property
    def is_idle(self) -> bool:
        return not (self.failures or self._silence.clients or self._closed or self._bad_requests)

    @property
    def is_stale(self) -> bool:
        return 0 < self._silence.clients < self._silence.enough

    def record(self, now: float, activity: Activity) -> None:
        if activity.answered or (activity.unanswered and not self.is_udp):
            self._clear()
        else:
            self._record_failures(now, activity)
        self._silence.record(now, activity.asked, activity.answered, activity.waiting)
        if activity.answered:
            self._closed.clear()
        else:
            self._closed.add(now, activity.closed)
        if activity.answered > activity.bad_requests:
            self._bad_requests.clear()
            self._try_failed = False
        else:
            self._bad_requests.add(now, activity.bad_requests)

    def _record_failures(self, now: float, activity: Activity) -> None:
        failed = activity.failed
        if count := sum(failed.values()):
            if not self.failures:
                self._first_failure = now
            self.failures += count
            self._last_failure = now
            kind = max(failed, key=lambda cause: failed[cause])
            if kind != self._kind or not self._cause:
                self._kind, self._cause = kind, FAILURE_TEXTS[kind]
        if self.failures:
            self._resets += failed.get("reset", 0)
            self._by_clients += sum(failed.get(cause, 0) for cause in _BY_CLIENTS)
            if len(self._sources) < ENOUGH_SOURCES:
                self._sources.update(activity.reset)
            if activity.connected:
                self._young.append((now, activity.connected))

    def _clear(self) -> None:
        self.failures = self._settled = self._resets = self._by_clients = 0
        self._cause, self._tries, self._last_try = "", 0, 0.0
        self._young.clear()
        self._sources.clear()

    def tried(self, now: float, *, ok: bool, why: str = "", has_answered: bool = False) -> None:
        """Record an attempt of txmux itself, which without a byte says less than what clients have just met."""
        self._try_failed = not ok
        if not ok:
            self._cause, self._last_try = why, now
            self._tries += 1
            return
        self._bad_requests.clear()  # by what those clients had sent
        is_met = self._kind != "reset" and (self._kind != "tls-failed" or self.tries_tls)
        lately = _REFUSED_LATELY if self.is_udp else 0.0 if is_met else _RESET_LATELY
        if has_answered or now - self._last_failure >= lately:
            self._clear()
            self._silence.clear()  # those had no connection

    def state(self, now: float) -> ObservedState | None:
        while self._young and now - self._young[0][0] >= _SETTLED:
            self._settled += self._young.popleft()[1]
        if self._settled > self._resets:
            self._clear()
        if self._is_failing and now - self._first_failure >= _FAILING_AFTER:
            return "failing"
        silence = self._silence
        if not silence.is_enough or not self.may_be_silent:
            return None
        long = _TIMES_AS_LONG * self.usual
        if now - silence.last >= _STALE + long:
            silence.clear()
            silence.clients = silence.enough - 1  # the next ones show whether it is still so
            return None
        waited, the_last_waited = now - silence.first, now - silence.reached
        is_silent = waited >= max(_SILENT_AFTER, long) and the_last_waited >= max(_PATIENCE, long)
        return "silent" if is_silent else None

    @property
    def _is_failing(self) -> bool:
        """Whether enough attempts have failed, other than by what one source sends, which a server may reset rightly."""
        are_several = len(self._sources) >= ENOUGH_SOURCES or self._tries > 0
        return self.failures - (0 if are_several else self._by_clients) >= FAILURES

    def why(self, state: ObservedState, now: float) -> str:
        if state == "silent":
            silence = self._silence
            clients = plural(silence.clients, "client")
            return f"no byte from it to {clients} in a row for {_span(silence.first, now)}"
        count = self.failures + self._tries
        span = _span(self._first_failure, max(self._last_failure, self._last_try))
        return f"{self._cause}, {count} of {count} in {span}"

    def doubt(self, now: float) -> str:
        """Return what its last clients have met, which may be their own fault; empty if there is nothing."""
        if self.failures >= FAILURES and now - self._first_failure >= _FAILING_AFTER:
            return self.why("failing", now)
        if self._closed.is_long(now) and self.may_be_silent:
            return f"closed without a byte, {self._closed}"
        if self._bad_requests.is_long(now) and self._try_failed:
            return f"HTTP 400, {self._bad_requests}"
        return ""

    def shall_be_tried(self, now: float) -> bool:
        """Whether txmux tries it: before it counts as failing, too, since it may just have been restarted."""
        return self.failures >= FAILURES or self._bad_requests.is_long(now)

    def began(self, state: ObservedState) -> float:
        return self._first_failure if state == "failing" else self._silence.first

    def as_json(self, now: float) -> dict[str, Any]:
        """Return what another process needs to continue; its clock is another, so times are ages."""
        silence = self._silence
        return {
            **codec.write(self),
            "failed": [now - self._first_failure, now - self._last_failure],
            "last_try": now - self._last_try,
            "clients": silence.clients,
            "asked": [now - silence.first, now - silence.reached],
            "sources": {str(source): now - at for source, at in silence.sources.items()},
            "resets": [self._resets, *self._sources],
        }

    def restore(self, fields: Mapping[str, Any], now: float) -> None:
        """Raises `KeyError`, `TypeError` or `ValueError`."""
        codec.update(self, fields)
        silence, sources = self._silence, fields["sources"].items()
        self._first_failure, self._last_failure = (now - float(age) for age in fields["failed"])
        self._last_try = now - float(fields.get("last_try", now))
        silence.clients = int(fields["clients"])
        silence.first, silence.reached = (now - float(age) for age in fields["asked"])
        silence.sources = {int(source): now - float(age) for source, age in sources}
        self._resets, *reset = map(int, fields["resets"])
        self._sources = {*reset}


def _span(first: float, last: float) -> str:
    return duration(max(1, round(last - first)))


ServerKey = tuple[str, str]
"""A backend's name, and the server as the rules write it."""

_TRY_EVERY = 5.0
_MOST_STARTED = 100  # tries that begin in one turn of the reactor


@frozen
class ObservedServer:
    """The state of a server by its connections; `since` is in seconds of the observer's clock, and in `observed` since 1970."""

    state: ObservedState
    why: str
    since: float


@define(eq=False)
class _Watched:
    observation: ServerObservation
    shown: ObservedServer | None = None
    doubt: str = ""
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
        ahead = time.time() - self._clock.seconds()
        return {
            key: attrs.evolve(one.shown, since=ahead + one.shown.since)
            for key, one in self._watched.items()
            if one.shown is not None
        }

    def doubts(self) -> dict[ServerKey, str]:
        return {key: one.doubt for key, one in self._watched.items() if one.doubt}

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
                if server.is_judged
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
        now = self._clock.seconds()
        for fields in rows:
            with suppress(KeyError, TypeError, ValueError):  # of another version
                key = fields["backend"], fields["server"]
                watched = _Watched(self._observation(key))
                watched.observation.restore(fields, now)
                watched = self._watched.setdefault(key, watched)
                if members := self._members(key):
                    self._update(key, watched, members, now)

    def _forget(self, key: ServerKey) -> None:
        self._watched.pop(key).stop_trying()

    def _update(self, key: ServerKey, watched: _Watched, members: list[Member], now: float) -> None:
        observation, before = watched.observation, watched.shown
        observation.usual = self._usual.get(key, observation.usual)
        state, backend = observation.state(now), self._servers[key][0].backend
        doubt = observation.doubt(now) if state is None else ""
        watched.doubt = with_hint(doubt, backend)
        if state is None:
            watched.shown = None
        else:
            why = with_hint(observation.why(state, now), backend)
            watched.shown = ObservedServer(state, why, observation.began(state))
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
        if not self._upstreams.server_lines.may_log(self._servers[key][0].backend, "server"):
            return
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
            seconds=duration(round(self._clock.seconds() - before.since)),
            more=more,
        )

    # Tries.

    def _shall_try(self, watched: _Watched, now: float) -> bool:
        is_due = not watched.awaited and now >= watched.next_try
        return is_due and watched.observation.shall_be_tried(now)

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
            now, is_good = self._clock.seconds(), bool(result.ok)
            watched.observation.tried(
                now, ok=is_good, why=result.why, has_answered=result.has_answered
            )
