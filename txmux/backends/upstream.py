"""The runtime state of one backend: its pool, and all that its connections need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from typing_extensions import override

from txmux.backends.health.checks import key_of
from txmux.backends.pool.balance import affinity_of
from txmux.backends.pool.hold import HeldClient
from txmux.backends.pool.member import SUSPECT, Member
from txmux.backends.pool.pool import BackendPool
from txmux.backends.pool.queue import ClientQueue
from txmux.backends.pool.server_health import BY_OPERATOR, BackendHealth, MemberState
from txmux.net.relay.interface import MARGIN, Timeouts
from txmux.net.relay.paced import RelayRates
from txmux.net.secrets import SecretFileError
from txmux.net.tls.errors import HandshakeError, TLSFileError
from txmux.net.watched import FilesInUse, WatchedFiles
from txmux.rules.installed import KEYS, dialler_of
from txmux.rules.model import Backend, Handover, InProcess, Refusal
from txmux.rules.optional import named
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.events import server_event
from txmux.telemetry.formatting import plural, utc_time
from txmux.telemetry.reasons import ConnectFailure
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import Address, ProxyHeader, Tlv

if TYPE_CHECKING:
    from txmux.backends.connect.dial import Dialler
    from txmux.backends.connect.tls import BackendTLS
    from txmux.backends.names.destinations import Destinations
    from txmux.net.tls.validity import Validity
    from txmux.rules.feature import ServerDialler


_MOST_EARLY = 1000  # servers; names that change repeatedly must not fill the memory

HALF_CLOSE = 60.0
"""Seconds without a byte, once one side has finished sending, after which a connection ends: as long as Linux keeps such an end."""

_OF_CHECKER = {MemberState.DOWN, MemberState.DRAIN, MemberState.MAINTENANCE}
"""States that the checking process sets and reports to the others."""

_WAITED_FOR = {"connect-refused", "connect-timeout", "no-server"}
"""Causes after which another try may succeed."""

_log = Logger()


_MOST_LINES = 5  # about servers of an author, in a period
_PERIOD = 60.0  # seconds
What = Literal["server", "backend"]


def _report_change(
    backend: str,
    tell: Callable[[dict[str, Any]], object],
    checking: bool,  # noqa: FBT001 - of a partial
    may_log: Callable[[What], bool],
    member: Member,
    before: MemberState,
) -> None:
    """Report a change, but not each attempt to let a server back in, nor what another process reports.

    It has no `Upstream`, which the pool would keep alive: the pools of a removed backend end with their last connection.
    """
    now = member.state
    quiet = {before, now} == {MemberState.EJECTED, MemberState.PROBING} or (
        not checking and bool({before, now} & _OF_CHECKER)
    )
    server, address = member.server.text, member.target.text
    is_ready_again = before in BY_OPERATOR and now is MemberState.UP  # its reason is an older one
    why = "by an operator" if is_ready_again else member.why or "by an operator"
    how, is_well = why if now in BY_OPERATOR else f"{now.value}: {why}", now is MemberState.UP
    how = f"ready again, {why}" if is_ready_again else how
    if now is before:  # the checks of a drained one
        is_well = member.health.state is MemberState.UP
        how += ", and up again" if is_well else ""
    elif not quiet:
        tell(server_event(backend, server, address, before.value, now.value, why))
    (_log.debug if quiet or not may_log("server") else _log.info if is_well else _log.warn)(
        "backend {backend}: {server} is {how}",
        backend=backend,
        server=address,
        state=now.value,
        how=how,
    )


class Upstream:
    """One backend of a running process.

    Args:
        fallback: The destination of a client when no server can be reached.
        first_look_ups: Returns what fires when names have been looked up for the first time; ``None`` if they have.
        checking: Whether its servers are checked in this process, which then reports the results.
        tell: Called with an event when a server has changed its state; see `txmux.telemetry.events.server_event`.
        may_log: Whether the log may have a line about a server, or about all; see `txmux.backends.upstream.ServerLines`.
        files: What the backend's files have, if it has some.

    Attributes:
        needs_stages: Whether its connections have stage objects from the beginning; others may do without.
        destinations: Chooses servers that depend on the client; ``None`` if none does.
        current: Finds the upstream of the same name under the current rules; ``None`` if they have none.
        greeting: The text with which a server has last greeted a client that speaks of TLS in the clear first.
        depends_on_client: Whether anything depends on the client's identity.
    """

    def __init__(  # noqa: PLR0913 - by name, as one place makes it
        self,
        backend: Backend,
        clock: IReactorTime,
        fallback: Destination,
        first_look_ups: Callable[[], Deferred[None] | None] = lambda: None,
        *,
        checking: bool = True,
        backend_health: BackendHealth | None = None,
        counters: ProcessCounters | None = None,
        tell: Callable[[dict[str, Any]], object] = lambda _: None,
        may_log: Callable[[What], bool] = lambda _: True,
        files: BackendFiles | None = None,
    ) -> None:
        counters = counters or ProcessCounters()
        self.counts = counters.backend(backend.name)
        self.backend = backend
        self.destinations: Destinations | None = None
        self.current: Callable[[], Upstream | None] = lambda: None
        self.fallback = fallback
        self.greeting = ""
        self._early: dict[str, str] = {}
        self._by_key: dict[str, Member] | None = None
        self.first_look_ups = first_look_ups
        report = partial(_report_change, backend.name, tell, checking, may_log)
        self.pool = BackendPool(
            backend, clock.seconds, report, backend_health=backend_health, counters=counters
        )
        self._checking, self._may_log = checking, may_log
        self._has_logged_shortage = self._has_logged_limit = False
        self.pool.on_shortage = self._log_shortage
        self.pool.waiting.clock, self.pool.waiting.counts = clock, self.counts
        if not checking:
            self.pool.on_members = self._members_changed
        self.timeouts = Timeouts(
            backend.idle_timeout, min(HALF_CLOSE, backend.idle_timeout), backend.max_duration
        )
        self.rates: RelayRates | None = None
        if backend.upload_rate or backend.download_rate:
            self.rates = RelayRates(backend.upload_rate, backend.download_rate)
        self.queue: ClientQueue | None = None
        if backend.queue:
            pool = self.pool
            self.queue = ClientQueue(
                backend.queue, backend.connect_timeout, clock.callLater, pool.seconds_until_probe
            )
            pool.on_room = self.queue.serve
        self.sockets = self.pool.sockets
        self.proxy: ServerDialler | None = None
        if backend.proxy is not None:
            self.proxy = dialler_of(backend.proxy, lambda: self.pool.proxies, self._password)
        self.tls, self.files = backend.tls, files
        self._affinity = affinity_of(backend.balance)
        self.depends_on_client = (
            backend.proxy_protocol != "off" or self._affinity is not None or bool(backend.source)
        )
        self.needs_stages = (
            bool(backend.tls or backend.queue or backend.proxy or self.rates or backend.mptcp)
            or backend.max_duration is not None
            or backend.idle_timeout <= MARGIN
        )

    def dialler(self, dialler: Dialler) -> Dialler:
        return attrs.evolve(dialler, sockets=self.sockets, proxy=self.proxy)

    def _password(self) -> str:
        made = self.files and self.files.made
        return made[1] if made else ""

    def proxy_header(
        self,
        client: Address | None,
        local: Address | None,
        tlvs: tuple[Tlv, ...] = (),
        *,
        datagrams: bool = False,
    ) -> bytes:
        """Encode the PROXY protocol header for its servers; only version 2 has `tlvs`, and `datagrams` for UDP."""
        header = ProxyHeader.between(client, local, tlvs)
        if self.backend.proxy_protocol == "v1":
            return encode_v1(header)
        has_checksum = "crc32c" in self.backend.proxy_tlvs
        return encode_v2(header, checksum=has_checksum, datagrams=datagrams)

    def lacks_tls(self) -> bool:
        """Return whether no server may be connected now, since files cannot be used yet; those that have changed are used from now on."""
        if self.files is None:
            return False
        self.files.look()
        return self.files.made is None

    def wrap(self, factory: Any, server_name: str, alpn: Sequence[bytes] = ()) -> Any:
        files: Any = self.files
        if self.lacks_tls():
            raise HandshakeError(files.trouble)
        tls = files and files.made[0]
        return tls and tls.wrap(factory, server_name, alpn)

    def note_greeting(self, text: str) -> None:
        self.greeting = text

    def affinity(self, client: Address | None, facts: Mapping[str, str]) -> str:
        if self._affinity is None:
            return ""
        return self._affinity(None if client is None else client.host, facts)

    def hold(
        self, client: HeldClient, cause: ConnectFailure, tried: Collection[Member] = ()
    ) -> ConnectFailure | None:
        """Let a client without a server wait; returns why it may not."""
        waiting = self.pool.waiting
        is_over = cause not in _WAITED_FOR or any(member.server.final for member in tried)
        if is_over or not waiting.may_wait(client):
            return cause
        if not waiting.reserve(client, self.backend.hold_limit):
            if not self._has_logged_limit:
                _log.warn(
                    "backend {backend}: hold_limit reached: {clients} waiting; new ones are refused, "
                    "or replace clients of a source that has more waiting",
                    backend=self.backend.name,
                    clients=plural(self.backend.hold_limit, "client"),
                )
            self._has_logged_limit = True
            if not waiting.replace(client):
                return "limit"
        if not len(waiting):
            self._has_logged_limit = False
        waiting.add(client, is_short=not self.pool.has_untried(tried))
        if cause != "no-server":
            waiting.cause = cause
        return None

    def find_member(self, key: str) -> Member | None:
        if self._by_key is None:
            self._by_key = {key_of(member): member for member in self.pool.members}
        return self._by_key.get(key)

    def keep_early(self, key: str, *, ok: bool, why: str) -> None:
        """Keep what checks have found of a server that no name has yet, until one has."""
        if ok:
            self._early.pop(key, None)
        elif key in self._early or len(self._early) < _MOST_EARLY:
            self._early[key] = why

    def _log_shortage(self, began: bool) -> None:  # noqa: FBT001 - of a callback
        """Log a shortage that this process has noticed; the checking process logs its own."""
        name, states = self.backend.name, self.pool.states
        if not began:
            if (self._checking or self._has_logged_shortage) and self._may_log("backend"):
                up = states[MemberState.UP]
                verb = "is" if up == 1 else "are"
                _log.info(
                    "backend {backend}: {servers} {verb} up again",
                    backend=name,
                    servers=plural(up, "server"),
                    verb=verb,
                )
            self._has_logged_shortage = False
            return
        is_ejected = any(states[state] for state in SUSPECT)
        self._has_logged_shortage = self._checking or is_ejected
        if not (self._has_logged_shortage and self._may_log("backend")):
            return
        what = ""
        if not isinstance(self.fallback, Refusal):
            what = "; clients go to its fallback"
        elif is_ejected:
            what = "; until one is, clients also try the ejected ones"
        _log.warn("backend {backend}: no server is up{what}", backend=name, what=what)

    def _members_changed(self, *_servers: str) -> None:
        self._by_key = None
        for member in self.pool.members if self._early else ():
            why = self._early.pop(key_of(member), None)
            if why is not None:
                self.pool.set_checked(member, ok=False, why=why)


Destination = Upstream | Handover | InProcess | Refusal  # an Outcome in a running process


class ServerLines:
    """Lets the log have the first few lines in a minute about servers of an author, who may have thousands, then how many there were more.

    Args:
        author_of: Returns the user whose file names a backend; ``None`` for those of root and the operator, which are not bounded.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, author_of: Callable[[Backend], int | None]) -> None:
        self._clock, self._author_of = clock, author_of
        self._counts: dict[tuple[int, What], int] = {}
        self._timers: dict[tuple[int, What], IDelayedCall] = {}

    def may_log(self, backend: Backend, what: What) -> bool:
        """Return whether the log may have a line about a server, or about all of a backend."""
        author = self._author_of(backend)
        if author is None:
            return True
        key = author, what
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count == 1:
            self._timers[key] = self._clock.callLater(_PERIOD, self._end_period, *key)
        return count <= _MOST_LINES

    def _end_period(self, author: int, what: What) -> None:
        del self._timers[author, what]
        more = self._counts.pop((author, what)) - _MOST_LINES
        if more > 0:
            self._log.warn(
                "user {author}: {lines} about {what}s in {seconds:g} s; 'txmux servers' lists what is down",
                author=author,
                lines=plural(more, "more line"),
                what=what,
                seconds=_PERIOD,
            )

    def stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers, self._counts = {}, {}


class BackendFiles(WatchedFiles):
    """What the files of a backend have; a `TLSFileError` if they cannot be used, and none may be lacking.

    Attributes:
        made: The TLS, and the password; ``None`` until they can be used, so that no server may be connected.
    """

    made: tuple[BackendTLS | None, str] | None
    _rule, _what = "tls", "files"

    def __init__(self, backend: Backend, seconds: Callable[[], float]) -> None:
        self._backend, tls, proxy = backend, backend.tls, backend.proxy
        paths = [] if tls is None else [*tls.files]
        if proxy is not None and proxy.password is not None:
            paths.append(proxy.password)
        may_lack = any(one is not None and one.may_lack for one in (tls, proxy))
        super().__init__(seconds, f"[backend {backend.name}] ", paths, may_lack=may_lack)

    @override
    def _make(self, files: FilesInUse) -> tuple[BackendTLS | None, str]:
        tls, password, proxy = None, "", self._backend.proxy
        if self._backend.tls is not None:
            from txmux.backends.connect.tls import BackendTLS  # noqa: PLC0415 - OpenSSL takes a while

            tls = BackendTLS(self._backend.tls, read=files.read)
        if proxy is not None and proxy.password is not None:
            try:
                read = named(KEYS["backend"][proxy.key].files.reader)
                password = read(proxy.password, read=files.read)
            except SecretFileError as problem:
                raise TLSFileError(proxy.key, str(problem)) from None
        return tls, password

    @property
    def validity(self) -> Sequence[Validity]:
        return () if self.made is None or self.made[0] is None else self.made[0].validity

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        if self.made is None:
            return f"{self.section}{problem.key}: {problem.what}; no server is connected until it can be used"
        ends = [one.ends for one in self.validity if one.is_shown]
        return super()._why_kept(problem) + (f", until {utc_time(min(ends))}" if ends else "")
