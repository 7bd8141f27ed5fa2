"""Names that one process looks up for others."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.names import dns

from tests.backends.names.nameserver import SILENCE, a, srv
from tests.backends.names.resolve_case import HOST, SERVICE, CountingPool, NamesTestCase, service
from tests.backends.pool.pools import servers
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.pool import BackendPool
from txmux.rules.model import Backend


class ToldTests(NamesTestCase):
    """A process that looks names up, and one that does not."""

    def setUp(self) -> None:
        super().setUp()
        self.other = NameResolver(self.time, is_active=False)
        self.published: list[dict[str, Any]] = []
        self.names = NameResolver(self.time, self.lookup, publish=self.publish)

    def publish(self, state: dict[str, Any]) -> None:
        self.published.append(state)
        self.other.take_results(state)

    def in_other(self, pool: BackendPool) -> CountingPool:
        same = CountingPool(pool.backend, self.time.seconds)
        self.other.add_pool(same)
        return same

    def members(self, pool: BackendPool) -> list[object]:
        return [(it.target, it.name, it.weight, it.rank) for it in pool.members]

    async def test_same_members_told_once(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=5)
        self.zone[SERVICE] = [srv("one.test", 1, 5, 7), srv("two.test", 2, 1)]
        self.zone["one.test"], self.zone["two.test"] = a("10.0.1.1"), a("10.0.1.2")
        several = servers(f"{HOST}:80", f"{HOST}:81", f"udp:{HOST}:82", "10.0.0.9:1")
        pool = self.pool(*several, service(weight=3))
        same = self.in_other(pool)
        await self.until(lambda: not self.names.unanswered)
        self.assertEqual(len(pool.members), 9)
        self.assertEqual(self.members(same), self.members(pool))
        self.assertEqual(len(self.published), 3)
        given = same.given
        self.other.take_results(self.names.as_json())
        self.assertEqual(same.given, given)

    async def test_waits_until_told(self) -> None:
        same = self.in_other(self.pool())
        waiting = self.other.first_answer()
        self.assertNoResult(waiting)
        await self.until(lambda: self.published)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual((same.members, self.other.unanswered), ([], 0))
        self.assertEqual([*self.published[0].values()], [[]])

    def test_end(self) -> None:
        self.other.add_pool(BackendPool(Backend("b", servers(f"{HOST}:80")), self.time.seconds))
        waiting = self.other.first_answer()
        self.successResultOf(Deferred.fromCoroutine(self.other.stop()))
        self.assertIsNone(self.successResultOf(waiting))

    async def test_again(self) -> None:
        """What is known stays when no pool has it, and after the end, until the name is looked up no more."""
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool()
        same = self.in_other(pool)
        await self.found(pool, "10.0.0.1:80")
        self.other.remove_pool(same)
        self.assertEqual(self.texts(self.in_other(pool)), ["10.0.0.1:80"])
        await self.other.stop()
        same = self.in_other(pool)
        self.names.remove_pool(pool)
        self.assertEqual(self.texts(same), ["10.0.0.1:80"])
        self.assertEqual(self.texts(self.in_other(pool)), [])

    async def test_taken_over(self) -> None:
        """A process that looks names up begins with what the one before it knew; what that one tells later is older."""
        self.zone[HOST] = a("10.0.0.1")
        await self.found(self.pool(), "10.0.0.1:80")
        state = self.names.as_json()
        await self.names.stop()
        self.server.fail(HOST, SILENCE)
        self.names = NameResolver(self.time, self.lookup, publish=self.published.append)
        self.published.clear()
        self.names.take_results({"other": 1, **state, "another": [[1]]})
        pool = self.pool()
        self.assertEqual((self.texts(pool), self.names.unanswered), (["10.0.0.1:80"], 0))
        self.assertEqual((self.published, self.names.as_json()), ([state], state))
        await self.asked(HOST, dns.A, 2)
        self.names.take_results({key: [] for key in state})
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])

    async def test_prepared_before_a_pool(self) -> None:
        self.zone[HOST] = a("10.0.0.1", ttl=5)
        backend = Backend("b", servers(f"{HOST}:80"))
        self.names.prepare(backend)
        await self.until(lambda: self.published)
        pool = self.pool()
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
        self.names.remove_pool(pool)
        self.assertEqual((self.time.clock.getDelayedCalls(), self.names.as_json()), ([], {}))
        self.names.prepare(backend)
        waiting = self.names.first_answer()
        self.names.remove_pool(BackendPool(backend, self.time.seconds))
        self.assertIsNone(self.successResultOf(waiting))
        self._assert_quiet(None)
