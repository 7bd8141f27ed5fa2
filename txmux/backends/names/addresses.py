"""All addresses of a server's name, in a stable order."""

import ipaddress
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.names import dns

from txmux.backends.names.lookup import BackendTurns, HostAnswer, Lookup, all_settled, has_route
from txmux.backends.names.question import LookupFailedError
from txmux.backends.pool.member import ResolvedAddress
from txmux.classes import frozen
from txmux.rules.model import Backend, Server
from txmux.telemetry.sources import Source

MOST_ADDRESSES = 1000  # of one name; if it has more, always the same ones are used


@frozen
class FoundAddresses:
    """The addresses of a name, in an order that does not depend on that of the answer; a host's have no port."""

    addresses: tuple[ResolvedAddress, ...]
    ttl: float  # seconds for which they are valid
    trouble: str = ""  # the look-ups that failed, and why; empty if none did


class Finder(Protocol):
    """Finds the addresses of one name or service."""

    async def find(self) -> FoundAddresses: ...

    def spread(self) -> float:
        """The factor of the wait after a failure, so that retries do not come at the same moment."""

    def stop(self) -> None: ...


class ServerFinders(Protocol):
    """What finds the servers of one kind, for all backends of a process."""

    def finder(self, lookup: Lookup, server: Server, backend: Backend) -> Finder: ...

    def sources(self) -> Iterable[Source]: ...


class AddressFinder:
    """Looks one name up, and keeps the last answers for look-ups that fail in part."""

    def __init__(self, lookup: Lookup, server: Server, turns: BackendTurns | None = None) -> None:
        self._lookup = lookup
        self._turns = turns or nullcontext()
        self._server = server
        # The last answers, by host and type of record.
        self._known: dict[str, dict[int, frozenset[str]]] = {}

    def spread(self) -> float:
        return 1.0  # few processes query a name server

    def stop(self) -> None:
        pass  # as in `Finder`

    async def find(self) -> FoundAddresses:
        return await (self._find_service() if self._server.kind == "srv" else self._find_host())

    async def _find_host(self) -> FoundAddresses:
        host = self._server.host
        answer = await self._look_up(host)
        addresses = _arranged(ResolvedAddress(address, 0) for address in self._merged(host, answer))
        trouble = f"not all addresses of {host} can be found: {answer.trouble}"
        return FoundAddresses(addresses, answer.ttl, trouble if answer.trouble else "")

    async def _find_service(self) -> FoundAddresses:
        async with self._turns:
            answer = await self._lookup.service(self._server.host)
        services = [it for it in answer.services if it.target and it.port]
        if not services:
            return FoundAddresses(
                (), answer.ttl, f"{self._server.host} is not available, as its SRV record says"
            )
        targets = sorted({it.target.lower() for it in services})
        # A target is a full name, which is not searched in domains.
        lookups = [Deferred.fromCoroutine(self._look_up(f"{target}.")) for target in targets]
        settled = await all_settled(lookups)
        hosts = dict(zip(targets, settled, strict=True))
        self._known = {host: answers for host, answers in self._known.items() if host in hosts}
        ttl, trouble = answer.ttl, ""
        by_host: dict[str, frozenset[str]] = {}
        for host, result in hosts.items():
            if isinstance(result, LookupFailedError):
                by_host[host] = frozenset().union(*self._known.get(host, {}).values())
                trouble = f"not all addresses of {self._server.host} can be found: {host}: {result}"
            else:
                by_host[host] = self._merged(host, result)
                ttl = min(ttl, result.ttl)
        if not any(by_host.values()):
            raise LookupFailedError(trouble)
        addresses = _arranged(
            ResolvedAddress(address, it.port, it.weight, it.priority, it.target)
            for it in services
            for address in by_host[it.target.lower()]
        )
        return FoundAddresses(addresses, ttl, trouble)

    async def _look_up(self, host: str) -> HostAnswer:
        async with self._turns:
            return await self._lookup.host(host)

    def _merged(self, host: str, answer: HostAnswer) -> frozenset[str]:
        addresses = self._known[host] = {**self._known.get(host, {}), **answer.addresses}
        return addresses.get(dns.A, frozenset()) | addresses.get(dns.AAAA, frozenset())


def _arranged(addresses: Iterable[ResolvedAddress]) -> tuple[ResolvedAddress, ...]:
    """Sort addresses, without duplicates and up to the limit, independent of the order of the answer.

    If a name has both families, addresses without a route are left out: many machines have no IPv6, and connections
    would spend their retries on it. If no address has a route, all stay.
    """
    by_target: dict[tuple[str, int], ResolvedAddress] = {}
    for address in sorted(addresses, key=_order):
        by_target.setdefault((address.host, address.port), address)
    arranged = [*by_target.values()]
    if len({":" in address.host for address in arranged}) > 1:
        arranged = [it for it in arranged if has_route(it.host)] or arranged
    return tuple(arranged[:MOST_ADDRESSES])


def _order(address: ResolvedAddress) -> tuple[int, int, int, int, int, str]:
    ip = ipaddress.ip_address(address.host)
    return (address.priority, -address.weight, ip.version, int(ip), address.port, address.name)
