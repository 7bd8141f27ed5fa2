"""When names are looked up: at the start, again and again, and no more after the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.names import dns

from tests.backends.names.nameserver import SILENCE, a, srv
from tests.backends.names.resolve_case import FAR, HOST, SERVICE, NamesTestCase, service
from tests.backends.pool.pools import servers
from txmux.rules.model import Resolve

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class FirstAnswerTests(NamesTestCase):
    """The start, which waits for names but not for long."""

    async def test_without_names(self) -> None:
        self.pool(*servers("10.0.0.1:80"))
        self.assertTrue(self.names.first_answer().called)

    async def test_answers(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool(*servers(f"{HOST}:80", "unknown.test:80"))
        waiting = self.names.first_answer(), self.names.first_answer()
        self.assertNoResult(waiting[0])
        for one in waiting:
            await one
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
        self.assertTrue(self.names.first_answer().called)

    async def test_time_limit(self) -> None:
        self.server.fail(HOST, SILENCE)
        pool = self.pool()
        waiting = self.names.first_answer(0.5)
        self.time.advance(0.4)
        self.assertNoResult(waiting)
        self.time.advance(0.1)
        self.assertIsNone(self.successResultOf(waiting))
        # What comes too late is taken all the same.
        self.server.codes.clear()
        self.zone[HOST] = a("10.0.0.1")
        self.time.advance(0.5)
        await self.found(pool, "10.0.0.1:80")

    async def test_stop(self) -> None:
        self.server.fail(HOST, SILENCE)
        self.pool()
        waiting = self.names.first_answer()
        await self.stop()
        self.assertIsNone(self.successResultOf(waiting))


class TimeTests(NamesTestCase):
    """When a name is looked up again."""

    async def test_wait_is_ttl_within_bounds(self) -> None:
        pool = self.pool(resolve=Resolve(30))
        for ttl, seconds in ((0, 1), (1, 1), (7, 7), (30, 30), (31, 30), (2**31, 30)):
            self.zone[HOST] = a("10.0.0.1", ttl=ttl)
            if not pool.members:
                await self.found(pool)
            await self.next_look_up()
            self.assertEqual(await self.next_look_up(), seconds)

    async def test_back_off(self) -> None:
        self.server.fail(HOST, dns.ESERVER)
        self.pool(resolve=Resolve(10))
        self.assertEqual([await self.next_look_up() for _ in range(6)], [1, 2, 4, 8, 10, 10])
        self.server.codes.clear()
        self.zone[HOST] = a("10.0.0.1", ttl=9)
        self.assertEqual(await self.next_look_up(), 9)
        self.server.fail(HOST, dns.ESERVER)
        self.assertEqual(await self.next_look_up(), 1)

    async def test_back_off_without_name_server(self) -> None:
        await self.server.stop()
        self.pool(resolve=Resolve(10))
        self.assertEqual([await self.next_look_up() for _ in range(5)], [1, 2, 4, 8, 10])


class StopTests(NamesTestCase):
    """The end: no socket and no timer is left, which trial looks for."""

    async def test_while_asking(self) -> None:
        for name in (HOST, "one.test"):
            self.server.fail(name, SILENCE)
        self.zone[SERVICE] = [srv("one.test")]
        self.pool(*servers(f"{HOST}:80"), service())
        await self.asked(HOST)
        await self.asked("one.test", dns.AAAA)
        await self.stop()

    async def test_while_waiting(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        await self.stop()
        self.time.advance(FAR)
        self.assertEqual(self.server.asked[HOST, dns.A], 1)

    async def test_stopped_by_answer(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool()
        stopped: list[Deferred[None]] = []
        pool.on_room = lambda: stopped.append(self.stop())
        await self.until(lambda: stopped)
        await stopped[0]
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])

    async def test_twice(self) -> None:
        await self.stop()
        await self.stop()
