from typing import Any

from twisted.logger import capturedLogs

from tests.backends.pool.test_balance import order
from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import PeerFactory, listen, reactor
from tests.support.ports import free_port
from tests.tcp.pools_case import Leaving, end_all, name, pool_client, serve_pool
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.backends.health.checking import CheckRun
from txmux.rules.embedding import route
from txmux.rules.model import Check


class ShareTest(MuxTestCase):
    async def test_hash_of_the_name_follows_the_documented_order(self) -> None:
        ports = [listen(self, PeerFactory(Leaving)) for _ in range(5)]
        servers = {name(port): 1 for port in ports}
        hosts = [f"{letter}.example.com" for letter in "abcdefgh"]
        web, tls, rest = (
            backend_at(*ports, balance=way) for way in ("host-hash", "sni-hash", "sni-hash")
        )
        self.mux([route("http", web), route("tls", tls), route("any", rest)])
        expected: list[str] = []
        for host in hosts:
            hello = records(client_hello(server_name(host)))
            for data in (f"GET / HTTP/1.1\r\nHost: {host.upper()}\r\n\r\n".encode(), hello):
                await end_all(await pool_client(self, data))
                await self.logged(len(expected) + 1)
                expected.append(order("sni-hash", host, servers)[0])
        await end_all(await pool_client(self, b"\0"))
        await self.logged(len(expected) + 1)
        expected.append(order("source-hash", "127.0.0.1", servers)[0])
        self.assertEqual([record.server for record in self.records], expected)
        self.assertGreater(len(set(expected)), 1)


class CheckedTest(MuxTestCase):
    async def until(self, condition: Any, step: float = 0.1) -> None:
        while not condition():
            while self.is_checking():
                await self.turn()
            self.time.advance(step)
            await self.turn(3)

    def is_checking(self) -> bool:
        timers: Any = self.factory.runtime.clock.getDelayedCalls()
        late = CheckRun._too_late.__name__
        return any(getattr(timer.func, "__name__", "") == late for timer in timers)

    async def test_checked_server_goes_down_and_up_and_each_is_logged_once(self) -> None:
        ports = free_port(), listen(self, PeerFactory(Leaving))
        check = Check("tcp", interval=3.0, timeout=1.0, rise=2, fall=3)
        serve_pool(self, backend_at(*ports, check=check))
        (upstream,) = self.factory.upstreams.all()
        with capturedLogs() as events:
            await self.until(lambda: len(upstream.pool.tiers.usable[0]) == 1)
            for _ in range(4):
                count = len(self.records)
                await end_all(await pool_client(self))
                await self.until_logged(count + 1)
            self.assertEqual([record.facts for record in self.records], 4 * [{}])
            back = PeerFactory(Leaving)
            listening = reactor.listenTCP(ports[0], back, interface="127.0.0.1")
            self.addCleanup(listening.stopListening)
            await self.until(lambda: len(upstream.pool.tiers.usable[0]) == 2)
        reported = [(event["state"], event["server"]) for event in events if "state" in event]
        self.assertEqual(reported, [("down", name(ports[0])), ("up", name(ports[0]))])

    async def test_clients_are_refused_at_once_if_checks_find_no_server(self) -> None:
        check = Check("tcp", interval=1.0, timeout=1.0, rise=2, fall=1)
        serve_pool(self, backend_at(free_port(), check=check))
        (upstream,) = self.factory.upstreams.all()
        await self.until(lambda: not upstream.pool.tiers.usable)
        await (await pool_client(self)).is_lost()
        await self.until_logged()
        self.assert_story(self.records[0], reason="no-server", server=None)
