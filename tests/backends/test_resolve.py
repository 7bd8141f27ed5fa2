"""Pools whose servers have names, with a real name server."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.nameserver import SILENCE, NameServerTestCase, a, aaaa, cname, srv
from tests.backends.pools import servers
from txmux.backends.addresses import MOST_ADDRESSES, AddressFinder
from txmux.backends.lookup import HostAnswer, Lookup, Service, ServiceAnswer
from txmux.backends.member import State
from txmux.backends.pool import Pool, Unavailable
from txmux.backends.resolve import Names
from txmux.rules.model import Backend, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.backends.member import Address

HOST = "host.test"
SERVICE = "_ssh._tcp.host.test"
FAR = 3600


def service(name: str = SERVICE, **options: Any) -> Server:
    """Make a server that is named by an SRV record."""
    return Server(f"srv:{name}", "srv", host=name, **options)


class CountingPool(Pool):
    """A pool that counts how often it was given addresses."""

    given = 0

    def set_addresses(self, server: Server, addresses: Iterable[Address]) -> None:
        self.given += 1
        super().set_addresses(server, addresses)


class CountingLookup(Lookup):
    """Look-ups that tell how many of them are not over."""

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


class NamesTestCase(NameServerTestCase):
    """A test with names that are kept up to date."""

    def setUp(self) -> None:
        super().setUp()
        nowhere = Path("/nowhere")
        self.lookup = CountingLookup(self.time, [self.server.place], nowhere, nowhere)
        self.names = Names(self.time, self.lookup)
        self.addCleanup(self.stop)
        captured = capturedLogs()
        self.logs = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)
        self.said_before = 0

    def stop(self) -> Deferred[None]:
        """Look nothing up any more."""
        return Deferred.fromCoroutine(self.names.stop()).addCallback(self._assert_quiet)

    def _assert_quiet(self, _: None) -> None:
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    def pool(self, *of: Server, **options: Any) -> CountingPool:
        """Make a pool whose names are watched."""
        backend = Backend("b", of or servers(f"{HOST}:80"), **options)
        pool = CountingPool(backend, self.time.seconds, random=Random(1))
        self.names.watch(pool)
        return pool

    async def found(self, pool: Pool, *texts: str) -> None:
        """Wait until a pool has exactly these members."""
        await self.until(lambda: self.texts(pool) == sorted(texts))

    def texts(self, pool: Pool) -> list[str]:
        """Give the addresses of a pool's members."""
        return sorted(member.target.text for member in pool.members)

    async def next_look_up(self) -> float:
        """Wait until nothing is looked up any more, move the clock to the next time, and tell how far that was."""
        await self.until(lambda: not self.lookup.open)
        (call,) = self.time.clock.getDelayedCalls()
        seconds: float = call.getTime() - self.time.seconds()
        self.time.advance(seconds)
        return seconds

    def said(self) -> list[str]:
        """Give what has been logged since the last time, by level."""
        found = [
            f"{event['log_level'].name}: {event['log_format'].format(**event)}"
            for event in self.logs[self.said_before :]
            if event["log_namespace"].startswith("txmux") and event["log_level"].name != "debug"
        ]
        self.said_before = len(self.logs)
        return found


class AnswerTests(NamesTestCase):
    """What the members of a pool are."""

    async def test_all_addresses(self) -> None:
        """Before the first answer there is no member; then every address of both families is one."""
        self.zone[HOST] = a("127.0.0.1", "127.0.0.2") + aaaa("fd00::1")
        pool = self.pool(*servers(f"{HOST}:80", weight=3), *servers("10.0.0.9:80"))
        self.assertEqual(self.texts(pool), ["10.0.0.9:80"])
        await self.until(lambda: len(pool.members) > 1)
        texts = {"127.0.0.1:80", "127.0.0.2:80", "10.0.0.9:80"}
        # Without any IPv6, its address is left out.
        self.assertIn(set(self.texts(pool)), [texts, texts | {"[fd00::1]:80"}])
        member = pool.members[0]
        self.assertEqual((member.name, member.weight, member.state), (HOST, 3, State.UP))

    async def test_nothing_yet(self) -> None:
        """A connection that comes before the first answer has no server."""
        self.server.fail(HOST, SILENCE)
        pool = self.pool()
        self.assertEqual(pool.pick(), Unavailable.NO_SERVER)

    async def test_change(self) -> None:
        """A changed answer changes the members, and those in both stay the same ones."""
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80", "10.0.0.2:80")
        (stays,) = (it for it in pool.members if it.target.host == "10.0.0.2")
        self.zone[HOST] = a("10.0.0.3", "10.0.0.2", ttl=5)
        await self.next_look_up()
        await self.found(pool, "10.0.0.2:80", "10.0.0.3:80")
        self.assertIn(stays, pool.members)

    async def test_no_change(self) -> None:
        """An answer in another order changes nothing, and the pool is not even told."""
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
        """All of 500 addresses are members."""
        self.zone[HOST] = a(*(f"10.0.{i // 250}.{i % 250}" for i in range(500)))
        pool = self.pool()
        await self.until(lambda: len(pool.members) == 500)
        await self.stop()
        # The comings and goings of sockets are not in the log.
        self.assertEqual({event["log_level"].name for event in self.logs}, {"debug"})

    async def test_too_many(self) -> None:
        """Of more than there may be, the same are taken each time."""
        addresses = [f"10.{i // 250}.0.{i % 250}" for i in range(MOST_ADDRESSES + 200)]
        self.zone[HOST] = a(*addresses, ttl=5)
        pool = self.pool()
        await self.until(lambda: len(pool.members) == MOST_ADDRESSES)
        given = pool.given
        self.zone[HOST].reverse()
        await self.next_look_up()
        await self.next_look_up()
        self.assertEqual(pool.given, given)

    async def test_aliases(self) -> None:
        """A name may be an alias of another; TLS verifies the one of the rules."""
        self.zone[HOST] = cname("end.test")
        self.zone["end.test"] = a("10.0.0.1")
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        self.assertEqual(pool.members[0].name, HOST)

    async def test_shared(self) -> None:
        """Servers of the same name share its look-up, whatever their pools and ports."""
        self.zone[HOST] = a("10.0.0.1")
        first = self.pool(*servers(f"{HOST}:80", f"{HOST.upper()}:81"))
        await self.found(first, "10.0.0.1:80", "10.0.0.1:81")
        second = self.pool()
        self.assertEqual(self.texts(second), ["10.0.0.1:80"])
        self.assertEqual(self.server.asked, {(HOST, dns.A): 1, (HOST, dns.AAAA): 1})

    async def test_own_intervals(self) -> None:
        """Backends that look names up more or less often do not."""
        self.zone[HOST] = a("10.0.0.1", ttl=FAR)
        for resolve in (10, 20):
            await self.found(self.pool(resolve=resolve), "10.0.0.1:80")
        self.assertEqual(self.server.asked[HOST, dns.A], 2)
        await self.until(lambda: len(self.time.clock.getDelayedCalls()) == 2)
        times = [call.getTime() for call in self.time.clock.getDelayedCalls()]
        self.assertEqual(times, [10, 20])


class TimeTests(NamesTestCase):
    """When a name is looked up again."""

    async def test_bounds(self) -> None:
        """That is after the time the answer gives, but not before 1 s, and not after `resolve`."""
        pool = self.pool(resolve=30)
        for ttl, seconds in ((0, 1), (1, 1), (7, 7), (30, 30), (31, 30), (2**31, 30)):
            self.zone[HOST] = a("10.0.0.1", ttl=ttl)
            if not pool.members:
                await self.found(pool)
            await self.next_look_up()
            self.assertEqual(await self.next_look_up(), seconds)

    async def test_back_off(self) -> None:
        """After a failure that is after 1, 2, 4, … seconds, up to `resolve`; after an answer as before."""
        self.server.fail(HOST, dns.ESERVER)
        self.pool(resolve=10)
        self.assertEqual([await self.next_look_up() for _ in range(6)], [1, 2, 4, 8, 10, 10])
        self.server.codes.clear()
        self.zone[HOST] = a("10.0.0.1", ttl=9)
        self.assertEqual(await self.next_look_up(), 9)
        self.server.fail(HOST, dns.ESERVER)
        self.assertEqual(await self.next_look_up(), 1)

    async def test_nobody_to_ask(self) -> None:
        """Neither does anything spin when there is no name server."""
        await self.server.stop()
        self.pool(resolve=10)
        self.assertEqual([await self.next_look_up() for _ in range(5)], [1, 2, 4, 8, 10])


class FailureTests(NamesTestCase):
    """Answers that fail: what was known stays."""

    async def start(self) -> CountingPool:
        """Give a pool that has got its members."""
        self.zone[HOST] = a("10.0.0.1", ttl=5)
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        return pool

    async def assert_kept(self, pool: CountingPool, why: str) -> None:
        """See that the next look-ups fail, that this is logged once, and that nothing else happens."""
        given = pool.given
        for _ in range(3):
            await self.next_look_up()
        (said,) = self.said()
        self.assertIn(
            f"warn: cannot find the addresses of {HOST}, it keeps those it had: 1; {why}", said
        )
        self.assertEqual((pool.given, self.texts(pool)), (given, ["10.0.0.1:80"]))

    async def test_server_failure(self) -> None:
        """A name server that fails changes nothing."""
        pool = await self.start()
        self.server.fail(HOST, dns.ESERVER)
        await self.assert_kept(pool, "the name server 127.0.0.1: SERVFAIL")

    async def test_vanished(self) -> None:
        """Nor does a name that does not exist any more."""
        pool = await self.start()
        self.zone.clear()
        await self.assert_kept(pool, "there is no such name")

    async def test_empty(self) -> None:
        """Nor one that has no addresses any more."""
        pool = await self.start()
        self.zone[HOST] = []
        await self.assert_kept(pool, "there is no such name, or it has no address")

    async def test_timeout(self) -> None:
        """Nor a name server that does not answer; it is asked again after a while."""
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
        """That it works again is logged once, and so is the next failure."""
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

    async def test_never_found(self) -> None:
        """A name that never had an address is told so."""
        self.pool()
        await self.next_look_up()
        (said,) = self.said()
        self.assertIn(f"cannot find the addresses of {HOST}, it has none yet; ", said)

    async def test_one_family(self) -> None:
        """When only one family is answered, the addresses of the other stay."""
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
        """A family that has no addresses any more is gone."""
        self.zone[HOST] = a("127.0.0.1", ttl=5) + aaaa("::1", ttl=5)
        pool = self.pool()
        await self.until(lambda: pool.members)
        self.zone[HOST] = aaaa("::1", ttl=5)
        await self.next_look_up()
        await self.found(pool, "[::1]:80")

    async def test_error_in_here(self) -> None:
        """Whatever goes wrong, it is logged once, and the name is looked up again."""
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


class ServiceTests(NamesTestCase):
    """Servers named by SRV records."""

    async def test_records(self) -> None:
        """Every address of a target is a member, with the record's port, weight and priority."""
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
        """While a server of the best priority is up, no other is used."""
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

    async def test_not_available(self) -> None:
        """A target of `.` says that there is no server, decidedly."""
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

    async def test_vanished(self) -> None:
        """A service that does not exist any more keeps its servers."""
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

    async def test_target_fails(self) -> None:
        """A target that cannot be looked up keeps its addresses, while the others go on."""
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
        """A service whose targets have never been found has no answer."""
        self.zone[SERVICE] = [srv("one.test")]
        self.pool(service())
        self.assertEqual(await self.next_look_up(), 1)
        (said,) = self.said()
        self.assertIn("it has none yet", said)
        self.assertIn("one.test: there is no such name", said)

    async def test_hundreds(self) -> None:
        """All of 500 targets are found, though not asked for at once."""
        self.zone[SERVICE] = [srv(f"{i}.test", 1000 + i) for i in range(500)]
        for i in range(500):
            self.zone[f"{i}.test"] = a("10.0.0.1")
        pool = self.pool(service())
        await self.until(lambda: len(pool.members) == 500)
        self.assertEqual(self.server.asked.total() - self.server.asked_by_tcp.total(), 1001)


class FirstAnswerTests(NamesTestCase):
    """The start, which waits for names but not for long."""

    async def test_without_names(self) -> None:
        """Without names there is nothing to wait for."""
        self.pool(*servers("10.0.0.1:80"))
        self.assertTrue(self.names.first_answer().called)

    async def test_answers(self) -> None:
        """With names it is over when each has been looked up, found or not."""
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool(*servers(f"{HOST}:80", "unknown.test:80"))
        waiting = self.names.first_answer(), self.names.first_answer()
        self.assertNoResult(waiting[0])
        for one in waiting:
            await one
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])
        self.assertTrue(self.names.first_answer().called)

    async def test_bound(self) -> None:
        """It is over after the time it is given as well."""
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
        """It is over when all is over."""
        self.server.fail(HOST, SILENCE)
        self.pool()
        waiting = self.names.first_answer()
        await self.stop()
        self.assertIsNone(self.successResultOf(waiting))


class StopTests(NamesTestCase):
    """The end: no socket and no timer is left, which trial looks for."""

    async def test_while_asking(self) -> None:
        """Questions are given up."""
        for name in (HOST, "one.test"):
            self.server.fail(name, SILENCE)
        self.zone[SERVICE] = [srv("one.test")]
        self.pool(*servers(f"{HOST}:80"), service())
        await self.asked(HOST)
        await self.asked("one.test", dns.AAAA)
        await self.stop()

    async def test_while_waiting(self) -> None:
        """So are the look-ups to come."""
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool()
        await self.found(pool, "10.0.0.1:80")
        await self.stop()
        self.time.advance(FAR)
        self.assertEqual(self.server.asked[HOST, dns.A], 1)

    async def test_from_an_answer(self) -> None:
        """Whoever is told of an answer may stop all."""
        self.zone[HOST] = a("10.0.0.1")
        pool = self.pool()
        stopped: list[Deferred[None]] = []
        pool.on_room = lambda: stopped.append(self.stop())
        await self.until(lambda: stopped)
        await stopped[0]
        self.assertEqual(self.texts(pool), ["10.0.0.1:80"])

    async def test_twice(self) -> None:
        """Stopping again, or before anything began, is no trouble."""
        await self.stop()
        await self.stop()


class ScriptedLookup(Lookup):
    """Answers by heart."""

    def __init__(self, *addresses: str) -> None:
        self.answer = HostAnswer({dns.A: frozenset(addresses)}, FAR)

    async def host(self, name: str) -> HostAnswer:
        return self.answer

    async def service(self, name: str) -> ServiceAnswer:
        return ServiceAnswer([Service(0, 1, 0, "port-0.test"), Service(0, 1, 1, "one.test")], FAR)


class AddressTests(SynchronousTestCase):
    """Which addresses of a name are taken, and in which order."""

    def found(self, server: Server, *addresses: str) -> list[str]:
        """Give the addresses of a name."""
        finding = Deferred.fromCoroutine(AddressFinder(ScriptedLookup(*addresses), server).find())
        return [it.host for it in self.successResultOf(finding).addresses]

    def test_order(self) -> None:
        """They are in the order of their numbers, whatever the order of the answer."""
        self.assertEqual(
            self.found(servers("a.test:1")[0], "127.0.0.10", "127.0.0.9"),
            ["127.0.0.9", "127.0.0.10"],
        )

    def test_no_way(self) -> None:
        """Where both families are, an address that there is no way to is left out."""
        self.assertEqual(
            self.found(servers("a.test:1")[0], "127.0.0.1", "ff02::1%nowhere"), ["127.0.0.1"]
        )

    def test_no_way_at_all(self) -> None:
        """It stays where there is no way to any."""
        addresses = ["255.255.255.255", "ff02::1%nowhere"]
        self.assertEqual(self.found(servers("a.test:1")[0], *addresses), addresses)

    def test_no_port(self) -> None:
        """A record with the port 0 leads to no server."""
        self.assertEqual(self.found(service(), "10.0.0.1"), ["10.0.0.1"])
