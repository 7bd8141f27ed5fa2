"""The backends of a running process, under rules that may change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.backends.connect.dial import Dialler
from txmux.backends.connect.source import check_transparent
from txmux.backends.health.checking import CheckResult, CheckRun, ProbeTarget
from txmux.backends.health.checks import CheckPace, HealthChecks, key_of
from txmux.backends.health.silence import SilenceWatch
from txmux.backends.names.cache import NameCache
from txmux.backends.names.destinations import Destinations
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import Availability, is_name
from txmux.backends.pool.server_health import (
    HealthRegistry,
    MemberState,
    ServerHealth,
    ServerOverrides,
)
from txmux.backends.upstream import BackendFiles, Destination, ServerLines, Upstream
from txmux.errors import MuxError, cause_of
from txmux.net.sockets.timers import Timers
from txmux.rules.feature import ServerStart
from txmux.rules.installed import is_asleep, start_of
from txmux.rules.model import Backend, Check, Outcome, Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.replacement import all_backends_in
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.documents import CheckDocument
from txmux.telemetry.sources import Source
from txmux.transport import Transport
from txmux.wire import codec
from txmux.wire.codec import Origin

if TYPE_CHECKING:
    from txmux.net.tls.validity import Validity

    Publish = Callable[[str, str, bool, str], None]


_MOST_CHECKS = 100  # a second, of the servers of one author


class Upstreams:
    """All backends of one process.

    Args:
        clock: For the timers of connections.
        publish: Sends other processes what checks have found, when that changes: the backend's name, the server's key, whether
            it is up, and why.
        checking: Whether servers are checked here; otherwise another process's findings come by `apply_check`.
        names: Has the addresses of servers' names; without it, they are looked up here.
        is_own_address: Whether this service itself listens at an IP address and port.

    Attributes:
        on_checked: Called with a backend and a server that its checks have found down, or up again.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        dialler: Dialler,
        *,
        publish: Publish | None = None,
        checking: bool = True,
        counters: ProcessCounters | None = None,
        names: NameResolver | None = None,
        is_own_address: Callable[[str, int], bool] = lambda _host, _port: False,
    ) -> None:
        self._counters = counters or ProcessCounters()
        self._reactor = reactor
        self._clock = clock
        self._dialler = dialler
        self._publish = publish
        self._checking = checking
        self._upstreams: dict[Backend, Upstream] = {}
        self._by_name: dict[str, dict[Upstream, None]] = {}
        self._removed = WeakValueDictionary[str, Upstream]()
        self._by_availability: dict[Availability, dict[Upstream, None]] = {
            availability: {} for availability in (Availability.SOME, Availability.NONE)
        }
        self.uses = Uses()
        self._with_files: dict[Upstream, None] = {}
        self.known = HealthRegistry()
        self.server_starter = ServerStarter(reactor, self._startable)
        self.known.on_waiting = self.server_starter.report
        self.tell: Callable[[dict[str, Any]], object] | None = None
        self.on_checked: Callable[[Backend, Member], object] = lambda _backend, _member: None
        self._checks: dict[Upstream, HealthChecks] = {}
        self._paces: dict[int, CheckPace] = {}  # by authors
        self._silence = SilenceWatch(reactor)
        self._prepared: PreparedUpstreams | None = None
        self._names = names or NameResolver(reactor)
        self.server_lines = ServerLines(reactor, self._names.other_author)
        self._is_own_address = is_own_address
        self._name_cache: NameCache | None = None
        self._users = 0

    def upstream_of(self, backend: Backend) -> Upstream:
        upstream = self._upstreams.get(backend)
        if upstream is None:
            upstream = self._upstreams[backend] = Upstream(
                backend,
                self._clock,
                self.destination_of(backend.fallback),
                # Names of others may take long.
                partial(self.first_look_ups, backend),
                checking=self._checking,
                backend_health=self.known.health_of(backend.name),
                tell=self.report,
                may_log=partial(self.server_lines.may_log, backend),
                counters=self._counters,
                files=self._files_of(backend),
            )
            upstream.current = partial(self._current, backend)
            upstream.pool.on_checked = lambda member: self.on_checked(backend, member)
            upstream.destinations = self._destinations_of(backend)
            self._by_name.setdefault(backend.name, {})[upstream] = None
            upstream.pool.on_availability = partial(self._note_availability, backend)
            self._note_availability(backend)
            if upstream.files is not None:
                self._with_files[upstream] = None
            if self._prepared is not None:
                self._prepared.made.append(upstream)
            elif self._users:
                self._start_upstream(upstream)
        return upstream

    def _note_availability(self, backend: Backend) -> None:
        upstream = self._upstreams[backend]
        for availability, those in self._by_availability.items():
            if upstream.pool.availability is availability:
                those[upstream] = None
            else:
                those.pop(upstream, None)

    def without_server(self, used: Callable[[], Mapping[str, Backend]]) -> list[str]:
        """Return the names of those used backends of which no server is up; `used` is only called if there may be some.

        One that is asleep waits for its first client, which would not come if a balancer took this machine out for it; nor would the
        one that tries a server whose ejection is over.
        """
        without = {
            upstream.backend
            for upstream in self._by_availability[Availability.NONE]
            if not (is_asleep(upstream.backend) or upstream.pool.has_due)
        }
        return [name for name, backend in used().items() if backend in without] if without else []

    def troubled(self) -> list[str]:
        return sorted(
            {one.backend.name for those in self._by_availability.values() for one in those}
        )

    def _files_of(self, backend: Backend) -> BackendFiles | None:
        """Return the files of a backend, which all have in common that name them alike, and check the privilege for its ``source``.

        Raises:
            RulesError: A file cannot be used, and the rules are from a file, too.
            MuxError: The same without such a file; or the privilege is missing.
        """
        its = backend.tls, backend.proxy
        try:
            if "client" in backend.source:
                check_transparent()
            if its == (None, None):
                return None
            for one in self._called(backend.name):
                if (one.backend.tls, one.backend.proxy) == its:
                    return one.files
            return BackendFiles(backend, self._reactor.seconds)
        except MuxError as problem:
            named = getattr(problem, "key", "")
            if not named or not backend.section.header:
                why = f"[backend {backend.name}] {named or 'source'}: {problem}"
                raise MuxError(why) from problem
            raise RulesError([backend.section.problem(str(problem), named)]) from problem

    def watched(self) -> list[BackendFiles]:
        return [*{one.files: None for one in self._with_files if one.files is not None}]

    def _destinations_of(self, backend: Backend) -> Destinations | None:
        if not any(server.depends_on_client for server in backend.servers):
            return None
        if self._name_cache is None:
            self._name_cache = NameCache(self._reactor, logs=self._checking)
        seconds = self._clock.seconds
        return Destinations(backend, self._name_cache, self._is_own_address, seconds)

    def sources(self) -> Iterator[Source]:
        """Return the name servers and other sources of this process."""
        yield from self._names.sources()
        if self._name_cache is not None:
            by_name = [
                backend for backend, upstream in self._upstreams.items() if upstream.destinations
            ]
            yield from self._name_cache.sources({backend.resolvers for backend in by_name})

    def apply_overrides(
        self, orders: ServerOverrides, held: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Apply an operator's overrides: of servers, and of backends whose clients wait until a time; see `WaitingClients`."""
        self.known.apply_overrides(orders)
        self.known.hold(held)
        self.server_starter.hold(held)

    def _startable(self, backend: str) -> Backend | None:
        """Return a backend whose servers may be started; nothing while an operator holds its clients, who may have stopped them."""
        if self.known.is_held(backend):
            return None
        return next((its.backend for its in self._called(backend)), None)

    def find(self, backend: str) -> Upstream:
        """Find the backend in which a client of another process waits, also one that is removed and still in use; a `LookupError` if there is none."""
        for upstream in self._called(backend):
            return upstream
        if (removed := self._removed.get(backend)) is not None:
            return removed
        raise LookupError(f"there is no backend {backend!r}")

    def _called(self, name: str) -> Iterable[Upstream]:
        return self._by_name.get(name, ())

    def _current(self, backend: Backend) -> Upstream | None:
        upstream = self._upstreams.get(backend)
        return upstream or next(iter(self._called(backend.name)), None)

    def all(self, of: Iterable[str] | None = None) -> list[Upstream]:
        """Return all upstreams, or those of backends with such names."""
        if of is None:
            return [*self._upstreams.values()]
        return [upstream for name in of for upstream in self._called(name)]

    def report(self, event: dict[str, Any]) -> None:
        if self.tell is not None:
            self.tell(event)

    def last_check(self, upstream: Upstream, member: Member) -> CheckDocument | None:
        checks = self._checks.get(upstream)
        last = None if checks is None else checks.last_check(member)
        return None if last is None else last.as_json(self._reactor.seconds())

    def destination_of(self, outcome: Outcome) -> Destination:
        return self.upstream_of(outcome) if isinstance(outcome, Backend) else outcome

    def adopt(
        self, backend: str, server: str, *, is_established: bool = True
    ) -> tuple[Upstream, Member] | None:
        """Count a connection that another process has made; see `BackendPool.adopt`."""
        for upstream in self._called(backend):
            if member := upstream.pool.adopt(server, is_established=is_established):
                its = upstream.destinations
                return upstream, member if its is None else its.adopted(member, server)
        return None

    def add_backends(self, rules: Rules) -> None:
        """Make the upstreams of all backends of the rules; a `RulesError` names all files that cannot be used."""
        problems: list[Problem] = []
        self.uses = Uses()
        self._names.prepare_for(rules)
        for backend in all_backends_in(rules):
            try:
                self.upstream_of(backend)
            except RulesError as error:
                problems += error.problems
            self.uses.add(backend)
        if problems:
            raise RulesError(problems)

    def prepare_all_in_steps(self, rules: Rules) -> Generator[None, None, PreparedUpstreams]:
        return self.prepare_in_steps(rules, all_backends_in(rules), placed=rules.placed_error)

    def prepare_in_steps(
        self,
        rules: Rules,
        used: Iterable[Backend],
        dropped: Iterable[Backend] | None = None,
        placed: Callable[[MuxError], MuxError] = lambda problem: problem,
    ) -> Generator[None, None, PreparedUpstreams]:
        """Make the new upstreams of changed rules, and read files that have changed; nothing that exists changes.

        Names are looked up from now on. What is returned must be committed or abandoned before anything is prepared again;
        only abandoned if it has ``problems``.

        Args:
            rules: The changed rules.
            used: The backends that they name, each so often as they do, and
            dropped: those that they no longer name; ``None`` are all that there were.
            placed: Gives an error the line where its section is now.
        """
        self._names.prepare_for(rules)
        uses = Uses() if dropped is None else self.uses.copy()
        prepared = self._prepared = PreparedUpstreams(self, uses)
        try:
            for files in self.watched():
                prepared.read.append(files.read_again())
                yield
            for backend in used:
                try:
                    self.upstream_of(backend)
                except MuxError as problem:
                    prepared.problems.append(str(placed(problem)))
                uses.add(backend)
                yield
            for backend in dropped or ():
                uses.drop(backend)
                yield
            removed = self._upstreams if dropped is None else uses.removed
            yield from prepared.let_go(removed)
            for upstream in prepared.made if self._users else ():
                self._names.prepare(upstream.backend)
        except BaseException:  # it is given up, or another version has been installed meanwhile
            self.abandon(prepared)
            raise
        return prepared

    def commit(self, prepared: PreparedUpstreams) -> None:
        self._prepared = None
        for use in prepared.read:
            use()
        # First, so that the look-ups of names that both have are not interrupted.
        for upstream in prepared.made:
            if self._users:
                self._start_upstream(upstream)
        self.uses = prepared.uses
        for upstream in prepared.removed:
            self._forget(upstream)
            self._removed[upstream.backend.name] = upstream
            if upstream in self._checks:
                self._checks.pop(upstream).stop()
            self._silence.remove(upstream.pool)
            upstream.pool.retire()
        for upstream in prepared.made:
            upstream.pool.commit()
        list(self.sources())  # forgets names that no rules use

    def abandon(self, prepared: PreparedUpstreams) -> None:
        self._prepared = None
        for upstream in prepared.made:
            self._forget(upstream)

    def _forget(self, upstream: Upstream) -> None:
        backend = upstream.backend
        del self._upstreams[backend]
        del self._by_name[backend.name][upstream]
        if not self._by_name[backend.name]:
            del self._by_name[backend.name]
        upstream.pool.on_availability = None
        for those in self._by_availability.values():
            those.pop(upstream, None)
        self._with_files.pop(upstream, None)
        self._names.remove_pool(upstream.pool)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the state of servers for another process, but of no backend whose servers are as at a start: of thousands, most are."""
        its = Origin(self._clock.seconds())
        return [
            {
                "backend": upstream.backend.name,
                "server": member.server.text,
                "target": member.target.text,
                "connections": member.health.connections,
                **codec.write(member.health, its),
            }
            for upstream in self._upstreams.values()
            if not upstream.pool.is_as_at_start
            for member in upstream.pool.members
        ]

    def restore(self, servers: Iterable[dict[str, Any]], *, knew: bool = True) -> None:
        """Take over the state of servers from another process, for backends that this one has, too.

        Those that the state lacks are as at a start; but that process `knew` them, so no single check takes them out.
        """
        now = self._clock.seconds()
        restored: dict[str, set[ServerHealth | None]] = {}
        for fields in servers:
            with suppress(KeyError, OverflowError, TypeError, ValueError):  # of another version
                backend_health = self.known.get_health(fields.get("backend", ""))
                if backend_health is not None:
                    key = fields["server"], fields["target"]
                    health = backend_health.restore(key, fields, now)
                    restored.setdefault(fields["backend"], set()).add(health)
        for upstream in self._upstreams.values():
            states = restored.get(upstream.backend.name, set[ServerHealth | None]())
            if upstream.pool.has_taken_over and not states:
                continue  # as most of thousands, when the state comes again
            for member in upstream.pool.members if states else ():
                if member.health not in states and not is_name(member.server):
                    member.health.came_at = None  # it is new in the rules, which have changed
            for member in upstream.pool.members if knew and not states else ():
                member.health.contrary = 0
            upstream.pool.commit()

    def start(self) -> None:
        """Start to look names up and to check servers. Each of several users calls it."""
        self._users += 1
        if self._users == 1:
            for upstream in [*self._upstreams.values()]:
                self._start_upstream(upstream)

    def stop(self) -> Deferred[None]:
        """Stop after the last user has called this."""
        self._users -= 1
        if self._users:
            return succeed(None)
        self.server_starter.stop()
        self.server_lines.stop()
        self._silence.stop()
        for checks in self._checks.values():
            checks.stop()
        self._checks.clear()
        if isinstance(self._clock, Timers):
            self._clock.drop_idle()
        return Deferred.fromCoroutine(self._stop_names())

    async def _stop_names(self) -> None:
        if self._name_cache is not None:
            await self._name_cache.stop()
        await self._names.stop()

    def _start_upstream(self, upstream: Upstream) -> None:
        pool = upstream.pool
        check = upstream.backend.check
        if check is not None and self._checking:
            checks = HealthChecks(
                upstream.dialler(self._dialler),
                self._reactor,
                pool,
                check,
                partial(self._take_result, upstream),
                wrap=upstream.wrap if upstream.tls else None,
                timers=self._clock,
            )
            author = self._names.other_author(upstream.backend)
            if author is not None:
                checks.pace = self._paces.setdefault(author, CheckPace(_MOST_CHECKS))
            pool.on_members = checks.refresh
            self._checks[upstream] = checks
            checks.start()
        eject = upstream.backend.eject
        is_tcp = upstream.backend.transport is Transport.TCP
        # A supervisor, which publishes results, serves no clients.
        if eject is not None and eject.unanswered and is_tcp and self._publish is None:
            self._silence.add(pool)
        self._names.add_pool(pool)

    def try_member(
        self,
        upstream: Upstream,
        member: Member,
        on_result: Callable[[CheckResult], None],
        check: Check | None = None,
    ) -> CheckRun:
        """Check a server once, without a check that asks something as a client's connection begins, or with an empty datagram.

        There may be a result before this returns.
        """
        only_opens = check is None or check.kind == "tcp"
        check = check or Check("tcp", timeout=upstream.backend.connect_timeout)
        target = ProbeTarget(upstream.backend, check, upstream.wrap if upstream.tls else None)
        attempt = target.make_check(self._reactor, member, on_result, only_opens=only_opens)
        target.start_check(attempt, upstream.dialler(self._dialler), member)
        return attempt

    def _take_result(
        self, upstream: Upstream, member: Member, *, ok: bool, why: str, is_first: bool
    ) -> None:
        has_changed = upstream.pool.check_result(member, ok=ok, why=why)
        # The first one, since other processes may know the server from earlier rules, or an earlier answer for its name.
        if self._publish is not None and (has_changed or is_first):
            health = member.health
            is_up = health.state is not MemberState.DOWN
            self._publish(upstream.backend.name, key_of(member), is_up, health.why)

    def apply_check(self, backend: str, key: str, *, ok: bool, why: str) -> None:
        """Apply what another process's checks have found of the server of this `key_of`: it is down, or up again."""
        named = self._called(backend)
        for upstream in named:
            member = upstream.find_member(key)
            if member is not None:  # it shares its health with those of the others
                upstream.pool.set_checked(member, ok=ok, why=why)
                return
        for upstream in named:
            upstream.keep_early(key, ok=ok, why=why)

    def stale(self) -> dict[tuple[str, str], tuple[float | None, str]]:
        return self._names.stale()

    def certificates(self) -> list[tuple[Backend, Validity]]:
        """Return when the client certificates presented to servers are valid, and the authorities of these."""
        return [
            (upstream.backend, one)
            for upstream in self._with_files
            if upstream.files is not None
            for one in upstream.files.validity
        ]

    def unanswered(self) -> set[str]:
        return self._names.unanswered()

    def first_look_ups(
        self, backend: Backend | None = None, *, besides: Iterable[str] = ()
    ) -> Deferred[None] | None:
        """Return what fires when names have been looked up for the first time, of a backend or of all; ``None`` if they have."""
        names = self._names.unanswered(backend).difference(besides)
        return self._names.first_answer(names=names) if names else None


class Uses(Counter[Backend]):
    """How often rules name each backend, which counts as a use of its fallback."""

    def __init__(self, counts: Mapping[Backend, int] = MappingProxyType({})) -> None:
        super().__init__()
        dict.update(self, counts)  # faster: there may be thousands
        self.removed: dict[Backend, None] = {}

    def copy(self) -> Uses:
        return Uses(self)

    def add(self, backend: Outcome) -> None:
        while isinstance(backend, Backend):
            self[backend] += 1
            self.removed.pop(backend, None)
            if self[backend] > 1:
                break
            backend = backend.fallback

    def drop(self, backend: Outcome) -> None:
        while isinstance(backend, Backend):
            self[backend] -= 1
            if self[backend]:
                break
            del self[backend]
            self.removed[backend] = None
            backend = backend.fallback


class PreparedUpstreams:
    """The upstreams of changed rules: new ones, and those that go."""

    def __init__(self, upstreams: Upstreams, uses: Uses) -> None:
        self._upstreams = upstreams
        self.uses = uses
        self.made: list[Upstream] = []
        self.removed: list[Upstream] = []
        self.read: list[Callable[[], None]] = []
        self.problems: list[str] = []

    def let_go(self, backends: Iterable[Backend]) -> Generator[None, None, None]:
        """Let go those of these backends that are no longer used."""
        for one in [*backends]:
            if not self.uses[one]:
                self.removed.append(self._upstreams._upstreams[one])
            yield

    def commit(self) -> None:
        self._upstreams.commit(self)

    def abandon(self) -> None:
        self._upstreams.abandon(self)


_EVERY = 30.0  # seconds
_MOVES = 1.0  # seconds within which a client that waits is in another process

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
        self._ending: dict[str, IDelayedCall] = {}
        self._sending: dict[str, Deferred[None]] = {}
        self._held: set[str] = set()  # by an operator, since the last that was sent
        self._due_at: dict[str, float] = {}  # of what another process has sent

    def report(self, backend: str, waiting: bool, process: int = 0) -> None:  # noqa: FBT001 - a message's field
        """Record whether clients of a backend wait in a process; called again if no server is up after an operator's hold."""
        processes = self._waiting.setdefault(backend, set())
        (processes.add if waiting else processes.discard)(process)
        if not processes:
            del self._waiting[backend]
            if backend in self._timers and not process:  # the only one
                self._end(backend)
            elif backend in self._timers and backend not in self._ending:
                self._ending[backend] = self._reactor.callLater(_MOVES, self._end, backend)
            return
        if backend in self._ending:
            self._ending.pop(backend).cancel()
        if backend not in self._timers:
            _log.warn("backend {backend}: clients wait for a server", backend=backend)
            rest = self._due_at.get(backend, 0.0) - self._reactor.seconds()
            if rest > 0:
                self._timers[backend] = self._reactor.callLater(rest, self._start, backend)
            else:
                self._start(backend)
        elif waiting and backend in self._held:
            self._timers.pop(backend).cancel()
            self._start(backend)

    def hold(self, backends: Iterable[str]) -> None:
        self._held.update(backends)

    def as_json(self) -> dict[str, float]:
        """Return in how many seconds the servers of each backend with waiting clients are started again."""
        now = self._reactor.seconds()
        return {backend: timer.getTime() - now for backend, timer in self._timers.items()}

    def restore(self, rests: Mapping[str, float]) -> None:
        """Take over what another process has sent."""
        now = self._reactor.seconds()
        self._due_at = {backend: now + min(rest, _EVERY) for backend, rest in rests.items()}

    def process_ended(self, process: int) -> None:
        for backend in [*self._waiting]:
            self.report(backend, waiting=False, process=process)

    def _end(self, backend: str) -> None:
        self._ending.pop(backend, None)
        self._timers.pop(backend).cancel()
        _log.info("backend {backend}: no client is waiting any longer", backend=backend)

    def stop(self) -> None:
        for timer in (*self._timers.values(), *self._ending.values()):
            timer.cancel()
        # Silently: they may still wait, elsewhere.
        self._waiting, self._timers, self._ending = {}, {}, {}
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
