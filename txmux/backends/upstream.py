"""What a process has of each backend while it runs: its pool, and all that its connections need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from txmux.backends.connect.source import Sources, check_transparent
from txmux.backends.connect.tls import BackendTLS
from txmux.backends.health.checks import HealthChecks, apply_result, key_of
from txmux.backends.names.resolve import Names
from txmux.backends.pool.pool import Pool, is_name
from txmux.backends.pool.queue import Queue
from txmux.backends.pool.standing import Standings, State
from txmux.errors import MuxError
from txmux.relay.interface import Timeouts
from txmux.relay.rates import Rates
from txmux.rules.model import Backend, InProcess, Refusal, backends_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from txmux.backends.connect.dial import Dial
    from txmux.backends.health.checks import OnResult
    from txmux.backends.pool.member import Member
    from txmux.rules.model import Outcome, Rules

    Publish = Callable[[str, str, bool, str], None]

_MOST_EARLY = 1000  # servers; names that change and change must not fill the memory

_log = Logger()


class Upstream:
    """One backend of a running process.

    Args:
        backend: What the rules say.
        clock: Tells the time.
        fallback: Where a client is led when no server can be reached.
        first_names: Gives what fires when names have been looked up for the first time; ``None`` if they have.
        checking: Whether its servers are checked in this process, which then tells of what is found.
        standings: How its servers are, under whichever rules.

    Raises:
        MuxError: A file for TLS cannot be used, or the privilege for ``source = client`` is missing.

    Attributes:
        queue: Clients that wait for room in it; ``None`` if none may.
        rates: How fast they may be; ``None`` for no limit.
        sources: Where they come from; ``None`` if the system chooses.
        tls: What makes them speak TLS; ``None`` if they do not.
        asks_who: Whether anything depends on the client's address.
    """

    def __init__(
        self,
        backend: Backend,
        clock: IReactorTime,
        fallback: Destination,
        first_names: Callable[[], Deferred[None] | None] = lambda: None,
        *,
        checking: bool = True,
        standings: Standings | None = None,
    ) -> None:
        self.backend = backend
        self.fallback = fallback
        self._checking = checking
        self._early: dict[str, list[str]] = {}
        self.first_names = first_names
        self.pool = Pool(backend, clock.seconds, self._changed, standings=standings)
        self.pool.on_shortage = self._short
        if not checking:
            self.pool.on_members = self._apply_early
        self.timeouts = Timeouts(
            backend.idle_timeout,
            backend.half_close_timeout,
            backend.max_duration,
            backend.upload_idle_timeout,
            backend.download_idle_timeout,
        )
        self.rates: Rates | None = None
        if backend.upload_rate or backend.download_rate:
            self.rates = Rates(backend.upload_rate, backend.download_rate)
        self.queue: Queue | None = None
        if backend.queue:
            self.queue = Queue(
                backend.queue, backend.queue_timeout, clock.callLater, self.pool.room_in
            )
            self.pool.on_room = self.queue.serve
        self.sources = Sources(backend.source) if backend.source else None
        self.tls = self.read_tls()
        self.asks_who = (
            backend.proxy_protocol != "off"
            or backend.balance == "source-hash"
            or self.sources is not None
        )

    def read_tls(self) -> BackendTLS | None:
        """Read the files for TLS, and see whether there are the privileges that it needs.

        Raises:
            MuxError: A file cannot be used, or a privilege is missing.
        """
        backend = self.backend
        try:
            if "client" in backend.source:
                check_transparent()
            return BackendTLS(backend.tls) if backend.tls else None
        except MuxError as problem:
            key = getattr(problem, "key", "source")
            raise MuxError(f"[backend {backend.name}] {key}: {problem}") from problem

    def _changed(self, member: Member, before: State) -> None:
        """Log a change, but not each attempt to let a server back in, nor what another process logs."""
        now = member.state
        quiet = {before, now} == {State.EJECTED, State.PROBING} or (
            State.DOWN in {before, now} and not self._checking
        )
        (_log.debug if quiet else _log.info if now is State.UP else _log.warn)(
            "backend {backend}: {server} is {state}: {why}",
            backend=self.backend.name,
            server=member.target.text,
            state=now.value,
            why=member.why,
        )

    def _short(self) -> None:
        _log.warn(
            "backend {backend}: no server is up; until one is, clients are led to those that are ejected as well",
            backend=self.backend.name,
        )

    def has(self, key: str) -> bool:
        """Tell whether a server is known, of whichever address; the key is that of `apply`."""
        return any(key_of(member) == key for member in self.pool.members)

    def apply(self, key: str, *, ok: bool, why: str) -> None:
        """Take in what a check has found.

        Args:
            key: The server's, of `txmux.backends.health.checks.key_of`. If a name has yet to lead to it, and it is not healthy,
                that is kept until then.
            ok: Whether it is healthy.
            why: What is wrong.
        """
        if self.has(key):
            apply_result(self.pool, key, ok=ok, why=why)
        elif ok:
            self._early.pop(key, None)
        elif key in self._early or len(self._early) < _MOST_EARLY:
            self._early.setdefault(key, []).append(why)
            del self._early[key][: -self.backend.check.fall if self.backend.check else None]

    def _apply_early(self) -> None:
        """Take in what has been found of servers that are new."""
        for key in [key_of(member) for member in self.pool.members]:
            for why in self._early.pop(key, ()):
                apply_result(self.pool, key, ok=False, why=why)


Destination = Upstream | InProcess | Refusal
"""What an `Outcome` stands for in a running process."""


class Upstreams:
    """All backends of one process.

    Args:
        reactor: In which all runs.
        clock: For the timers of connections.
        dial: Connects the checks.
        publish: Tells other processes what a check found: the backend's name, the server's key, whether it is healthy and
            what is wrong.
        checking: Whether the checks are made here; otherwise somebody else calls `apply`.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        dial: Dial,
        *,
        publish: Publish | None = None,
        checking: bool = True,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._dial = dial
        self._publish = publish
        self._checking = checking
        self._upstreams: dict[Backend, Upstream] = {}
        self._standings: WeakValueDictionary[str, Standings] = WeakValueDictionary()
        self._checks: dict[Upstream, HealthChecks] = {}
        self._prepared: PreparedUpstreams | None = None
        self._names: Names | None = None
        self._users = 0

    def of(self, backend: Backend) -> Upstream:
        """Give what there is of a backend; the same object for all that are equal."""
        upstream = self._upstreams.get(backend)
        if upstream is None:
            upstream = self._upstreams[backend] = Upstream(
                backend,
                self._clock,
                self.to(backend.fallback),
                self.first_names,
                checking=self._checking,
                standings=self._standings.setdefault(backend.name, Standings()),
            )
            if self._prepared is not None:
                self._prepared.made.append(upstream)
            elif self._users:
                self._begin(upstream)
        return upstream

    def to(self, outcome: Outcome) -> Destination:
        """Give what clients are led to by an outcome."""
        return self.of(outcome) if isinstance(outcome, Backend) else outcome

    def adopt(self, backend: str, server: str) -> tuple[Upstream, Member] | None:
        """Count a connection that another process has made.

        Returns:
            Whose it is now, and the server, whose pool has to be told of its end; ``None`` if there is none like that.
        """
        for upstream in self._upstreams.values():
            if upstream.backend.name == backend:
                member = upstream.pool.adopt(server)
                if member is not None:
                    return upstream, member
        return None

    def add(self, rules: Rules) -> None:
        """Make all that there are in the rules.

        Raises:
            MuxError: One cannot be used.
        """
        for backend in backends_of([*rules.backends.values(), *rules.outcomes()]):
            self.of(backend)

    def prepare(self, rules: Rules) -> PreparedUpstreams:
        """Make what rules need that is not there yet, and read the files for TLS; nothing of what there is changes.

        Returns:
            What ends this by `commit` or `abandon`, both of which have to be called before anything is prepared again. Its
            ``problems`` tell what cannot be used; then only `abandon` is left.
        """
        prepared = self._prepared = PreparedUpstreams(self)
        for backend in backends_of([*rules.backends.values(), *rules.outcomes()]):
            try:
                upstream = self.of(backend)
                if backend.tls is not None and upstream not in prepared.made:
                    prepared.tls[upstream] = upstream.read_tls()
            except MuxError as problem:  # noqa: PERF203 - all are to be told
                prepared.problems.append(str(problem))
            else:
                prepared.kept.add(upstream)
        return prepared

    def commit(self, prepared: PreparedUpstreams) -> None:
        """See `PreparedUpstreams.commit`."""
        self._prepared = None
        for upstream, tls in prepared.tls.items():
            upstream.tls = tls
        # First, so that names which both have are looked up on and on.
        for upstream in prepared.made:
            if self._users:
                self._begin(upstream)
        for upstream in [*self._upstreams.values()]:
            if upstream not in prepared.kept:
                self._end(upstream)
        for upstream in prepared.made:
            upstream.pool.take_over()

    def abandon(self, prepared: PreparedUpstreams) -> None:
        """See `PreparedUpstreams.abandon`."""
        self._prepared = None
        for upstream in prepared.made:
            del self._upstreams[upstream.backend]

    def down(self) -> list[dict[str, Any]]:
        """Give what somebody who is new has to `apply` to know which servers are down."""
        return [
            {
                "backend": upstream.backend.name,
                "key": key_of(member),
                "ok": False,
                "why": member.why,
            }
            for upstream in self._upstreams.values()
            for member in upstream.pool.members
            if member.state is State.DOWN and upstream.backend.check is not None
            for _ in range(upstream.backend.check.fall)
        ]

    def start(self) -> None:
        """Begin to look names up and to check servers. Each of several users calls it."""
        self._users += 1
        if self._users == 1:
            for upstream in [*self._upstreams.values()]:
                self._begin(upstream)

    def stop(self) -> Deferred[None]:
        """Stop when the last user has called this."""
        self._users -= 1
        if self._users:
            return succeed(None)
        for checks in self._checks.values():
            checks.stop()
        self._checks.clear()
        names, self._names = self._names, None
        return succeed(None) if names is None else Deferred.fromCoroutine(names.stop())

    def _begin(self, upstream: Upstream) -> None:
        pool = upstream.pool
        check = upstream.backend.check
        if check is not None and self._checking:
            checks = HealthChecks(
                partial(self._dial_check, upstream),
                self._reactor,
                pool,
                check,
                self._on_result(upstream),
                wrap=partial(_wrap, upstream) if upstream.tls else None,
            )
            pool.on_members = checks.refresh
            self._checks[upstream] = checks
            checks.start()
        # A parent of workers has no connections of its own, and needs no addresses but to check them.
        idle = self._publish is not None and check is None
        if not idle and any(map(is_name, upstream.backend.servers)):
            if self._names is None:
                self._names = Names(self._reactor)
            self._names.watch(pool)

    def _end(self, upstream: Upstream) -> None:
        """Leave a backend to the connections that it has."""
        del self._upstreams[upstream.backend]
        checks = self._checks.pop(upstream, None)
        if checks is not None:
            checks.stop()
        if self._names is not None:
            self._names.forget(upstream.pool)
        upstream.pool.retire()

    def _dial_check(self, upstream: Upstream, server: Any, *args: Any, **options: Any) -> Any:
        """Connect a check from where clients' connections would come, but for their own addresses."""
        sources = upstream.sources
        if sources is not None and server.host:
            options["sources"] = sources.towards(server.host, None)
        return self._dial(server, *args, **options)

    def _on_result(self, upstream: Upstream) -> OnResult:
        name = upstream.backend.name

        def on_result(key: str, *, ok: bool, why: str) -> None:
            upstream.apply(key, ok=ok, why=why)
            if self._publish is not None:
                self._publish(name, key, ok, why)

        return on_result

    def apply(self, backend: str, key: str, *, ok: bool, why: str) -> None:
        """Take in what a check of another process has found.

        Args:
            backend: The backend's name.
            key: The server's, of `txmux.backends.health.checks.key_of`.
            ok: Whether it is healthy.
            why: What is wrong.
        """
        named = [one for one in self._upstreams.values() if one.backend.name == backend]
        # Whoever has the same server hears of it.
        for upstream in [one for one in named if one.has(key)][:1] or named:
            upstream.apply(key, ok=ok, why=why)

    def first_names(self) -> Deferred[None] | None:
        """Give what fires when all names have been looked up once; ``None`` if they have."""
        if self._names is None or not self._names.unanswered:
            return None
        return self._names.first_answer()


class PreparedUpstreams:
    """What backends will be.

    Attributes:
        made: Those that are new.
        kept: All that the rules have, new or not.
        tls: What was read from the files of those that are not new.
        problems: What cannot be used.
    """

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self.made: list[Upstream] = []
        self.kept: set[Upstream] = set()
        self.tls: dict[Upstream, BackendTLS | None] = {}
        self.problems: list[str] = []

    def commit(self) -> None:
        """Look names up and check servers of what is new, and no more of what the rules do not have."""
        self._upstreams.commit(self)

    def abandon(self) -> None:
        """Forget what is new."""
        self._upstreams.abandon(self)


def _wrap(upstream: Upstream, *args: Any, **options: Any) -> Any:
    """Have a check speak TLS, by the files that were read last."""
    assert upstream.tls is not None  # noqa: S101 - that does not change while it runs
    return upstream.tls.wrap(*args, **options)
