"""Looks up servers' names in the background, in one process for all, so that no connection waits for a look-up."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.pool import BackendPool, is_name
from txmux.errors import MuxError
from txmux.rules.installed import SERVERS
from txmux.rules.model import Backend, Listener, Route, Rules, Server
from txmux.rules.model.files import other_author
from txmux.rules.replacement import owners_of_backends
from txmux.telemetry.sources import Source

if TYPE_CHECKING:
    from txmux.backends.names.addresses import Finder, FoundAddresses, ServerFinders
    from txmux.backends.names.lookup import Lookup
    from txmux.backends.names.question import ServerAddress, TrackedServers

_Addresses = tuple[ResolvedAddress, ...]
_SHORTEST = 1.0  # the shortest time between two look-ups of a name, in seconds
_MOST_REASONS = 10  # of one outage that are logged: a proxy may number its answers
_EFFECT = "the next name server is asked, or known addresses stay in use"


class NameResolver:
    """Keeps the members of pools up to date with the addresses of their servers' names, and with what features find.

    A name is looked up again when its answer is out of date, at the earliest after 1 s and at the latest after the
    backend's ``resolve``. After a failure the known addresses stay for the time of its ``keep``, and the next attempt
    comes after 1, 2, 4, … seconds, up to ``resolve``. Pools whose servers have the same name share its look-ups.

    Args:
        lookup: Looks names up where the rules name no name servers; by the system's configuration, if not given.
        is_active: Whether names are looked up here; otherwise `take_results` gets the results of another process.
        publish: Called with changes, for `take_results` in other processes.
    """

    def __init__(
        self,
        reactor: Any,
        lookup: Lookup | None = None,
        *,
        is_active: bool = True,
        publish: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._is_active = is_active
        self._publish = publish
        self._lookups: dict[tuple[ServerAddress, ...], Lookup] = (
            {} if lookup is None else {(): lookup}
        )
        self._tracked: TrackedServers | None = None
        self._of_features: dict[str, ServerFinders] = {}  # by the kind of servers
        self._rules: Rules | None = None
        self._owners: Mapping[str, Backend | Listener | Route] | None = None
        self._names: dict[str, _LookedUpName] = {}
        # Addresses of a plain name have no port: each server has its own.
        self._known: dict[str, _Addresses] = {}
        self._found_elsewhere: dict[str, float] = {}
        self._users: dict[str, dict[tuple[BackendPool, Server], None]] = {}
        self._unanswered: set[str] = set()
        self._waiting: list[tuple[set[str], Deferred[None]]] = []
        self._ending: list[Deferred[None]] = []

    def unanswered(self, backend: Backend | None = None) -> set[str]:
        """Return the names that have not been looked up yet, of a backend or of all."""
        if backend is None or not self._unanswered:
            return {*self._unanswered}
        return self._unanswered.intersection(key for key, _ in names_of(backend))

    def prepare_for(self, rules: Rules) -> None:
        self._rules, self._owners = rules, None

    def _owner(self, backend: Backend) -> str:
        if self._rules is None:
            return ""
        if self._owners is None:
            self._owners = owners_of_backends(self._rules)
        owner = self._owners.get(backend.name)
        return "" if owner is None else self._rules.unit_of(owner.section)

    def other_author(self, backend: Backend) -> int | None:
        """Return the user whose file names a backend, if that is neither root nor the operator."""
        rules = self._rules
        return other_author(rules.files.authors, self._owner(backend)) if rules else None

    def prepare(self, backend: Backend) -> None:
        """Start to look up the names of a backend's servers, before a pool has them."""
        for key, server in names_of(backend):
            if self._is_active and key not in self._names:
                self._start_name(key, server, backend)

    def add_pool(self, pool: BackendPool) -> None:
        self.prepare(pool.backend)
        for key, server in names_of(pool.backend):
            if key not in self._known:
                self._unanswered.add(key)
            self._users.setdefault(key, {})[pool, server] = None
            _set_members(pool, server, self._known.get(key, ()))

    def remove_pool(self, pool: BackendPool) -> None:
        for key, server in names_of(pool.backend):
            users = self._users.get(key, {})
            users.pop((pool, server), None)
            if not users:
                self._users.pop(key, None)
                self._answered(key)
                if key in self._names:
                    self._known.pop(key, None)
                    self._publish({key: None})
                    ending = self._names.pop(key).stop()
                    self._ending.append(ending)
                    ending.addCallback(partial(self._lookup_ended, ending))

    def _lookup_ended(self, ending: Deferred[None], _: None) -> None:
        self._ending.remove(ending)

    def _start_name(self, key: str, server: Server, backend: Backend) -> None:
        # Settings of a name may have changed: its addresses stay until there is an answer.
        before = next((name for name in self._names.values() if name.is_name_of(server)), None)
        if before is not None and before.addresses:
            self._known.setdefault(key, before.addresses)
        if key in self._known:
            self._publish({key: _as_json(self._known[key])})
        else:
            self._unanswered.add(key)
        finder = self._finder(server, backend)
        addresses, on_addresses = self._known.get(key, ()), partial(self._found, key)
        name = _LookedUpName(self._reactor, finder, server, backend, addresses, on_addresses)
        found_elsewhere = self._found_elsewhere.pop(key, name.found_at)
        name.found_at = found_elsewhere if before is None else before.found_at
        self._names[key] = name
        name.start_lookup()

    def _finder(self, server: Server, backend: Backend) -> Finder:
        # Only one process needs these.
        from txmux.backends.names.addresses import AddressFinder  # noqa: PLC0415
        from txmux.backends.names.lookup import Lookup  # noqa: PLC0415
        from txmux.backends.names.question import TrackedServers  # noqa: PLC0415

        if self._tracked is None:
            self._tracked = TrackedServers(self._reactor, _EFFECT)
        if backend.resolvers not in self._lookups:
            self._lookups[backend.resolvers] = Lookup(
                self._reactor, backend.resolvers, tracked=self._tracked
            )
        lookup = self._lookups[backend.resolvers]
        if not server.query:
            turns = lookup.turns.within(self._owner(backend)).of(backend.name)
            return AddressFinder(lookup, server, turns)
        if server.kind not in self._of_features:
            self._of_features[server.kind] = SERVERS[server.kind].finders(self._reactor)
        return self._of_features[server.kind].finder(lookup, server, backend)

    def _found(self, key: str, addresses: _Addresses) -> None:
        if addresses != self._known.get(key):
            self._publish({key: _as_json(addresses)})
        self._set(key, addresses)

    def _set(self, key: str, addresses: _Addresses) -> None:
        before = self._known.get(key, ())
        self._known[key] = addresses
        try:
            if addresses != before:
                for pool, server in [*self._users.get(key, ())]:
                    _set_members(pool, server, addresses)
        finally:
            self._answered(key)

    def _answered(self, *keys: str) -> None:
        self._unanswered.difference_update(keys)
        waiting, self._waiting = self._waiting, []
        for names, deferred in waiting:
            if names.isdisjoint(self._unanswered):
                deferred.callback(None)
            else:
                self._waiting.append((names, deferred))

    def as_json(self) -> dict[str, Any]:
        return {key: _as_json(self._known[key]) for key in self._names if key in self._known}

    def found_at(self, now: float) -> dict[str, float]:
        """Return when names were last found, by the clock of `now`, which all processes share."""
        ages = {key: name.age() for key, name in self._names.items()}
        return {key: now - age for key, age in ages.items() if age is not None}

    def take_found_at(self, found_at: Mapping[str, float], now: float) -> None:
        """Have addresses of another process, whose names this one is to look up, be as old as they were there."""
        ahead = self._reactor.seconds() - now
        self._found_elsewhere = {
            key: ahead + when for key, when in found_at.items() if key not in self._names
        }

    def stale(self) -> dict[tuple[str, str], tuple[float | None, str]]:
        """Return the servers whose names cannot be found now, by the backend's name and the server's text.

        The values: for how many seconds the addresses have not been confirmed, ``None`` if they never were, and why.
        """
        return {
            (pool.backend.name, server.text): name.stale()
            for key, name in self._names.items()
            if name.why
            for pool, server in self._users.get(key, ())
        }

    def take_results(self, names: Mapping[str, Any]) -> None:
        """Apply the results of another process; ``None`` ends a name."""
        for key in names.keys() - self._names.keys():
            if names[key] is None:
                self._known.pop(key, None)
                continue
            try:
                addresses = tuple(ResolvedAddress(*values) for values in names[key])
            except TypeError:  # of another version
                continue
            self._set(key, addresses)

    def first_answer(
        self, seconds: float = 2.0, *, names: set[str] | None = None
    ) -> Deferred[None]:
        """Wait for names of `unanswered`, or for all of them."""
        answered: Deferred[None] = Deferred()
        names = self.unanswered() if names is None else names
        if names:
            self._waiting.append((names, answered))
        else:
            answered.callback(None)
        return answered.addTimeout(seconds, self._reactor, lambda _failure, _seconds: None)

    def sources(self) -> Iterator[Source]:
        """Return what is asked for the names in use: name servers, and what features ask."""
        for finders in self._of_features.values():
            yield from finders.sources()
        used = {name.resolvers for name in self._names.values()}
        self._lookups = {key: look_up for key, look_up in self._lookups.items() if key in used}
        if self._tracked is not None:
            yield from self._tracked.sources(
                *(look_up.addresses for look_up in self._lookups.values())
            )

    async def stop(self) -> None:
        if self._tracked is not None:
            self._tracked.stop()
        names = self._names
        self._names = {}
        for key in names:
            self._known.pop(key, None)
        self._users.clear()
        self._answered(*self._unanswered)
        await DeferredList([*self._ending, *(name.stop() for name in names.values())])


class _Outcome(enum.Enum):
    FOUND = enum.auto()
    IN_PART = enum.auto()
    FAILED = enum.auto()


class _LookedUpName:
    """One name that is looked up repeatedly.

    Args:
        on_end: Called with the addresses after each look-up, even if they have not changed.

    Attributes:
        found_at: When they were last found, in the reactor's seconds; ``None`` if there never were any.
        why: Why they cannot be found now, or why there are none; empty if there are.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        finder: Finder,
        server: Server,
        backend: Backend,
        addresses: _Addresses,
        on_end: Callable[[_Addresses], None],
    ) -> None:
        self._reactor = reactor
        self._finder = finder
        self._server = server
        self._label = server.text if server.query else server.host
        self._resolve = backend.resolve
        self.resolvers = backend.resolvers
        self.addresses = addresses
        self._on_end = on_end
        self._stopped = False
        self._due: IDelayedCall | None = None
        self._finding: Deferred[Any]
        self._failures = 0
        self._state = _Outcome.FOUND
        self._logged: set[str] = set()  # reasons
        self.found_at: float | None = reactor.seconds() if addresses else None
        self.why = ""

    def is_name_of(self, server: Server) -> bool:
        return _name_of(server) == _name_of(self._server)

    def stale(self) -> tuple[float | None, str]:
        return self.age() if self._failures else None, self.why

    def age(self) -> float | None:
        return None if self.found_at is None else self._reactor.seconds() - self.found_at

    def start_lookup(self) -> None:
        self._due = None
        self._finding = finding = Deferred.fromCoroutine(self._finder.find())
        finding.addCallback(self._found).addErrback(self._failed).addCallback(self._wait)

    def stop(self) -> Deferred[None]:
        self._stopped = True
        if self._due is not None:
            self._due.cancel()
        self._finding.cancel()
        self._finder.stop()
        return self._finding

    def _wait(self, seconds: float) -> None:
        if not self._stopped:
            self._due = self._reactor.callLater(seconds, self.start_lookup)

    def _found(self, answer: FoundAddresses) -> float:
        if answer.addresses != self.addresses:
            self.addresses = answer.addresses
            self._log.debug(
                "addresses of {name}: {addresses}",
                name=self._label,
                addresses=", ".join(address.host for address in answer.addresses),
            )
        self.why = "" if self.addresses else answer.trouble
        self._on_end(self.addresses)
        self._failures = 0
        self.found_at = self._reactor.seconds()
        self._log_change(_Outcome.IN_PART if answer.trouble else _Outcome.FOUND, answer.trouble)
        return self._bounded(answer.ttl)

    def _failed(self, failure: Failure) -> float:
        if failure.check(CancelledError):
            return 0.0
        # After any other error, too, the name is looked up again.
        if not failure.check(MuxError) and not self._failures:
            self._log.failure("looking up {name} failed", failure, name=self._label)
        self.why = why = failure.getErrorMessage()
        self._log_change(
            _Outcome.FAILED,
            f"cannot find the addresses of {self._label}, {self._keeps()}; {why}",
            why,
        )
        self._failures += 1
        self._on_end(self.addresses)
        return self._bounded(2 ** min(self._failures - 1, 30)) * self._finder.spread()

    def _keeps(self) -> str:
        age = self.age()
        if self.addresses and age is not None and age >= self._resolve.keep:
            self.addresses = ()
            self._logged.clear()
            return f"dropping the known ones, which are {age:.0f} s old"
        count = len(self.addresses)
        none = "none is known yet" if age is None else "none is known"
        known = "the known one" if count == 1 else f"the {count} known ones"
        return f"keeping {known}" if count else none

    def _bounded(self, seconds: float) -> float:
        return max(_SHORTEST, min(seconds, self._resolve.interval))

    def _log_change(self, state: _Outcome, trouble: str, why: str = "") -> None:
        is_new = state is not self._state
        if is_new:
            self._state = state
            self._logged.clear()
        if why in self._logged or len(self._logged) >= _MOST_REASONS:
            return
        self._logged.add(why)
        if trouble:
            self._log.warn("{trouble}", trouble=trouble)
        elif is_new:
            self._log.info("the addresses of {name} are known again", name=self._label)


def _name_of(server: Server) -> tuple[object, ...]:
    return server.kind, server.host.lower(), *server.query[:1]


def names_of(backend: Backend) -> Iterator[tuple[str, Server]]:
    """Yield the servers that have a name, with the key of its look-ups: the same in each process with these rules."""
    for server in backend.dialled:
        if is_name(server):
            settings = backend.resolve, backend.resolvers
            yield repr((server.kind, server.host.lower(), *settings, *server.query)), server


def _set_members(pool: BackendPool, server: Server, addresses: _Addresses) -> None:
    if server.kind in {"tcp", "udp"}:
        addresses = tuple(attrs.evolve(address, port=server.port) for address in addresses)
    pool.set_addresses(server, addresses)


def _as_json(addresses: _Addresses) -> list[Any]:
    return [attrs.astuple(address) for address in addresses]
