from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.names import dns
from twisted.trial.unittest import TestCase

from tests.backends.names.nameserver import NameServer
from tests.backends.pool.pools import servers
from tests.support.kit import VirtualTime, make_folder, reactor
from txmux.backends.names.lookup import HostAnswer, Lookup, ServiceAnswer
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.pool import BackendPool
from txmux.rules.model import Backend, Server

HOST = "host.test"
SERVICE = "_ssh._tcp.host.test"
FAR = 3600


def service(name: str = SERVICE, **options: Any) -> Server:
    return Server(f"srv:{name}", "srv", host=name, **options)


class CountingPool(BackendPool):
    given = 0

    def set_addresses(self, server: Server, addresses: Iterable[ResolvedAddress]) -> None:
        self.given += 1
        super().set_addresses(server, addresses)


class CountingLookup(Lookup):
    open = 0

    async def host(self, name: str) -> HostAnswer:
        with self._counted():
            return await super().host(name)

    async def service(self, name: str) -> ServiceAnswer:
        with self._counted():
            return await super().service(name)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class NamesCase(TestCase):
    """A test with a name server, the system's files, and a clock that stands still until it is moved."""

    def setUp(self) -> None:
        self.time = VirtualTime()
        self.server = NameServer.started(self)
        self.zone = self.server.zone
        folder = make_folder(self)
        self.hosts = folder / "hosts"
        self.resolv_conf = folder / "resolv.conf"
        self.lookup = self.lookup_with(self.server)
        self.names = NameResolver(self.time, self.lookup)
        captured = capturedLogs()
        self.logs = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)
        self.said_before = 0
        self.addCleanup(self.stop)

    def name_server(self) -> NameServer:
        return NameServer.started(self)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0)

    async def asked(self, name: str, kind: int = dns.A, times: int = 1) -> None:
        await self.until(lambda: self.server.asked[name, kind] >= times)

    def lookup_with(self, *servers: NameServer) -> CountingLookup:
        places = [server.place for server in servers]
        return CountingLookup(self.time, places, self.resolv_conf, self.hosts)

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.names.stop()).addCallback(self._assert_quiet)

    def _assert_quiet(self, _: None) -> None:
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    def pool(self, *of: Server, **options: Any) -> CountingPool:
        backend = Backend("b", of or servers(f"{HOST}:80"), **options)
        pool = CountingPool(backend, self.time.seconds, random=Random(1))
        self.names.add_pool(pool)
        return pool

    async def found(self, pool: BackendPool, *texts: str) -> None:
        await self.until(lambda: self.texts(pool) == sorted(texts))

    def texts(self, pool: BackendPool) -> list[str]:
        return sorted(member.target.text for member in pool.members)

    async def next_look_up(self, times: int = 1) -> float:
        """Let the next ones begin, and return how long they waited for the last."""
        for _ in range(times):
            await self.until(lambda: not self.lookup.open)
            (call,) = self.time.clock.getDelayedCalls()
            seconds: float = call.getTime() - self.time.seconds()
            self.time.advance(seconds)
        return seconds

    def assert_said(self, *parts: str) -> None:
        """Find one line in the log, with these parts."""
        (said,) = self.said()
        for part in parts:
            self.assertIn(part, said)

    def said(self) -> list[str]:
        found = [
            f"{event['log_level'].name}: {event['log_format'].format(**event)}"
            for event in self.logs[self.said_before :]
            if event["log_namespace"].startswith("txmux.backends")
            and event["log_level"].name != "debug"
        ]
        self.said_before = len(self.logs)
        return found
