"""The instances of a service, from blocking queries to Consul's HTTP API."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Any, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from txmux.backends.names.addresses import FoundAddresses
from txmux.backends.names.lookup import Lookup
from txmux.backends.names.question import LookupFailedError
from txmux.backends.pool.member import ResolvedAddress
from txmux.classes import frozen
from txmux.errors import MuxError, printable
from txmux.features.consul.reading import ConsulAPI, ConsulService
from txmux.net.http import HttpResponse, ResponseTimeoutError, request
from txmux.net.secrets import secret_of
from txmux.rules.model import Backend, Server
from txmux.telemetry.sources import Source
from txmux.transport import is_address
from txmux.wire.jsontext import MISSHAPEN, JsonLists

_MOST_WAIT = 40.0  # seconds: with a sixteenth more and the grace, silence is known within a minute
_GRACE = 10.0  # seconds for an answer in addition to its wait for a change
_MOST_BYTES = 32 * 1024 * 1024
_FIRST = 120  # characters of another answer
_OK = 200
_NOT_INSTANCES = "its answer is not a list of instances, so it is not Consul's API"
_EFFECT = "the instances known so far stay"
_NOT_ALLOWED = 403
MOST_INSTANCES = 10_000  # of one service; if it has more, always the same ones are used
_MOST_READ = 10 * MOST_INSTANCES
_LONGEST_NAME = 255
_LONGEST_INDEX = 20  # digits of a number of 64 bits
_WARNING, _PASSING = "warning", "passing"
_PORTS_END = 1 << 16

_FoundInstance: TypeAlias = tuple[str, "tuple[int, int] | None", ResolvedAddress]
"""The status of an instance, the sort key of its address, if it has one, and the address."""

_MOST_NAMED = 3


class NotConsulError(MuxError):
    """The answer is not from Consul's API."""


@frozen
class Instances:
    """The available instances of a service; `named` are left out, since Consul has a name in place of an address."""

    addresses: tuple[ResolvedAddress, ...]
    named: tuple[str, ...] = ()


class InstancesReader:
    """Reads an answer to ``/v1/health/service/NAME`` as it arrives; raises `NotConsulError` if it is none.

    As by Consul's DNS, an instance with a critical check is out, and one with a warning has the weight for that.
    """

    def __init__(self, *, passing: bool) -> None:
        self._accepted = {_PASSING} if passing else {_PASSING, _WARNING}
        self._lists = JsonLists(self._take)
        self._found: list[_FoundInstance] = []
        self._named: set[str] = set()
        self._count = 0

    def feed(self, data: bytes) -> None:
        try:
            self._lists.feed(data)
        except MISSHAPEN:
            raise NotConsulError(_NOT_INSTANCES) from None

    def end(self) -> Instances:
        try:
            self._lists.end()
            if self._lists.names != {""}:
                raise TypeError(dict.__name__)
        except MISSHAPEN:
            raise NotConsulError(_NOT_INSTANCES) from None
        self._keep_first()
        return Instances(
            tuple(address for _, _, address in self._found), tuple(sorted(self._named))
        )

    def _take(self, name: str, entry: Any) -> None:
        if name:
            raise TypeError(dict.__name__)
        self._count += 1
        if self._count > _MOST_READ:
            raise NotConsulError(f"its answer has more than {_MOST_READ} instances")
        status, order, address = instance = _instance(entry)
        if status not in self._accepted or not 0 < address.port < _PORTS_END:
            return
        if order is None:
            named = {*self._named, printable(address.host, _LONGEST_NAME)}
            self._named = {*sorted(named)[:_MOST_NAMED]}
            return
        self._found.append(instance)
        if len(self._found) >= 2 * MOST_INSTANCES:
            self._keep_first()

    def _keep_first(self) -> None:
        by_target: dict[tuple[str, int], _FoundInstance] = {}
        for instance in sorted(self._found, key=_order):
            by_target.setdefault((instance[2].host, instance[2].port), instance)
        self._found = [*by_target.values()][:MOST_INSTANCES]


def _instance(entry: Any) -> _FoundInstance:
    service = entry["Service"]
    host, order = str(service.get("Address") or entry["Node"]["Address"]), None
    with suppress(ValueError):  # a name
        ip = ipaddress.ip_address(printable(host, _LONGEST_NAME))  # whose interface may be any text
        host, order = str(ip), (ip.version, int(ip))
    statuses = {check["Status"] for check in entry.get("Checks") or ()}
    status = _PASSING
    if not statuses <= {_PASSING}:
        status = _WARNING if statuses <= {_PASSING, _WARNING} else "critical"
    weights = service.get("Weights") or {}
    stated = weights.get("Warning" if status == _WARNING else "Passing")
    weight = min(max(0, 1 if stated is None else int(stated)), 65535)
    # An instance of weight 0 is used only when no other is up.
    address = ResolvedAddress(host, int(service["Port"]), weight, priority=int(not weight))
    return status, order, address


def _order(instance: _FoundInstance) -> tuple[tuple[int, int], int, int]:
    _, order, address = instance
    return order or (0, 0), address.port, -address.weight


def next_index(before: int, header: str | None) -> int:
    """Return the index of the next query, from the answered query's index and the answer's ``X-Consul-Index``.

    0 is none: the next query is answered at once, since Consul's state has gone back. 1 replaces an index that is not
    positive, with which no query would ever wait.
    """
    is_number = header is not None and header.isdecimal() and header.isascii()
    if header is None or not is_number or len(header) > _LONGEST_INDEX:
        raise NotConsulError("its answer has no X-Consul-Index, so it is not Consul's API")
    index = int(header)
    return 0 if index < before else max(1, index)


class ConsulAgent:
    """One Consul, shared by all services that are looked up there.

    It fails if it fails for each of them: what it has against one, such as a datacenter or a token, says nothing of others.
    """

    def __init__(self, url: str, seconds: Callable[[], float]) -> None:
        self.source = Source("consul", url, _EFFECT, seconds)
        self.answers: dict[ConsulFinder, bool] = {}

    def answered(self, finder: ConsulFinder) -> None:
        self.answers[finder] = True
        self.source.answered()

    def failed(self, finder: ConsulFinder, why: str) -> None:
        self.answers[finder] = False
        if any(self.answers.values()):
            self.source.dropped()
        else:
            self.source.failed(why)


class ConsulAgents:
    """What finds services of Consul for all backends of a process."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._agents: dict[str, ConsulAgent] = {}

    def finder(self, lookup: Lookup, server: Server, backend: Backend) -> ConsulFinder:
        url = server.query[1].url
        if url not in self._agents:
            self._agents[url] = ConsulAgent(url, self._reactor.seconds)
        return ConsulFinder(self._reactor, lookup, backend, server.query, self._agents[url])

    def sources(self) -> Iterator[Source]:
        """Return those that are asked."""
        self._agents = {url: agent for url, agent in self._agents.items() if agent.answers}
        return (agent.source for agent in self._agents.values())


class ConsulFinder:
    """Finds the instances of a service by blocking queries: each is answered when something has changed."""

    def __init__(
        self,
        reactor: Any,
        lookup: Lookup,
        backend: Backend,
        query: tuple[ConsulService, ConsulAPI],
        agent: ConsulAgent,
    ) -> None:
        self._reactor = reactor
        self._lookup = lookup
        self._service, api = query
        self._url = api.url
        self._token = api.token
        self._wait = min(backend.resolve.interval, _MOST_WAIT)
        self._random = Random()  # nosec B311  # noqa: S311 - not for secrets
        self._index = 0
        self._agent = agent
        agent.answers[self] = True

    def spread(self) -> float:
        return self._random.uniform(1.0, 1.5)

    def stop(self) -> None:
        self._agent.answers.pop(self)

    async def find(self) -> FoundAddresses:
        """Wait for the next answer. After a `LookupFailedError`, the next query is answered at once."""
        index, self._index = self._index, 0
        self._agent.source.requested()
        try:
            reader = InstancesReader(passing=self._service.passing)
            answer = await self._query(index, reader)
            instances = self._instances(answer, reader)
            self._index = next_index(index, answer.headers.get("x-consul-index"))
        except MuxError as error:
            # The time limit depends on whether the query waits for a change.
            is_late = isinstance(error, ResponseTimeoutError)
            why = "no answer in time" if is_late else str(error)
            self._agent.failed(self, why)
            raise LookupFailedError(f"Consul at {self._url}: {why}") from None
        except BaseException:
            self._agent.source.dropped()
            raise
        self._agent.answered(self)
        return FoundAddresses(
            instances.addresses, 0.0, self._trouble(len(instances.addresses), instances.named)
        )

    def _instances(self, answer: HttpResponse, reader: InstancesReader) -> Instances:
        if answer.status != _OK:
            raise NotConsulError(_refusal(answer))
        instances = reader.end()
        is_filtered = answer.headers.get("x-consul-results-filtered-by-acls") == "true"
        if not instances.addresses and is_filtered:
            message = "its token may not read this service; give it 'service:read' and 'node:read'"
            raise NotConsulError(message)
        return instances

    def _trouble(self, count: int, named: tuple[str, ...]) -> str:
        if named:
            return (
                f"instances of {self._service.name} are left out, which have a host name instead of an IP address: "
                f"{', '.join(named[:3])}"
            )
        return "" if count else f"Consul has no instance of {self._service.name} to lead clients to"

    async def _query(self, index: int, reader: InstancesReader) -> HttpResponse:
        parts = urlsplit(self._url)
        if parts.scheme == "unix":
            base, address = "http://localhost", parts.path
        else:
            base, address = self._url, await self._address(parts.hostname or "")
        wait = max(1, round(self._wait))
        service = self._service
        query = [
            *([("passing", "true")] if service.passing else []),
            *(("tag", tag) for tag in service.tags),
            *([("dc", service.datacenter)] if service.datacenter else []),
            *([("index", str(index)), ("wait", f"{wait}s")] if index else []),
        ]
        path = f"/v1/health/service/{quote(service.name, safe='')}"
        url = f"{base}{path}{'?' if query else ''}{urlencode(query)}"
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["X-Consul-Token"] = await secret_of(self._token)
        # Consul itself waits for up to a sixteenth longer.
        seconds = _GRACE + (wait * 17 / 16 if index else 0.0)
        return await request(
            self._reactor,
            "GET",
            url,
            headers,
            address=address,
            seconds=seconds,
            most=_MOST_BYTES,
            take=reader.feed,
        )

    async def _address(self, host: str) -> str:
        if is_address(host):
            return host
        answer = await self._lookup.host(host)
        return self._random.choice(sorted(frozenset().union(*answer.addresses.values())))


def _refusal(answer: HttpResponse) -> str:
    text = answer.body[: 4 * _FIRST].decode("utf-8", "replace")
    shown = printable(" ".join(text.split()), _FIRST)
    hint = "; see 'token=' of 'consul'" if answer.status == _NOT_ALLOWED else ""
    return f"answers {answer.status}{f' ({shown})' if shown else ''}{hint}"
