"""One look-up of a name, with a real name server."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import deferLater
from twisted.names import dns

from tests.backends.nameserver import (
    GARBAGE,
    HANG_UP,
    SILENCE,
    NameServerTestCase,
    a,
    aaaa,
    cname,
    srv,
    temporary_folder,
)
from tests.support.peers import reactor
from txmux.backends.lookup import HostAnswer, Lookup, Service
from txmux.backends.question import LookupFailedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.backends.nameserver import NameServer

HOST = "host.test"


class LookupTestCase(NameServerTestCase):
    """A test with a look-up that asks the test's name server."""

    def setUp(self) -> None:
        super().setUp()
        folder = temporary_folder(self)
        self.hosts = folder / "hosts"
        self.resolv_conf = folder / "resolv.conf"
        self.lookup = self.lookup_with(self.server)

    def lookup_with(self, *servers: NameServer) -> Lookup:
        """Ask these, in this order."""
        places = [server.place for server in servers]
        return Lookup(self.time, places, self.resolv_conf, self.hosts)

    async def failure(self, looking: Coroutine[Any, Any, object]) -> str:
        """Give the reason for which a look-up fails."""
        with self.assertRaises(LookupFailedError) as caught:
            await looking
        return str(caught.exception)

    async def addresses(self, name: str = HOST) -> list[str]:
        """Give all addresses of a host, in an order."""
        answer = await self.lookup.host(name)
        return sorted(address for found in answer.addresses.values() for address in found)

    def tearDown(self) -> None:
        self.assertEqual(self.time.clock.getDelayedCalls(), [])


class HostTests(LookupTestCase):
    """Addresses of hosts."""

    async def test_both_families(self) -> None:
        """All A and all AAAA records are found, for the shortest of their times."""
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=40) + aaaa("fd00::1", ttl=20)
        answer = await self.lookup.host(HOST)
        self.assertEqual(
            answer,
            HostAnswer(
                {
                    dns.A: frozenset({"10.0.0.1", "10.0.0.2"}),
                    dns.AAAA: frozenset({"fd00::1"}),
                },
                20,
            ),
        )

    async def test_case(self) -> None:
        """Names are the same in capitals and with a final dot."""
        self.zone[HOST] = a("10.0.0.1")
        self.assertEqual(await self.addresses("HOST.Test."), ["10.0.0.1"])

    async def test_one_family(self) -> None:
        """A host without IPv6 addresses has answered all the same."""
        self.zone[HOST] = a("10.0.0.1")
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses[dns.AAAA], frozenset())
        self.assertEqual(answer.trouble, "")

    async def test_hundreds(self) -> None:
        """An answer that is too long for UDP is fetched over TCP."""
        self.zone[HOST] = a(*(f"10.0.{i // 250}.{i % 250}" for i in range(500)))
        self.assertEqual(len(await self.addresses()), 500)
        self.assertEqual(self.server.asked_by_tcp, {(HOST, dns.A): 1})

    async def test_thousands(self) -> None:
        """So is one that is nearly as long as an answer can be."""
        self.zone[HOST] = a(*(f"10.1.{i // 250}.{i % 250}" for i in range(4000)))
        self.assertEqual(len(await self.addresses()), 4000)

    async def test_unknown(self) -> None:
        """A name that does not exist is told."""
        self.assertIn("no such name", await self.failure(self.lookup.host(HOST)))

    async def test_without_addresses(self) -> None:
        """So is a name without addresses."""
        self.zone[HOST] = [dns.Record_TXT(b"text")]
        self.assertIn("has no address", await self.failure(self.lookup.host(HOST)))

    async def test_impossible_names(self) -> None:
        """A name that no question could hold is told."""
        for name in (f"{'x' * 64}.test", "a..b"):
            self.assertIn("cannot be a name", await self.failure(self.lookup.host(name)))


class AliasTests(LookupTestCase):
    """CNAME records."""

    async def test_chain(self) -> None:
        """Aliases in one answer are followed, and their times count."""
        self.zone[HOST] = cname("alias.test", ttl=7)
        self.zone["alias.test"] = cname("end.test")
        self.zone["end.test"] = a("10.0.0.1") + a("10.0.0.2")
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses[dns.A], frozenset({"10.0.0.1", "10.0.0.2"}))
        self.assertEqual(answer.ttl, 7)

    async def test_one_after_the_other(self) -> None:
        """Where the answer ends with an alias, that name is asked for."""
        second = self.name_server()
        self.zone[HOST] = cname("end.test")
        second.zone["end.test"] = a("10.0.0.1")
        self.server.fail("end.test", dns.EREFUSED)
        self.lookup = self.lookup_with(self.server, second)
        self.assertEqual(await self.addresses(), ["10.0.0.1"])

    async def test_dead_end(self) -> None:
        """An alias of a name that does not exist has no addresses."""
        self.zone[HOST] = cname("end.test")
        self.assertIn("no such name", await self.failure(self.lookup.host(HOST)))

    async def test_circle(self) -> None:
        """Aliases that lead to each other are not followed for ever."""
        self.zone[HOST] = cname("other.test")
        self.zone["other.test"] = cname(HOST)
        self.assertIn("no such name", await self.failure(self.lookup.host(HOST)))

    async def test_no_end(self) -> None:
        """Neither are ever new aliases."""
        for i in range(30):
            self.zone[f"{i}.test"] = cname(f"{i + 1}.test")
        self.server.most_names = 2
        self.assertIn("on and on", await self.failure(self.lookup.host("0.test")))
        self.assertEqual(self.server.asked["14.test", dns.A], 1)
        self.assertEqual(self.server.asked["16.test", dns.A], 0)


class ServiceTests(LookupTestCase):
    """Servers of services."""

    async def test_records(self) -> None:
        """Priority, weight, port and target are told."""
        self.zone["_ssh._tcp.test"] = [
            srv("one.test", 22, 10, 60, ttl=9),
            srv("two.test", 2222, 20, 0),
        ]
        answer = await self.lookup.service("_ssh._tcp.test")
        self.assertEqual(
            answer.services, [Service(10, 60, 22, "one.test"), Service(20, 0, 2222, "two.test")]
        )
        self.assertEqual(answer.ttl, 9)

    async def test_unknown(self) -> None:
        """A service that does not exist is told."""
        self.assertIn("no SRV record", await self.failure(self.lookup.service("_ssh._tcp.test")))

    async def test_failure(self) -> None:
        """So is a server that cannot answer."""
        self.server.fail("_ssh._tcp.test", dns.ESERVER)
        self.assertIn("SERVFAIL", await self.failure(self.lookup.service("_ssh._tcp.test")))


class TroubleTests(LookupTestCase):
    """Name servers that do not answer as they should."""

    async def test_server_failure(self) -> None:
        """A server that fails is named with its response code, and is asked once."""
        self.server.fail(HOST, dns.ESERVER)
        self.assertEqual(
            await self.failure(self.lookup.host(HOST)), "the name server 127.0.0.1: SERVFAIL"
        )
        self.assertEqual(self.server.asked[HOST, dns.A], 1)

    async def test_strange_code(self) -> None:
        """So is one with a code that has no name here."""
        self.server.fail(HOST, 9)
        self.assertIn("response code 9", await self.failure(self.lookup.host(HOST)))

    async def test_next_server(self) -> None:
        """After a server that fails, the next one is asked."""
        second = self.name_server()
        self.server.fail(HOST, dns.ESERVER)
        second.zone[HOST] = a("10.0.0.1")
        self.lookup = self.lookup_with(self.server, second)
        self.assertEqual(await self.addresses(), ["10.0.0.1"])

    async def test_nobody_there(self) -> None:
        """A port that nobody listens at is known without waiting for a time to run out."""
        await self.server.stop()
        why = await self.failure(self.lookup.host(HOST))
        self.assertEqual(why, "the name server 127.0.0.1: Connection refused")

    async def test_no_way(self) -> None:
        """A server that nothing can be sent to is told."""
        lookup = Lookup(self.time, [("255.255.255.255", 53)], self.resolv_conf, self.hosts)
        self.assertIn("255.255.255.255: ", await self.failure(lookup.host(HOST)))

    async def test_silence(self) -> None:
        """A server that says nothing is asked twice, and has 1 s and then 3 s."""
        self.server.fail(HOST, SILENCE)
        waiting = Deferred.fromCoroutine(self.failure(self.lookup.host(HOST)))
        await self.asked(HOST)
        self.time.advance(0.9)
        self.assertEqual(self.server.asked[HOST, dns.A], 1)
        self.time.advance(0.2)
        await self.asked(HOST, times=2)
        await self.asked(HOST, dns.AAAA, times=2)
        self.time.advance(3)
        self.assertIn("127.0.0.1: no answer within 3 s", await waiting)

    async def test_next_server_after_silence(self) -> None:
        """After a server that says nothing, the next one is asked."""
        second = self.name_server()
        self.server.fail(HOST, SILENCE)
        second.zone[HOST] = a("10.0.0.1")
        self.lookup = self.lookup_with(self.server, second)
        waiting = Deferred.fromCoroutine(self.addresses())
        await self.asked(HOST)
        await self.asked(HOST, dns.AAAA)
        self.time.advance(1)
        self.assertEqual(await waiting, ["10.0.0.1"])

    async def test_one_family_fails(self) -> None:
        """The addresses of one family are taken when the other cannot be had."""
        self.zone[HOST] = a("10.0.0.1", ttl=5) + aaaa("fd00::1")
        self.server.fail(HOST, dns.ESERVER, dns.AAAA)
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses, {dns.A: frozenset({"10.0.0.1"})})
        self.assertEqual(answer.ttl, 5)
        self.assertIn("SERVFAIL", answer.trouble)

    async def test_one_family_is_silent(self) -> None:
        """They wait for the other no longer than 1 s."""
        self.zone[HOST] = aaaa("fd00::1")
        self.server.fail(HOST, SILENCE, dns.A)
        waiting = Deferred.fromCoroutine(self.lookup.host(HOST))
        self.time.advance(0.25)
        # The answer is there when its time to wait for the other is.
        await self.until(lambda: self.time.clock.getDelayedCalls()[-1].getTime() == 1.25)
        self.time.advance(0.9)
        self.assertNoResult(waiting)
        self.time.advance(0.1)
        answer = await waiting
        self.assertEqual(answer.addresses, {dns.AAAA: frozenset({"fd00::1"})})
        self.assertIn("one of the address families", answer.trouble)

    async def test_foreign_messages(self) -> None:
        """What is no answer to the question is passed over."""
        self.server.fail(HOST, GARBAGE)
        for addresses in (["10.0.0.1"], [f"10.0.0.{i}" for i in range(100, 200)]):
            self.zone[HOST] = a(*addresses)
            self.assertEqual(await self.addresses(), addresses)

    async def test_broken_tcp(self) -> None:
        """A server that closes the TCP connection, or is not there, has no answer."""
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(100)))
        self.server.by_tcp = HANG_UP
        self.assertIn("closed the connection", await self.failure(self.lookup.host(HOST)))
        await self.server.ports.pop().stopListening()
        self.assertIn("refused", await self.failure(self.lookup.host(HOST)))

    async def test_silent_tcp(self) -> None:
        """A server that says nothing over TCP has 3 s each time."""
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(100)))
        self.server.by_tcp = SILENCE
        waiting = Deferred.fromCoroutine(self.failure(self.lookup.host(HOST)))
        await self.until(lambda: self.server.asked_by_tcp[HOST, dns.A] == 1)
        self.time.advance(3)
        await self.until(lambda: self.server.asked_by_tcp[HOST, dns.A] == 2)
        self.time.advance(3)
        self.assertIn("no answer", await waiting)


class OtherReactorTests(LookupTestCase):
    """A reactor that tells of a socket's error as if there were something to read."""

    def setUp(self) -> None:
        super().setUp()
        self.other = SelectReactor()
        self.lookup = Lookup(self.other, [self.server.place], self.resolv_conf, self.hosts)

    async def test_nobody_there(self) -> None:
        """A port that nobody listens at is known there as well."""
        await self.server.stop()
        waiting = Deferred.fromCoroutine(self.failure(self.lookup.host(HOST)))
        while not waiting.called:
            self.other.iterate(0.1)
        self.assertIn("Connection refused", await waiting)

    async def test_nothing_to_read(self) -> None:
        """A socket that has nothing after all goes on."""
        self.zone[HOST] = a("10.0.0.1")
        waiting = Deferred.fromCoroutine(self.addresses())
        for reader in self.other.getReaders():
            if reader.logPrefix() == "names":
                reader.doRead()
        await self.asked(HOST, dns.A)
        await self.asked(HOST, dns.AAAA)
        while not waiting.called:
            self.other.iterate(0.1)
        self.assertEqual(await waiting, ["10.0.0.1"])


class CancelTests(LookupTestCase):
    """A look-up that nobody waits for any more: nothing of it is left in the reactor."""

    async def cancel(self) -> None:
        """Cancel a look-up when the server has been asked."""
        waiting = Deferred.fromCoroutine(self.lookup.host(HOST))
        await self.asked(HOST)
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting

    async def test_asking(self) -> None:
        """The socket is closed."""
        self.server.fail(HOST, SILENCE)
        await self.cancel()

    async def test_asking_by_tcp(self) -> None:
        """So is that of TCP, at any moment."""
        self.server.by_tcp = SILENCE
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(100)))
        for turns in range(8):
            self.server.asked.clear()
            waiting = Deferred.fromCoroutine(self.lookup.host(HOST))
            await self.asked(HOST)
            for _ in range(turns):
                await deferLater(reactor, 0)
            waiting.cancel()
            with self.assertRaises(CancelledError):
                await waiting

    async def test_in_the_queue(self) -> None:
        """Questions that wait for others to be answered are never asked."""
        self.server.fail(HOST, SILENCE)
        waiting = [Deferred.fromCoroutine(self.lookup.host(HOST)) for _ in range(100)]
        await self.asked(HOST, dns.A, 32)
        for one in waiting:
            one.cancel()
            with self.assertRaises(CancelledError):
                await one
        self.assertEqual(self.server.asked.total(), 64)


class SystemTests(LookupTestCase):
    """What the system's files say."""

    async def test_hosts(self) -> None:
        """What is in the file of hosts is not asked for."""
        self.hosts.write_text("10.0.0.1 other host.test\n10.0.0.2 host.test\nfd00::01 HOST.test\n")
        answer = await self.lookup.host(HOST)
        self.assertEqual(
            answer.addresses,
            {dns.A: frozenset({"10.0.0.1", "10.0.0.2"}), dns.AAAA: frozenset({"fd00::1"})},
        )
        self.assertEqual(answer.ttl, math.inf)
        self.assertEqual(self.server.asked.total(), 0)

    async def test_localhost(self) -> None:
        """`localhost` has its addresses even without a file."""
        self.assertEqual(await self.addresses("localhost"), ["127.0.0.1", "::1"])
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.assertEqual(await self.addresses("localhost"), ["127.0.0.1"])

    async def test_search(self) -> None:
        """A short name is looked for in the domains of the file."""
        self.resolv_conf.write_text("search one.test two.test\n")
        self.zone["web.two.test"] = a("10.0.0.1")
        self.assertEqual(await self.addresses("web"), ["10.0.0.1"])
        self.assertEqual(self.server.asked["web.one.test", dns.A], 1)
        self.assertEqual(self.server.asked["web", dns.A], 0)

    async def test_search_ends_with_trouble(self) -> None:
        """Where a domain's servers do not answer, the name is not looked for in the next: it may be another host."""
        self.resolv_conf.write_text("search one.test two.test\n")
        self.zone["web.two.test"] = a("10.0.0.1")
        self.server.fail("web.one.test", dns.ESERVER)
        self.assertIn("SERVFAIL", await self.failure(self.lookup.host("web")))

    async def test_servers_of_the_file(self) -> None:
        """The name servers of the file are asked, as it is at that moment."""
        lookup = Lookup(self.time, (), self.resolv_conf, self.hosts)
        for server in ("255.255.255.254", "255.255.255.255"):
            self.resolv_conf.write_text(f"nameserver {server}\n")
            waiting = Deferred.fromCoroutine(self.failure(lookup.host(HOST)))
            while not waiting.called:
                self.time.advance(1)
            self.assertIn(server, await waiting)
