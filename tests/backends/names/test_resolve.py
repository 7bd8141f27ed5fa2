"""Pools whose servers have names, with a real name server: what answers make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.names import dns

from tests.backends.names.nameserver import SILENCE, a, aaaa, cname
from tests.backends.names.resolve_case import FAR, HOST, CountingPool, NamesTestCase
from tests.backends.pool.pools import servers
from txmux.backends.names.addresses import MOST_ADDRESSES
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.server_health import MemberState
from txmux.rules.model import Resolve

if TYPE_CHECKING:
    from txmux.rules.model import Server


class AnswerTests(NamesTestCase):
    """What the members of a pool are."""

    async def test_name_servers_of_the_backend(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        other = self.name_server()
        other.zone[HOST] = a("10.0.0.2")
        for _ in range(2):
            await self.found(self.pool(resolvers=(other.place,)), "10.0.0.2:80")
            await self.found(self.pool(), "10.0.0.1:80")
        for server in (self.server, other):
            self.assertEqual(server.asked[HOST, dns.A], 1)

    async def test_all_addresses(self) -> None:
        self.zone[HOST] = a("127.0.0.1", "127.0.0.2") + aaaa("fd00::1")
        pool = self.pool(*servers(f"{HOST}:80", weight=3), *servers("10.0.0.9:80"))
        self.assertEqual(self.texts(pool), ["10.0.0.9:80"])
        await self.until(lambda: len(pool.members) > 1)
        texts = {"127.0.0.1:80", "127.0.0.2:80", "10.0.0.9:80"}
        # Without any IPv6, its address is left out.
        self.assertIn(set(self.texts(pool)), [texts, texts | {"[fd00::1]:80"}])
        member = pool.members[0]
        self.assertEqual((member.name, member.weight, member.state), (HOST, 3, MemberState.UP))

    async def test_no_server_before_first_answer(self) -> None:
        self.server.fail(HOST, SILENCE)
        pool = self.pool()
        self.assertEqual(pool.pick(), Unavailable.NO_SERVER)

    async def test_change(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80", "10.0.0.2:80")
        (stays,) = (it for it in pool.members if it.target.host == "10.0.0.2")
        self.zone[HOST] = a("10.0.0.3", "10.0.0.2", ttl=5)
        await self.next_look_up()
        await self.found(pool, "10.0.0.2:80", "10.0.0.3:80")
        self.assertIn(stays, pool.members)

    async def test_reordered_answer_changes_nothing(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", "10.0.0.1", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80", "10.0.0.2:80")
        given = pool.given
        for _ in range(3):
            self.zone[HOST].reverse()
            await self.next_look_up()
        await self.next_look_up()
        self.assertEqual(pool.given, given)

    async def test_hundreds(self) -> None:
        self.zone[HOST] = a(*(f"10.0.{i // 250}.{i % 250}" for i in range(500)))
        pool = self.pool()
        await self.until(lambda: len(pool.members) == 500)
        await self.stop()
        # The comings and goings of sockets are not in the log.
        self.assertEqual({event["log_level"].name for event in self.logs}, {"debug"})

    async def test_too_many(self) -> None:
        addresses = [f"10.{i // 250}.0.{i % 250}" for i in range(MOST_ADDRESSES + 200)]
        self.zone[HOST] = a(*addresses, ttl=5)
        pool = self.pool()
        await self.until(lambda: len(pool.members) == MOST_ADDRESSES)
        given = pool.given
        self.zone[HOST].reverse()
        await self.next_look_up()
        await self.next_look_up()
        self.assertEqual(pool.given, given)

    async def test_alias_keeps_name_for_tls(self) -> None:
        self.zone[HOST] = cname("end.test")
        self.zone["end.test"] = a("10.0.0.1")
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        self.assertEqual(pool.members[0].name, HOST)

    async def test_shared(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        first = self.pool(*servers(f"{HOST}:80", f"{HOST.upper()}:81"))
        await self.found(first, "10.0.0.1:80", "10.0.0.1:81")
        second = self.pool()
        self.assertEqual(self.texts(second), ["10.0.0.1:80"])
        self.assertEqual(self.server.asked, {(HOST, dns.A): 1, (HOST, dns.AAAA): 1})

    async def test_other_intervals_look_up_separately(self) -> None:
        self.zone[HOST] = a("10.0.0.1", ttl=FAR)
        for resolve in (10, 20):
            await self.found(self.pool(resolve=Resolve(resolve)), "10.0.0.1:80")
        await self.asked(HOST, dns.A, 2)
        await self.until(lambda: not self.lookup.open)
        times = [call.getTime() for call in self.time.clock.getDelayedCalls()]
        self.assertEqual(times, [10, 20])


class FailureTests(NamesTestCase):
    """Answers that fail: what was known stays."""

    async def start(self) -> CountingPool:
        self.zone[HOST] = a("10.0.0.1", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        return pool

    async def assert_kept(self, pool: CountingPool, why: str) -> None:
        given = pool.given
        for _ in range(3):
            await self.next_look_up()
        (said,) = self.said()
        self.assertIn(
            f"warn: cannot find the addresses of {HOST}, it keeps those it had: 1; {why}", said
        )
        self.assertEqual((pool.given, self.texts(pool)), (given, ["10.0.0.1:80"]))

    async def test_server_failure(self) -> None:
        pool = await self.start()
        self.server.fail(HOST, dns.ESERVER)
        await self.assert_kept(pool, "the name server 127.0.0.1: SERVFAIL")

    async def test_vanished(self) -> None:
        pool = await self.start()
        self.zone.clear()
        await self.assert_kept(pool, "there is no such name")

    async def test_empty(self) -> None:
        pool = await self.start()
        self.zone[HOST] = []
        await self.assert_kept(pool, "there is no such name, or it has no address")

    async def test_timeout(self) -> None:
        pool = await self.start()
        self.server.fail(HOST, SILENCE)
        await self.next_look_up()
        await self.asked(HOST, dns.AAAA, 2)
        self.time.advance(1)
        await self.asked(HOST, dns.AAAA, 3)
        self.time.advance(3)
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
        (said,) = self.said()
        self.assertIn("no answer within 3 s", said)
        self.server.codes.clear()
        self.zone[HOST] = a("10.0.0.2")
        self.time.advance(1)
        await self.found(pool, "10.0.0.2:80")

    async def test_recovery(self) -> None:
        pool = await self.start()
        for address in ("10.0.0.2", "10.0.0.3"):
            self.server.fail(HOST, dns.ESERVER)
            await self.next_look_up()
            await self.next_look_up()
            (warning,) = self.said()
            self.assertIn("warn: cannot find", warning)
            self.server.codes.clear()
            self.zone[HOST] = a(address, ttl=5)
            await self.next_look_up()
            await self.found(pool, f"{address}:80")
            await self.next_look_up()
            self.assertEqual(self.said(), [f"info: the addresses of {HOST} are found again"])

    async def test_other_reason(self) -> None:
        """Each new reason is logged once, whatever came between; how old the addresses are is told, until they are found again."""
        pool = await self.start()
        key = pool.backend.name, pool.backend.servers[0].text
        self.assertEqual(self.names.stale(), {})
        for code, said in ((dns.ESERVER, 1), (dns.EREFUSED, 1), (dns.ESERVER, 0)):
            self.server.fail(HOST, code)
            await self.next_look_up()
            await self.next_look_up()
            self.assertEqual(len(self.said()), said)
        age, why = self.names.stale()[key]
        self.assertEqual((age, why), (36, "the name server 127.0.0.1: SERVFAIL"))
        self.server.codes.clear()
        await self.next_look_up()
        await self.next_look_up()
        self.assertEqual(self.names.stale(), {})

    async def test_looked_up_otherwise(self) -> None:
        """A name that is looked up otherwise from now on keeps its addresses, and their age, if there is no answer."""
        await self.start()
        self.server.fail(HOST, dns.ESERVER)
        await self.next_look_up()
        other = self.pool(resolve=Resolve(30, keep=10))
        self.assertEqual(self.texts(other), ["10.0.0.1:80"])
        await self.until(lambda: not self.lookup.open)
        age, _ = self.names.stale()[other.backend.name, other.backend.servers[0].text]
        self.assertEqual(age, 5)

    async def test_too_old(self) -> None:
        self.zone[HOST] = a("10.0.0.1", ttl=5)
        pool = self.pool(resolve=Resolve(30, keep=10))
        await self.found(pool, "10.0.0.1:80")
        self.zone.clear()
        for _ in range(4):
            self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
            await self.next_look_up()
        await self.until(lambda: not self.lookup.open)
        self.assertEqual(self.texts(pool), [])
        (first, last) = self.said()
        self.assertIn("it keeps those it had: 1; there is no such name", first)
        self.assertIn("gives up those it had, which are 12 s old; there is no such name", last)

    async def test_never_found(self) -> None:
        self.pool()
        await self.next_look_up()
        (said,) = self.said()
        self.assertIn(f"cannot find the addresses of {HOST}, it has none yet; ", said)

    async def test_one_family(self) -> None:
        self.zone[HOST] = a("127.0.0.1", ttl=5) + aaaa("::1", ttl=5)
        pool = self.pool()
        await self.until(lambda: pool.members)
        both = self.texts(pool)
        self.server.fail(HOST, dns.ESERVER, dns.AAAA)
        self.zone[HOST] = a("127.0.0.2", ttl=5)
        self.assertEqual(await self.next_look_up(), 5)
        await self.found(pool, *("127.0.0.2:80" if "127" in it else it for it in both))
        self.assertEqual(await self.next_look_up(), 5)
        (said,) = self.said()
        self.assertIn(f"warn: not all addresses of {HOST} can be found: ", said)
        self.server.fail(HOST, dns.ESERVER)
        await self.next_look_up()
        await self.next_look_up()
        (said,) = self.said()
        self.assertIn("warn: cannot find the addresses", said)

    async def test_family_that_went(self) -> None:
        self.zone[HOST] = a("127.0.0.1", ttl=5) + aaaa("::1", ttl=5)
        pool = self.pool()
        await self.until(lambda: pool.members)
        self.zone[HOST] = aaaa("::1", ttl=5)
        await self.next_look_up()
        await self.found(pool, "[::1]:80")

    async def test_internal_error_is_logged_once(self) -> None:
        pool = await self.start()

        def broken(_server: Server, _addresses: object) -> None:
            raise RuntimeError("broken")

        pool.set_addresses = broken  # type: ignore[method-assign, assignment]
        for last in (2, 3, 4):
            self.zone[HOST] = a(f"10.0.0.{last}", ttl=5)
            await self.next_look_up()
        levels = [line.partition(":")[0] for line in self.said()]
        self.assertEqual(levels[:2], ["critical", "warn"])
        self.assertEqual(
            [str(it.value) for it in self.flushLoggedErrors(RuntimeError)][:1], ["broken"]
        )
