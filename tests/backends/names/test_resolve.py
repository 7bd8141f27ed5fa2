"""Pools whose servers have names or SRV records, with a real name server, here or in another process."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.names import dns

from tests.backends.names.nameserver import SILENCE, a, aaaa, cname, srv
from tests.backends.names.resolve_case import FAR, HOST, SERVICE, CountingPool, NamesCase, service
from tests.backends.pool.pools import servers
from tests.support.dialler import played
from txmux.backends.names.addresses import MOST_ADDRESSES
from txmux.backends.names.resolve import NameResolver
from txmux.backends.pool.pool import BackendPool
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Backend, Resolve, Server
from txmux.rules.reading.parser import load_within_patience
from txmux.rules.replacement import all_backends_in


class AnswerTests(NamesCase):
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
        self.assertEqual((member.name, member.full_weight, member.state), (HOST, 3, MemberState.UP))

    async def test_change(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80", "10.0.0.2:80")
        (stays,) = (it for it in pool.members if it.target.host == "10.0.0.2")
        self.zone[HOST] = a("10.0.0.3", "10.0.0.2", ttl=5)
        await self.next_look_up()
        await self.found(pool, "10.0.0.2:80", "10.0.0.3:80")
        self.assertIn(stays, pool.members)
        # An answer in another order changes nothing.
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", "10.0.0.1", ttl=5)
        await self.next_look_up()
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
        await self.next_look_up(2)
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
        self.assertEqual(self.texts(self.pool()), ["10.0.0.1:80"])
        self.assertEqual(self.server.asked, {(HOST, dns.A): 1, (HOST, dns.AAAA): 1})

    async def test_other_intervals_look_up_separately(self) -> None:
        self.zone[HOST] = a("10.0.0.1", ttl=FAR)
        for resolve in (10, 20):
            await self.found(self.pool(resolve=Resolve(resolve)), "10.0.0.1:80")
        await self.asked(HOST, dns.A, 2)
        await self.until(lambda: not self.lookup.open)
        self.assertEqual([call.getTime() for call in self.time.clock.getDelayedCalls()], [10, 20])


class FailureTests(NamesCase):
    async def start(self) -> CountingPool:
        self.zone[HOST] = a("10.0.0.1", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        return pool

    async def test_known_addresses_are_kept(self) -> None:
        """For whatever reason, which is logged once."""
        pool = await self.start()
        given, answered = pool.given, f"the name server {self.server.shown} answered"
        warning = f"warn: cannot find the addresses of {HOST}, keeping the known one; "
        for zone, code, why in (
            ({}, dns.ESERVER, [f"{answered} SERVFAIL"]),
            ({}, dns.OK, ["there is no such name, or it has no address"]),
            ({HOST: []}, dns.OK, []),
        ):
            self.zone.clear()
            self.zone |= zone
            self.server.fail(HOST, code)
            await self.next_look_up(3)
            for line, reason in zip(self.said(), why, strict=True):
                self.assertIn(f"{warning}{reason}", line)
            self.assertEqual((pool.given, self.texts(pool)), (given, ["10.0.0.1:80"]))

    async def test_timeout(self) -> None:
        pool = await self.start()
        self.server.fail(HOST, SILENCE)
        await self.next_look_up()
        await self.asked(HOST, dns.AAAA, 2)
        self.time.advance(1)
        await self.asked(HOST, dns.AAAA, 3)
        self.time.advance(3)
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
        self.assert_said("no answer within 3 s")
        self.server.codes.clear()
        self.zone[HOST] = a("10.0.0.2")
        self.time.advance(1)
        await self.found(pool, "10.0.0.2:80")

    async def test_recovery(self) -> None:
        pool = await self.start()
        for address in ("10.0.0.2", "10.0.0.3"):
            self.server.fail(HOST, dns.ESERVER)
            await self.next_look_up(2)
            self.assert_said("warn: cannot find")
            self.server.codes.clear()
            self.zone[HOST] = a(address, ttl=5)
            await self.next_look_up()
            await self.found(pool, f"{address}:80")
            await self.next_look_up()
            self.assertEqual(self.said(), [f"info: the addresses of {HOST} are known again"])

    async def test_other_reason(self) -> None:
        """Each new reason is logged once, whatever came between; how old the addresses are is told, until they are found again."""
        pool = await self.start()
        key = pool.backend.name, pool.backend.servers[0].text
        self.assertEqual(self.names.stale(), {})
        for code, said in ((dns.ESERVER, 1), (dns.EREFUSED, 1), (dns.ESERVER, 0)):
            self.server.fail(HOST, code)
            await self.next_look_up(2)
            self.assertEqual(len(self.said()), said)
        age, why = self.names.stale()[key]
        told = f"the name server {self.server.shown} answered SERVFAIL"
        self.assertEqual((age, why), (36, told))
        self.server.codes.clear()
        await self.next_look_up(2)
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
        self.assertIn("keeping the known one; there is no such name", first)
        self.assertIn("dropping the known ones, which are 12 s old; there is no such name", last)

    async def test_never_found(self) -> None:
        self.pool()
        await self.next_look_up()
        self.assert_said(f"cannot find the addresses of {HOST}, none is known yet; ")

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
        self.assert_said(f"warn: not all addresses of {HOST} can be found: ")
        self.server.fail(HOST, dns.ESERVER)
        await self.next_look_up(2)
        self.assert_said("warn: cannot find the addresses")
        self.server.codes.clear()  # one went
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
        self.assertEqual([line.partition(":")[0] for line in self.said()][:2], ["critical", "warn"])
        first, *_ = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(str(first.value), "broken")


class ServiceTests(NamesCase):
    async def test_records(self) -> None:
        self.zone[SERVICE] = [srv("one.test", 22, 10, 5), srv("two.test", 2222, 20, 0)]
        self.zone["one.test"] = a("10.0.0.1", "10.0.0.2")
        self.zone["two.test"] = a("10.0.0.3")
        pool = self.pool(service(weight=2, backup=True))
        await self.until(lambda: pool.members)
        found = [(it.target.text, it.name, it.full_weight, it.rank) for it in pool.members]
        first, second = (f"10.0.0.{number}:22" for number in (1, 2))
        last = "10.0.0.3:2222", "two.test", 2, (True, 1)
        expected = [(text, "one.test", 10, (True, 0)) for text in (first, second)]
        self.assertEqual(found, [*expected, last])

    async def test_same_place_twice(self) -> None:
        """A place that several records lead to has the best priority of them, and the best weight there."""
        self.zone[SERVICE] = [
            srv("one.test", 22, 2, 9), srv("two.test", 22, 1, 3), srv("one.test", 22, 1, 7),
        ]  # fmt: skip
        self.zone["one.test"] = self.zone["two.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.until(lambda: pool.members)
        (member,) = pool.members
        self.assertEqual((member.full_weight, member.name), (7, "one.test"))

    async def test_vanished_service_keeps_servers_and_target_dot_is_none(self) -> None:
        self.zone[SERVICE] = [srv("one.test", ttl=5)]
        self.zone["one.test"] = a("10.0.0.1", ttl=5)
        pool = self.pool(service())
        await self.found(pool, "10.0.0.1:22")
        del self.zone[SERVICE]
        await self.next_look_up(2)
        self.assertEqual(self.texts(pool), ["10.0.0.1:22"])
        self.assert_said("no SRV record")
        self.zone[SERVICE] = [srv("", 0, ttl=5)]
        await self.next_look_up()
        await self.found(pool)
        self.assertIn(f"warn: {SERVICE} is not available, as its SRV record says", self.said()[0])
        self.assertEqual(await self.next_look_up(), 5)

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
        failed = f"one.test: the name server {self.server.shown} answered SERVFAIL"
        self.assert_said("warn: not all addresses", failed)
        # A target that is not named any more is forgotten.
        self.zone[SERVICE] = [srv("two.test", ttl=5)]
        await self.next_look_up()
        await self.found(pool, "10.0.0.3:22")

    async def test_all_targets_fail(self) -> None:
        self.zone[SERVICE] = [srv("one.test")]
        self.pool(service())
        self.assertEqual(await self.next_look_up(), 1)
        self.assert_said("none is known yet", "one.test: there is no such name")

    async def test_hundreds(self) -> None:
        self.zone[SERVICE] = [srv(f"{i}.test", 1000 + i) for i in range(500)]
        for i in range(500):
            self.zone[f"{i}.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.until(lambda: len(pool.members) == 500)
        self.assertEqual(self.server.asked.total() - self.server.asked_by_tcp.total(), 1001)

    async def test_names_without_an_answer_leave_room_for_those_of_others(self) -> None:
        """Though their name server is the same. Those that wait end all at once if /etc/hosts has them meanwhile."""
        count = 500
        self.zone[SERVICE] = [srv(f"{i}.test", 1000 + i) for i in range(count)]
        for i in range(count):
            self.server.fail(f"{i}.test", SILENCE)
        many = self.pool(service())
        await self.asked("0.test")
        self.zone[HOST] = a("10.0.0.1")
        other = CountingPool(Backend("other", servers(f"{HOST}:80")), self.time.seconds)
        self.names.add_pool(other)
        await self.found(other, "10.0.0.1:80")
        self.hosts.write_text("".join(f"10.0.0.2 {i}.test\n" for i in range(count)))
        self.server.codes.clear()
        self.time.advance(1)
        await self.until(lambda: len(many.members) >= count // 2)

    async def test_backends_of_an_owner_leave_room_for_those_of_others(self) -> None:
        """Though each of theirs has a name of its own."""
        for i in range(500):
            self.server.fail(f"{i}.test", SILENCE)
        self.zone[HOST] = a("10.0.0.1")
        folder, listen = self.hosts.parent, "[listen {0}]\nendpoint = :{0}\ndefault = {1}:80\n"
        theirs, others = folder / "a.ini", folder / "b.ini"
        theirs.write_text("".join(listen.format(8000 + i, f"{i}.test") for i in range(500)))
        others.write_text(listen.format(7000, HOST))
        (folder / "rules").write_text("[txmux]\ninclude = *.ini\n")
        rules = load_within_patience(folder / "rules")
        self.names.prepare_for(rules)
        pools = [CountingPool(one, self.time.seconds) for one in all_backends_in(rules)]
        for pool in pools:
            self.names.add_pool(pool)
        await self.found(pools[-1], "10.0.0.1:80")


class WaitingTests(NamesCase):
    async def test_answers_to_names(self) -> None:
        self.pool(*servers("10.0.0.1:80"))
        self.assertTrue(self.names.first_answer().called)
        self.zone[HOST] = a("10.0.0.1")  # answers
        pool = self.pool(*servers(f"{HOST}:80", "unknown.test:80"))
        waiting = self.names.first_answer(), self.names.first_answer()
        self.assertNoResult(waiting[0])
        for one in waiting:
            await one
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
        self.assertTrue(self.names.first_answer().called)

    async def test_names_of_others(self) -> None:
        """Clients of a backend wait for its own names alone."""
        self.server.fail(HOST, SILENCE)
        self.zone["known.test"] = a("10.0.0.1")
        clock, dialler = self.time.clock, played(lambda *_: None)
        upstreams = Upstreams(clock, clock, dialler, names=self.names)
        upstreams.start()
        texts = "10.0.0.1:80", "known.test:80", f"{HOST}:80"
        plain, known, silent = (upstreams.upstream_of(Backend("b", servers(one))) for one in texts)
        self.assertIsNone(plain.first_look_ups())
        answered = known.first_look_ups()
        assert answered is not None
        await answered
        self.assertIsNone(known.first_look_ups())
        self.assertIsNotNone(silent.first_look_ups())
        self.assertIsNotNone(upstreams.first_look_ups())

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

    async def test_wait_is_ttl_within_bounds(self) -> None:
        pool = self.pool(resolve=Resolve(30))
        for ttl, seconds in (
            (0, 1), (1, 1), (7, 7), (30, 30), (31, 30), (2**31 - 1, 30), (2**31, 1),
        ):  # fmt: skip
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


class StopTests(NamesCase):
    """The end: no socket and no timer is left, which trial looks for."""

    async def test_while_asking(self) -> None:
        for name in (HOST, "one.test"):
            self.server.fail(name, SILENCE)
        self.zone[SERVICE] = [srv("one.test")]
        self.pool(*servers(f"{HOST}:80"), service())
        await self.asked(HOST)
        await self.asked("one.test", dns.AAAA)
        waiting = self.names.first_answer()
        await self.stop()
        self.assertIsNone(self.successResultOf(waiting))

    async def test_while_waiting(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        await self.found(self.pool(), "10.0.0.1:80")
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
        self.time.advance(FAR)
        self.assertEqual((self.texts(pool), self.server.asked[HOST, dns.A]), (["10.0.0.1:80"], 1))


class ToldTests(NamesCase):
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
        return [(it.target, it.name, it.full_weight, it.rank) for it in pool.members]

    async def test_same_members_told_once(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=5)
        self.zone[SERVICE] = [srv("one.test", 1, 5, 7), srv("two.test", 2, 1)]
        self.zone["one.test"], self.zone["two.test"] = a("10.0.1.1"), a("10.0.1.2")
        several = servers(f"{HOST}:80", f"{HOST}:81", f"udp:{HOST}:82", "10.0.0.9:1")
        pool = self.pool(*several, service(weight=3))
        same = self.in_other(pool)
        await self.until(lambda: not self.names.unanswered())
        self.assertEqual(len(pool.members), 9)
        self.assertEqual(self.members(same), self.members(pool))
        self.assertEqual(len(self.published), 3)
        given = same.given
        self.other.take_results(self.names.as_json())
        self.assertEqual(same.given, given)

    async def test_waits_until_told(self) -> None:
        same = self.in_other(self.pool())
        waiting = self.other.first_answer()  # end
        self.assertNoResult(waiting)
        await self.until(lambda: self.published)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual((same.members, self.other.unanswered()), ([], set()))
        self.assertEqual([*self.published[0].values()], [[]])
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
        self.assertEqual((self.texts(pool), self.names.unanswered()), (["10.0.0.1:80"], set()))
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
