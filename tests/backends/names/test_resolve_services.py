"""Pools whose servers are named by SRV records, with a real name server."""

from __future__ import annotations

from twisted.names import dns

from tests.backends.names.nameserver import a, srv
from tests.backends.names.resolve_case import SERVICE, NamesTestCase, service
from txmux.backends.pool.pool import Unavailable


class ServiceTests(NamesTestCase):
    """Servers named by SRV records."""

    async def test_records(self) -> None:
        self.zone[SERVICE] = [srv("one.test", 22, 10, 5), srv("two.test", 2222, 20, 0)]
        self.zone["one.test"] = a("10.0.0.1", "10.0.0.2")
        self.zone["two.test"] = a("10.0.0.3")
        pool = self.pool(service(weight=2, backup=True))
        await self.until(lambda: pool.members)
        self.assertEqual(
            [(it.target.text, it.name, it.weight, it.rank) for it in pool.members],
            [
                ("10.0.0.1:22", "one.test", 10, (True, 0)),
                ("10.0.0.2:22", "one.test", 10, (True, 0)),
                ("10.0.0.3:2222", "two.test", 2, (True, 1)),
            ],
        )

    async def test_priorities(self) -> None:
        self.zone[SERVICE] = [srv("one.test", 1, 1), srv("one.test", 2, 2)]
        self.zone["one.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.until(lambda: pool.members)
        picked = pool.pick()
        assert not isinstance(picked, Unavailable)
        self.assertEqual(picked.target.text, "10.0.0.1:1")
        other = pool.retry(picked, "", [picked])
        assert not isinstance(other, Unavailable)
        self.assertEqual(other.target.text, "10.0.0.1:2")

    async def test_same_place_twice(self) -> None:
        """A place that several records lead to has the best priority of them, and the best weight there."""
        self.zone[SERVICE] = [
            srv("one.test", 22, 2, 9),
            srv("two.test", 22, 1, 3),
            srv("one.test", 22, 1, 7),
        ]
        self.zone["one.test"] = self.zone["two.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.until(lambda: pool.members)
        (member,) = pool.members
        self.assertEqual((member.weight, member.name), (7, "one.test"))

    async def test_target_dot_is_no_server(self) -> None:
        self.zone[SERVICE] = [srv("one.test", ttl=5)]
        self.zone["one.test"] = a("10.0.0.1", ttl=5)
        pool = self.pool(service())
        await self.found(pool, "10.0.0.1:22")
        self.zone[SERVICE] = [srv("", 0, ttl=5)]
        await self.next_look_up()
        await self.found(pool)
        (said,) = self.said()
        self.assertIn(f"warn: {SERVICE} is not available, as its SRV record says", said)
        self.assertEqual(await self.next_look_up(), 5)

    async def test_vanished_service_keeps_servers(self) -> None:
        self.zone[SERVICE] = [srv("one.test", ttl=5)]
        self.zone["one.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.found(pool, "10.0.0.1:22")
        del self.zone[SERVICE]
        await self.next_look_up()
        await self.next_look_up()
        self.assertEqual(self.texts(pool), ["10.0.0.1:22"])
        (said,) = self.said()
        self.assertIn("no SRV record", said)

    async def test_failed_target_keeps_addresses(self) -> None:
        self.zone[SERVICE] = [srv("one.test", ttl=5), srv("two.test", ttl=5)]
        self.zone["one.test"] = a("10.0.0.1")
        self.zone["two.test"] = a("10.0.0.2")
        pool = self.pool(service())
        await self.found(pool, "10.0.0.1:22", "10.0.0.2:22")
        self.server.fail("one.test", dns.ESERVER)
        self.zone["two.test"] = a("10.0.0.3")
        await self.next_look_up()
        await self.found(pool, "10.0.0.1:22", "10.0.0.3:22")
        (said,) = self.said()
        self.assertIn("warn: not all addresses", said)
        self.assertIn("one.test: the name server 127.0.0.1: SERVFAIL", said)
        # A target that is not named any more is forgotten.
        self.zone[SERVICE] = [srv("two.test", ttl=5)]
        await self.next_look_up()
        await self.found(pool, "10.0.0.3:22")

    async def test_all_targets_fail(self) -> None:
        self.zone[SERVICE] = [srv("one.test")]
        self.pool(service())
        self.assertEqual(await self.next_look_up(), 1)
        (said,) = self.said()
        self.assertIn("it has none yet", said)
        self.assertIn("one.test: there is no such name", said)

    async def test_hundreds(self) -> None:
        self.zone[SERVICE] = [srv(f"{i}.test", 1000 + i) for i in range(500)]
        for i in range(500):
            self.zone[f"{i}.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.until(lambda: len(pool.members) == 500)
        self.assertEqual(self.server.asked.total() - self.server.asked_by_tcp.total(), 1001)
