"""Names of servers: looked up in the background, again and again, so that no connection waits for it."""

from __future__ import annotations

import enum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger

from txmux.backends.names.addresses import AddressFinder
from txmux.backends.names.lookup import Lookup
from txmux.backends.names.question import LookupFailedError
from txmux.backends.pool.pool import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from txmux.backends.names.addresses import Found
    from txmux.backends.names.question import Place
    from txmux.backends.pool.member import ResolvedAddress
    from txmux.backends.pool.pool import Pool
    from txmux.rules.model import Backend, Server

_SHORTEST = 1.0
"""Seconds between two look-ups of a name, at least."""


class Names:
    """Keeps the members of pools up to date with the addresses of their servers' names, and with the services of Consul.

    A name is looked up again when its answer is out of date, at the earliest after 1 s and at the latest after the
    backend's ``resolve``. When that fails, what was known stays, and the next attempt comes after 1, 2, 4, … seconds,
    up to ``resolve``. Pools whose servers have the same name share its look-ups. A service of Consul is as a name whose
    look-up waits for a change.

    Args:
        reactor: Sends, receives and tells the time.
        lookup: Looks names up where the rules name no name servers; as the system is configured, if not given.
    """

    def __init__(self, reactor: Any, lookup: Lookup | None = None) -> None:
        self._reactor = reactor
        self._lookups: dict[tuple[Place, ...], Lookup] = {(): lookup or Lookup(reactor)}
        self._names: dict[Hashable, _Name] = {}
        self._unanswered: set[_Name] = set()
        self._waiting: list[Deferred[None]] = []
        self._ending: list[Deferred[None]] = []

    @property
    def unanswered(self) -> int:
        """How many names have never been looked up to an end."""
        return len(self._unanswered)

    def watch(self, pool: Pool) -> None:
        """Look up the names of a pool's servers, from now on."""
        for server in pool.backend.servers:
            if is_name(server):
                self._name(server, pool.backend).add(pool, server)

    def forget(self, pool: Pool) -> None:
        """Leave a pool as it is, and look up no more what nobody else asks for."""
        for key, name in [*self._names.items()]:
            name.remove(pool)
            if not name.is_used:
                del self._names[key]
                ending = name.stop()
                self._ending.append(ending)
                ending.addCallback(partial(self._ended, ending))

    def _ended(self, ending: Deferred[None], _: None) -> None:
        self._ending.remove(ending)

    def _name(self, server: Server, backend: Backend) -> _Name:
        asked = (server.consul, backend.consul, backend.consul_token) if server.consul else ()
        key = (server.kind, server.host.lower(), backend.resolve, backend.resolvers, *asked)
        name = self._names.get(key)
        if name is None:
            finder = self._finder(server, backend)
            name = _Name(self._reactor, finder, server, backend.resolve, self._looked_up)
            self._names[key] = name
            self._unanswered.add(name)
            name.begin()
        return name

    def _finder(self, server: Server, backend: Backend) -> Finder:
        lookup = self._lookup(backend.resolvers)
        if server.consul is None:
            return AddressFinder(lookup, server)
        from txmux.backends.names.consul import ConsulFinder  # noqa: PLC0415 - few need HTTP

        return ConsulFinder(self._reactor, lookup, backend, server.consul)

    def _lookup(self, resolvers: tuple[Place, ...]) -> Lookup:
        if resolvers not in self._lookups:
            self._lookups[resolvers] = Lookup(self._reactor, resolvers)
        return self._lookups[resolvers]

    def _looked_up(self, name: _Name) -> None:
        self._unanswered.discard(name)
        if not self._unanswered:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def first_answer(self, seconds: float = 2.0) -> Deferred[None]:
        """Wait until every name has been looked up once, whether it was found or not.

        Args:
            seconds: The longest time that is waited.
        """
        answered: Deferred[None] = Deferred()
        if self._unanswered:
            self._waiting.append(answered)
        else:
            answered.callback(None)
        return answered.addTimeout(seconds, self._reactor, lambda _failure, _seconds: None)

    async def stop(self) -> None:
        """Look nothing up any more. Then no timer and no socket is left."""
        names = [*self._names.values()]
        self._names.clear()
        await DeferredList([*self._ending, *(name.stop() for name in names)])


class Finder(Protocol):
    """Finds the addresses of one name or service."""

    async def find(self) -> Found:
        """Find them.

        Raises:
            LookupFailedError: They cannot be found.
        """

    def spread(self) -> float:
        """Tell how many times as long to wait after a failure, so that not all ask again in the same moment."""


class _State(enum.Enum):
    FOUND = enum.auto()
    IN_PART = enum.auto()
    FAILED = enum.auto()


class _Name:
    """One name, and the pools that have it. The addresses of a plain name have no port: each server has its own."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        finder: Finder,
        server: Server,
        resolve: float,
        on_end: Callable[[_Name], None],
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._finder = finder
        self._label = server.text if server.consul else server.host
        self._resolve = resolve
        self._on_end = on_end
        self._stopped = False
        self._due: IDelayedCall | None = None
        self._finding: Deferred[Any]
        self._users: list[tuple[Pool, Server]] = []
        self._addresses: tuple[ResolvedAddress, ...] = ()
        self._failures = 0
        self._state = _State.FOUND

    def add(self, pool: Pool, server: Server) -> None:
        """Keep one server of a pool up to date as well."""
        self._users.append((pool, server))
        self._tell(pool, server)

    def remove(self, pool: Pool) -> None:
        """Leave a pool as it is."""
        self._users = [(known, server) for known, server in self._users if known is not pool]

    @property
    def is_used(self) -> bool:
        """Whether there is a pool that it is looked up for."""
        return bool(self._users)

    def begin(self) -> None:
        """Look it up now, and again from time to time."""
        self._due = None
        self._finding = finding = Deferred.fromCoroutine(self._finder.find())
        finding.addCallback(self._found).addErrback(self._failed).addCallback(self._wait)

    def stop(self) -> Deferred[None]:
        """Look it up no more."""
        self._stopped = True
        if self._due is not None:
            self._due.cancel()
        self._finding.cancel()
        return self._finding

    def _wait(self, seconds: float) -> None:
        if not self._stopped:
            self._due = self._reactor.callLater(seconds, self.begin)
        self._on_end(self)

    def _found(self, found: Found) -> float:
        self._take(found.addresses)
        self._failures = 0
        self._note(_State.IN_PART if found.trouble else _State.FOUND, found.trouble)
        return self._bounded(found.ttl)

    def _failed(self, failure: Failure) -> float:
        if failure.check(CancelledError):
            return 0.0
        # Whatever else it is, the name is looked up again.
        if not failure.check(LookupFailedError) and not self._failures:
            self._log.failure("looking up {name} went wrong", failure, name=self._label)
        count = len(self._addresses)
        known = f"it keeps those it had: {count}" if count else "it has none yet"
        why = failure.getErrorMessage()
        self._note(_State.FAILED, f"cannot find the addresses of {self._label}, {known}; {why}")
        self._failures += 1
        return self._bounded(2 ** min(self._failures - 1, 30)) * self._finder.spread()

    def _bounded(self, seconds: float) -> float:
        return max(_SHORTEST, min(seconds, self._resolve))

    def _note(self, state: _State, trouble: str) -> None:
        if state is self._state:
            return
        self._state = state
        if trouble:
            self._log.warn("{trouble}", trouble=trouble)
        else:
            self._log.info("the addresses of {name} are found again", name=self._label)

    def _take(self, addresses: tuple[ResolvedAddress, ...]) -> None:
        if addresses == self._addresses:
            return
        self._addresses = addresses
        self._log.debug(
            "addresses of {name}: {addresses}",
            name=self._label,
            addresses=", ".join(address.host for address in addresses),
        )
        for pool, server in self._users:
            self._tell(pool, server)

    def _tell(self, pool: Pool, server: Server) -> None:
        addresses = self._addresses
        if server.kind in {"tcp", "udp"}:
            addresses = tuple(attrs.evolve(address, port=server.port) for address in addresses)
        pool.set_addresses(server, addresses)
