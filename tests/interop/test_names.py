"""NameResolver that a real name server has."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from tests.backends.pool.pools import servers
from tests.interop.children import PATIENCE
from tests.interop.servers import start_dnsmasq
from tests.support.folders import make_folder
from tests.support.peers import reactor
from tests.support.ports import free_port
from txmux.backends.names.lookup import Lookup
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.pool import BackendPool
from txmux.rules.model import Backend, Server

if TYPE_CHECKING:
    from collections.abc import Callable

_HUNDREDS = 500


class DnsmasqTests(TestCase):
    """dnsmasq, whose hosts change."""

    timeout = 5 * PATIENCE

    def setUp(self) -> None:
        folder = make_folder(self)
        self.hosts = folder / "hosts"
        self.write_hosts("10.0.0.1 web.test", "10.0.0.2 web.test", "10.0.1.1 one.test")
        port = free_port()
        self.child = start_dnsmasq(
            self.hosts,
            *(f"--port={port}", "--cname=alias.test,web.test"),
            *("--srv-host=_ssh._tcp.test,one.test,22,1,5", "--srv-host=_no._tcp.test"),
        )
        self.addCleanup(self.child.end)
        lookup = Lookup(reactor, [("127.0.0.1", port)], folder / "none", folder / "none")
        self.names = NameResolver(reactor, lookup)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.names.stop()))

    def write_hosts(self, *lines: str) -> None:
        self.hosts.write_text("\n".join([*lines, ""]))

    def pool(self, *of: Server) -> BackendPool:
        pool = BackendPool(Backend("b", of), reactor.seconds)
        self.names.add_pool(pool)
        return pool

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    def texts(self, pool: BackendPool) -> list[str]:
        return [member.target.text for member in pool.members]

    async def test_members_follow_answers_and_outlive_the_name(self) -> None:
        pool = self.pool(*servers("web.test:80"))
        await self.until(lambda: self.texts(pool) == ["10.0.0.1:80", "10.0.0.2:80"])
        self.write_hosts("10.0.0.2 web.test", "10.0.0.3 web.test")
        self.child.process.send_signal(signal.SIGHUP)
        await self.until(lambda: self.texts(pool) == ["10.0.0.2:80", "10.0.0.3:80"])
        self.write_hosts("10.0.0.9 other.test")
        self.child.process.send_signal(signal.SIGHUP)
        with capturedLogs() as events:
            await self.until(lambda: any("no such name" in str(it.get("trouble")) for it in events))
        self.assertEqual(self.texts(pool), ["10.0.0.2:80", "10.0.0.3:80"])

    async def test_aliases_and_services(self) -> None:
        alias, service = self.pool(*servers("alias.test:80")), self.pool(_srv("_ssh._tcp.test"))
        none = self.pool(_srv("_no._tcp.test"))
        await self.names.first_answer(PATIENCE)
        await self.until(lambda: self.texts(alias) == ["10.0.0.1:80", "10.0.0.2:80"])
        await self.until(lambda: self.texts(service) == ["10.0.1.1:22"])
        self.assertEqual((service.members[0].weight, service.members[0].name), (5, "one.test"))
        self.assertEqual(none.members, [])

    async def test_hundreds_of_members(self) -> None:
        self.write_hosts(*(f"10.1.{i // 250}.{i % 250} web.test" for i in range(_HUNDREDS)))
        self.child.process.send_signal(signal.SIGHUP)
        pool = self.pool(*servers("web.test:80"))
        await self.until(lambda: len(pool.members) == _HUNDREDS)


def _srv(name: str) -> Server:
    return Server(f"srv:{name}", "srv", host=name)
