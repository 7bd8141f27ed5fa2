"""What a process has of one backend while it runs: its pool, and all that its connections need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from txmux.backends.connect.source import Sources, check_transparent
from txmux.backends.health.checks import apply_result, key_of
from txmux.backends.pool.balance import affinity_of
from txmux.backends.pool.pool import Pool
from txmux.backends.pool.queue import Queue
from txmux.backends.pool.server_health import State
from txmux.errors import MuxError
from txmux.net.relay.interface import Timeouts
from txmux.net.relay.rates import RelayRates
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import NOWHERE, Backend, Handover, InProcess, Refusal
from txmux.rules.problems import RulesError
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.events import server_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorTime

    from txmux.backends.connect.tls import BackendTLS
    from txmux.backends.pool.member import Member
    from txmux.backends.pool.server_health import BackendHealth
    from txmux.rules.model import Backend
    from txmux.wire.proxyprotocol.header import Address

_MOST_EARLY = 1000  # servers; names that change and change must not fill the memory


_TOLD_FIRST = {State.DOWN, State.DRAIN, State.MAINTENANCE}
"""What the process that checks servers finds out or is told, and tells the others."""

_log = Logger()


class Telling:
    """Tells of one backend.

    Args:
        backend: Its name.
        tell: Is told of the events, but for what another process tells.
        checking: Whether its servers are checked in this process.
    """

    def __init__(
        self, backend: str, tell: Callable[[dict[str, Any]], object], *, checking: bool
    ) -> None:
        self._tell = tell
        self._backend = backend
        self._checking = checking

    def changed(self, member: Member, before: State) -> None:
        """Log a change, but not each attempt to let a server back in, nor what another process logs."""
        now = member.state
        quiet = {before, now} == {State.EJECTED, State.PROBING} or (
            not self._checking and bool({before, now} & _TOLD_FIRST)
        )
        why = member.why or "an operator asked for it"
        if not quiet:
            server, address = member.server.text, member.target.text
            event = server_event(self._backend, server, address, before.value, now.value, why)
            self._tell(event)
        (_log.debug if quiet else _log.info if now is State.UP else _log.warn)(
            "backend {backend}: {server} is {state}: {why}",
            backend=self._backend,
            server=member.target.text,
            state=now.value,
            why=why,
        )

    def short(self) -> None:
        """Log that no server is up, but some may be tried."""
        _log.warn(
            "backend {backend}: no server is up; until one is, clients also try the ejected ones",
            backend=self._backend,
        )


def needs_of(backend: Backend) -> BackendTLS | None:
    """Read a backend's files for TLS, and see whether there is the privilege for its ``source``.

    Returns:
        What makes its connections speak TLS; ``None`` if they do not.

    Raises:
        RulesError: A file cannot be used, and the rules are from a file, too.
        MuxError: The same without such a file; or the privilege is missing.
    """
    name = f"[backend {backend.name}]"
    try:
        if "client" in backend.source:
            check_transparent()
        if not backend.tls:
            return None
        from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - OpenSSL takes a while

        return BackendTLS(backend.tls)
    except TLSFileError as problem:
        if backend.section is NOWHERE:
            raise MuxError(f"{name} {problem.key}: {problem}") from problem
        raise RulesError([backend.section.problem(str(problem), problem.key)]) from problem
    except MuxError as problem:
        raise MuxError(f"{name} source: {problem}") from problem


class Upstream:
    """One backend of a running process.

    Args:
        backend: What the rules say.
        clock: Tells the time.
        fallback: Where a client is led when no server can be reached.
        first_names: Gives what fires when names have been looked up for the first time; ``None`` if they have.
        checking: Whether its servers are checked in this process, which then tells of what is found.
        backend_health: How its servers are, under whichever rules.
        tell: Is told of servers that have changed their state; see `txmux.telemetry.events.server_event`.
        column: What this process counts.

    Raises:
        MuxError: A file for TLS cannot be used, or the privilege for ``source = client`` is missing.

    Attributes:
        queue: Clients that wait for room in it; ``None`` if none may.
        rates: How fast they may be; ``None`` for no limit.
        sources: Where they come from; ``None`` if the system chooses.
        tls: What makes them speak TLS; ``None`` if they do not.
        counts: Counts for it.
        asks_who: Whether anything depends on who the client is.
        asks_where: Whether a server depends on the address that the client has asked for.
    """

    def __init__(
        self,
        backend: Backend,
        clock: IReactorTime,
        fallback: Destination,
        first_names: Callable[[], Deferred[None] | None] = lambda: None,
        *,
        checking: bool = True,
        backend_health: BackendHealth | None = None,
        column: ProcessCounters | None = None,
        tell: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        column = column or ProcessCounters()
        self.counts = column.backend(backend.name)
        self.backend = backend
        self.fallback = fallback
        self._early: dict[str, list[str]] = {}
        self.first_names = first_names
        telling = Telling(backend.name, tell, checking=checking)
        self.pool = Pool(
            backend, clock.seconds, telling.changed, backend_health=backend_health, column=column
        )
        self.pool.on_shortage = telling.short
        if not checking:
            self.pool.on_members = self._apply_early
        self.timeouts = Timeouts(
            backend.idle_timeout,
            backend.half_close_timeout,
            backend.max_duration,
            backend.upload_idle_timeout,
            backend.download_idle_timeout,
        )
        self.rates: RelayRates | None = None
        if backend.upload_rate or backend.download_rate:
            self.rates = RelayRates(backend.upload_rate, backend.download_rate)
        self.queue: Queue | None = None
        if backend.queue:
            self.queue = Queue(
                backend.queue, backend.queue_timeout, clock.callLater, self.pool.room_in
            )
            self.pool.on_room = self.queue.serve
        self.sources = Sources(backend.source) if backend.source else None
        self.tls = self.read_tls()
        self._affinity = affinity_of(backend.balance)
        self.asks_who = (
            backend.proxy_protocol != "off"
            or self._affinity is not None
            or self.sources is not None
        )
        self.asks_where = any(server.depends_on_client for server in backend.servers)

    def read_tls(self) -> BackendTLS | None:
        """Read the files for TLS, and see whether there are the privileges that it needs.

        Raises:
            MuxError: A file cannot be used, or a privilege is missing.
        """
        return needs_of(self.backend)

    def affinity(self, client: Address | None, facts: Mapping[str, str]) -> str:
        """Return what a client is led by, if that is a hash; see `txmux.backends.pool.balance`.

        Args:
            client: The client's address; ``None`` if it has none.
            facts: What is known of it.
        """
        if self._affinity is None:
            return ""
        return self._affinity(None if client is None else client.host, facts)

    def has(self, key: str) -> bool:
        """Return whether a server is known, of whichever address; the key is that of `apply`."""
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


Destination = Upstream | Handover | InProcess | Refusal
"""What an `Outcome` is in a running process."""
