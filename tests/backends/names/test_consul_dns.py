"""Pools whose servers Consul's DNS tells, which is not at the usual port, and whose records may not be kept."""

from __future__ import annotations

from tests.backends.names.nameserver import NameServer, a, srv
from tests.backends.names.resolve_case import NamesTestCase, service
from tests.interop.children import has_ipv6

_NAME = "_web._tcp.service.consul"


class ConsulDnsTests(NamesTestCase):
    """The name server of a backend is Consul's."""

    def agent(self, host: str, count: int) -> NameServer:
        """Start a name server with instances, each of which has a name of its own."""
        agent = NameServer()
        agent.listen(host)
        self.addCleanup(agent.stop)
        names = [f"0a0000{n:02x}.addr.dc1.consul" for n in range(1, count + 1)]
        agent.zone[_NAME] = [srv(name, 8000 + n, 1, 1, 0) for n, name in enumerate(names, 1)]
        for number, name in enumerate(names, 1):
            agent.zone[name] = a(f"10.0.0.{number}", ttl=0)
        return agent

    async def test_large_answer(self) -> None:
        """An answer that is cut is asked for over TCP, by IPv6, too; and again after a second, since its time to live is 0."""
        hosts = ["127.0.0.1", *(["::1"] if has_ipv6() else [])]
        for host in hosts:
            agent = self.agent(host, 60)
            pool = self.pool(service(_NAME), resolvers=(agent.place,))
            await self.found(pool, *(f"10.0.0.{n}:{8000 + n}" for n in range(1, 61)))
            self.assertEqual(agent.asked_by_tcp[_NAME, 33], 1)
            self.assertEqual(await self.next_look_up(), 1.0)
            await self.until(lambda agent=agent: agent.asked_by_tcp[_NAME, 33] == 2)  # type: ignore[misc]
            self.names.forget(pool)

    async def test_no_instance(self) -> None:
        """A service without instances has no name, as for Consul: what was known stays, and its checks find out the rest."""
        agent = self.agent("127.0.0.1", 2)
        pool = self.pool(service(_NAME), resolvers=(agent.place,))
        await self.found(pool, "10.0.0.1:8001", "10.0.0.2:8002")
        del agent.zone[_NAME]
        await self.next_look_up()
        said: list[str] = []
        await self.until(lambda: said.extend(self.said()) or said)  # type: ignore[func-returns-value]
        self.assertIn(f"cannot find the addresses of {_NAME}, it keeps those it had: 2", said[0])
        self.assertEqual(len(pool.members), 2)
