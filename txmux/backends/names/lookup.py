"""Looks up a name once: its addresses, or the servers of a service (RFC 1035, RFC 2782)."""

from __future__ import annotations

import ipaddress
import math
import socket
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.names import dns, hosts
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from txmux.backends.names.question import (
    LookupFailedError,
    NameServers,
    ServerAddress,
    ServerFailureError,
    TrackedServers,
)
from txmux.classes import frozen
from txmux.files import read_own
from txmux.transport import is_address

_MOST_AT_ONCE = 100  # look-ups; each has two queries


_MOST_QUERIES = 8  # queries for one name, as servers may answer with an alias alone
_GRACE = 1.0  # seconds to wait for the addresses of the other family
_PORT = 53
T = TypeVar("T")
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_MOST_DOTS = 15  # the highest ndots
_TOP_BIT = 1 << 31


class LookupTurns:
    """The look-ups by one list of name servers, or those of one owner among them.

    An owner has at most as many under way as are left for others, and so has each backend of theirs.
    """

    def __init__(self, outer: BackendTurns | None = None) -> None:
        # Of one owner, what they may have beside no other: none of its backends waits with a turn of its own.
        self.left = _MOST_AT_ONCE if outer is None else _MOST_AT_ONCE // 2
        self.outer = outer
        self.waiting: dict[BackendTurns, None] = {}
        self._of: WeakValueDictionary[str, BackendTurns] = WeakValueDictionary()
        self._owners: WeakValueDictionary[str, LookupTurns] = WeakValueDictionary()
        self._is_passing_on = False

    def within(self, owner: str) -> LookupTurns:
        turns = self._owners.get(owner)
        if turns is None:
            turns = self._owners[owner] = LookupTurns(self.of(owner))
        return turns

    def of(self, backend: str) -> BackendTurns:
        turns = self._of.get(backend)
        if turns is None:
            turns = self._of[backend] = BackendTurns(self)
        return turns

    def pass_on(self) -> None:
        if self._is_passing_on:  # a look-up has ended at once
            return
        self._is_passing_on = True
        while turns := next((each for each in self.waiting if each.may_start()), None):
            turns.start_next()
        self._is_passing_on = False


class BackendTurns:
    """Those of one backend, or of one owner, each as an asynchronous context."""

    def __init__(self, shared: LookupTurns) -> None:
        self._shared = shared
        self._used = 0
        self._waiting: deque[Deferred[None]] = deque()

    def may_start(self) -> bool:
        return self._used < self._shared.left

    def start_next(self) -> None:
        self._take()
        started = self._waiting.popleft()
        del self._shared.waiting[self]
        if self._waiting:  # behind other backends
            self._shared.waiting[self] = None
        started.callback(None)

    async def __aenter__(self) -> None:
        await self._start()
        if self._shared.outer is not None:
            try:
                await self._shared.outer.__aenter__()
            except BaseException:
                self._end()
                raise

    async def _start(self) -> None:
        if self.may_start() and not self._waiting:
            self._take()
            return
        waiting: Deferred[None] = Deferred(self._cancelled)
        self._waiting.append(waiting)
        self._shared.waiting[self] = None
        await waiting

    def _take(self) -> None:
        self._used += 1
        self._shared.left -= 1

    def _cancelled(self, waiting: Deferred[None]) -> None:
        self._waiting.remove(waiting)
        if not self._waiting:
            self._shared.waiting.pop(self, None)

    async def __aexit__(self, *_: object) -> None:
        if self._shared.outer is not None:
            await self._shared.outer.__aexit__()
        self._end()

    def _end(self) -> None:
        self._used -= 1
        self._shared.left += 1
        self._shared.pass_on()


@frozen
class ResolvConf:
    """The settings of ``resolv.conf(5)``; others, such as ``rotate`` and ``timeout``, are ignored."""

    servers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1

    @classmethod
    def read(cls, path: Path) -> ResolvConf:
        try:
            return cls.parse(read_own(path).decode(errors="replace"))
        except OSError:
            return cls()

    @classmethod
    def parse(cls, text: str) -> ResolvConf:
        servers: list[str] = []
        result = cls()
        for line in text.splitlines():
            key, *values = line.partition("#")[0].partition(";")[0].split() or [""]
            if key == "nameserver" and values and is_address(values[0]):
                servers.append(values[0])
            elif key in {"search", "domain"}:
                # The last of these lines wins.
                result = attrs.evolve(result, search=tuple(value.strip(".") for value in values))
            elif key == "options":
                for value in values:
                    name, _, number = value.partition(":")
                    if name == "ndots" and number.isdecimal():
                        result = attrs.evolve(result, ndots=min(int(number), _MOST_DOTS))
        return attrs.evolve(result, servers=tuple(servers)) if servers else result

    def candidates(self, name: str) -> list[str]:
        if name.endswith("."):
            return [name.rstrip(".")]
        inside = [f"{name}.{domain}" for domain in self.search if domain]
        return [name, *inside] if name.count(".") >= self.ndots else [*inside, name]


def listed_addresses(name: str, path: Path) -> frozenset[str]:
    """Look a name up in ``/etc/hosts``. ``localhost`` always has addresses (RFC 6761, section 6.3)."""
    plain = name.rstrip(".").lower()
    listed: list[str] = []
    with suppress(UnicodeError):  # not a valid name
        listed = hosts.searchFileForAll(FilePath(str(path)), dns.domainString(plain))
    if not listed and (plain == "localhost" or plain.endswith(".localhost")):
        return _LOOPBACK
    return frozenset(str(ipaddress.ip_address(text)) for text in listed if is_address(text))


def has_route(host: str) -> bool:
    """Return whether this machine has a route to an IP address. Nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
    except OSError:
        return False
    return True


@frozen
class HostAnswer:
    """The addresses of a host, at least one, by type of record; a type without an answer is missing, see `trouble`."""

    addresses: Mapping[int, frozenset[str]]
    ttl: float
    trouble: str = ""


@frozen
class ServiceRecord:
    """One SRV record. The target has no final dot; it is empty if the service is not available."""

    priority: int
    weight: int
    port: int
    target: str


@frozen
class ServiceAnswer:
    """The SRV records of a service, at least one, and the seconds for which they are valid."""

    services: Sequence[ServiceRecord]
    ttl: float


class Lookup:
    """Looks names up, in ``/etc/hosts`` and with the name servers of ``/etc/resolv.conf``, read for each look-up.

    `addresses` are the name servers that the last look-up could ask. `turns` are for callers with many names.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[ServerAddress] = (),
        resolv_conf: Path = Path("/etc/resolv.conf"),
        hosts: Path = Path("/etc/hosts"),
        *,
        tracked: TrackedServers | None = None,
    ) -> None:
        self._reactor = reactor
        self._servers = servers
        self._resolv_conf = resolv_conf
        self._hosts = hosts
        self._name_servers = NameServers(reactor, tracked)
        self.turns = LookupTurns()
        self.addresses: Sequence[ServerAddress] = ()

    async def host(self, name: str) -> HostAnswer:
        listed = listed_addresses(name, self._hosts)
        if listed:
            v6 = frozenset(address for address in listed if ":" in address)
            return HostAnswer({dns.A: listed - v6, dns.AAAA: v6}, math.inf)
        answered, troubles = await self._search(name, (dns.A, dns.AAAA))
        return HostAnswer(
            {
                kind: frozenset(str(ipaddress.ip_address(it.address)) for it in records.payloads)
                for kind, records in answered.items()
            },
            min(records.ttl for records in answered.values()),
            "".join(map(str, troubles)),
        )

    async def service(self, name: str) -> ServiceAnswer:
        answered, _ = await self._search(name, (dns.SRV,))
        records = answered[dns.SRV]
        services = [
            ServiceRecord(it.priority, it.weight, it.port, _shown(it.target.name))
            for it in records.payloads
        ]
        return ServiceAnswer(services, records.ttl)

    async def _search(
        self, name: str, record_types: Sequence[int]
    ) -> tuple[dict[int, _Records], list[LookupFailedError]]:
        """Return the records of the first candidate of a name that has any, and the failures of its other types.

        As in the C library, after a failure of a domain's servers the next domain is tried; but if no server answers
        at all, the look-up fails.
        """
        configuration = ResolvConf.read(self._resolv_conf)
        servers = self._servers or [(server, _PORT) for server in configuration.servers]
        self.addresses = servers
        failures: list[LookupFailedError] = []
        for candidate in configuration.candidates(name):
            results = await self._ask_all(servers, candidate, record_types)
            answered = {kind: it for kind, it in results.items() if isinstance(it, _Records)}
            troubles = _located(results)
            if any(records.payloads for records in answered.values()):
                return answered, troubles
            for trouble in troubles:
                if not isinstance(trouble, ServerFailureError):
                    raise trouble
            failures += troubles
        if failures:
            # The name may exist in a domain whose servers have failed.
            raise failures[0]
        missing = "SRV record" if dns.SRV in record_types else "address"
        raise LookupFailedError(f"there is no such name, or it has no {missing}")

    async def _ask_all(
        self, servers: Sequence[ServerAddress], name: str, record_types: Sequence[int]
    ) -> dict[int, _Records | LookupFailedError]:
        """Query several types at once. Once one has records, the others get a short grace period."""
        queries = [Deferred.fromCoroutine(self._ask(servers, name, kind)) for kind in record_types]
        graces: list[IDelayedCall] = []

        def begin_grace(records: _Records) -> _Records:
            if records.payloads:
                graces.append(self._reactor.callLater(_GRACE, give_up))
            return records

        def give_up() -> None:
            for query in queries:
                query.cancel()

        def cancelled(failure: Failure) -> Failure:
            failure.trap(CancelledError)
            if any(not grace.active() for grace in graces):
                raise LookupFailedError("there is no answer yet")
            return failure

        for query in queries:
            query.addCallbacks(begin_grace, cancelled)
        try:
            settled = await all_settled(queries)
        finally:
            for grace in graces:
                if grace.active():
                    grace.cancel()
        return dict(zip(record_types, settled, strict=True))

    async def _ask(self, servers: Sequence[ServerAddress], name: str, kind: int) -> _Records:
        try:
            alias = dns.domainString(name).lower()
        except UnicodeError as error:
            raise LookupFailedError(f"{name!r} cannot be a name: {error}") from None
        ttl = math.inf
        for _ in range(_MOST_QUERIES):
            message = await self._name_servers.ask(servers, alias, kind)
            records = _follow(message.answers, alias, kind)
            ttl = min(ttl, records.ttl)
            if records.payloads or records.name == alias or message.rCode != dns.OK:
                return attrs.evolve(records, ttl=ttl)
            alias = records.name
        raise LookupFailedError("its CNAME records form a loop or too long a chain")


def _shown(name: bytes) -> str:
    """Return a name as text. Invalid characters are escaped, so that it can neither be looked up nor spoil the log."""
    text = name.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]


async def all_settled(waited: Iterable[Deferred[T]]) -> list[T | LookupFailedError]:
    results: list[tuple[bool, Any]] = await DeferredList([*waited], consumeErrors=True)
    for succeeded, result in results:
        if not succeeded and not isinstance(result.value, LookupFailedError):
            result.raiseException()
    return [result if succeeded else result.value for succeeded, result in results]


def _located(results: Mapping[int, _Records | LookupFailedError]) -> list[LookupFailedError]:
    """Return the failures, which say for which types of record they are, unless they are for all."""
    failed = {kind: it for kind, it in results.items() if isinstance(it, LookupFailedError)}
    answered = [dns.QUERY_TYPES[kind] for kind in results if kind not in failed]
    if not answered:
        return [*failed.values()]
    but = f"; {' and '.join(answered)} was answered"
    if not any(it.payloads for it in results.values() if isinstance(it, _Records)):
        but += ", and has no address"
    return [type(it)(f"{it} for {dns.QUERY_TYPES[kind]}{but}") for kind, it in failed.items()]


@frozen
class _Records:
    name: bytes
    payloads: Sequence[Any]
    ttl: float


def _follow(answers: Sequence[dns.RRHeader], name: bytes, kind: int) -> _Records:
    aliases: dict[bytes, Any] = {it.name.name.lower(): it for it in answers if it.type == dns.CNAME}
    records = defaultdict(list)
    for it in answers:
        if it.type == kind:
            records[it.name.name.lower()].append(it)
    ttl = math.inf
    # Each alias is followed once, so that a loop ends.
    while name not in records and name in aliases:
        alias = aliases.pop(name)
        ttl = min(ttl, _ttl(alias))
        name = alias.payload.name.name.lower()
    return _Records(
        name, [it.payload for it in records[name]], min([ttl, *map(_ttl, records[name])])
    )


def _ttl(record: dns.RRHeader) -> float:
    """Return how long a record holds: not at all with the top bit set (RFC 2181, section 8)."""
    seconds: int = record.ttl
    return 0 if seconds >= _TOP_BIT else seconds
