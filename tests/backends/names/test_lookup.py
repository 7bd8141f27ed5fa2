"""One look-up of a name, with a real name server."""

from __future__ import annotations

import math

from twisted.internet.defer import Deferred
from twisted.names import dns

from tests.backends.names.lookup_case import HOST, LookupTestCase
from tests.backends.names.nameserver import a, aaaa, cname, srv
from txmux.backends.names.lookup import HostAnswer, Lookup, ServiceRecord


class HostTests(LookupTestCase):
    """Addresses of hosts."""

    async def test_both_families(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=40) + aaaa("fd00::1", ttl=20)
        answer = await self.lookup.host(HOST)
        self.assertEqual(
            answer,
            HostAnswer(
                {dns.A: frozenset({"10.0.0.1", "10.0.0.2"}), dns.AAAA: frozenset({"fd00::1"})}, 20
            ),
        )

    async def test_case(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        self.assertEqual(await self.addresses("HOST.Test."), ["10.0.0.1"])

    async def test_no_ipv6_is_an_answer(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses[dns.AAAA], frozenset())
        self.assertEqual(answer.trouble, "")

    async def test_long_answer_over_tcp(self) -> None:
        self.zone[HOST] = a(*(f"10.0.{i // 250}.{i % 250}" for i in range(500)))
        self.assertEqual(len(await self.addresses()), 500)
        self.assertEqual(self.server.asked_by_tcp, {(HOST, dns.A): 1})

    async def test_1232_bytes_over_udp(self) -> None:
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(70)))
        self.assertEqual(len(await self.addresses()), 70)
        self.assertEqual(self.server.asked_by_tcp.total(), 0)

    async def test_longest_answer(self) -> None:
        self.zone[HOST] = a(*(f"10.1.{i // 250}.{i % 250}" for i in range(4000)))
        self.assertEqual(len(await self.addresses()), 4000)

    async def test_unknown(self) -> None:
        self.assertIn("no such name", await self.failure(self.lookup.host(HOST)))

    async def test_without_addresses(self) -> None:
        self.zone[HOST] = [dns.Record_TXT(b"text")]
        self.assertIn("has no address", await self.failure(self.lookup.host(HOST)))

    async def test_impossible_names(self) -> None:
        for name in (f"{'x' * 64}.test", "a..b"):
            self.assertIn("cannot be a name", await self.failure(self.lookup.host(name)))


class AliasTests(LookupTestCase):
    """CNAME records."""

    async def test_chain(self) -> None:
        self.zone[HOST] = cname("alias.test", ttl=7)
        self.zone["alias.test"] = cname("end.test")
        self.zone["end.test"] = a("10.0.0.1") + a("10.0.0.2")
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses[dns.A], frozenset({"10.0.0.1", "10.0.0.2"}))
        self.assertEqual(answer.ttl, 7)

    async def test_alias_at_the_end_of_an_answer(self) -> None:
        second = self.name_server()
        self.zone[HOST] = cname("end.test")
        second.zone["end.test"] = a("10.0.0.1")
        self.server.fail("end.test", dns.EREFUSED)
        self.lookup = self.lookup_with(self.server, second)
        self.assertEqual(await self.addresses(), ["10.0.0.1"])

    async def test_dead_end(self) -> None:
        self.zone[HOST] = cname("end.test")
        self.assertIn("no such name", await self.failure(self.lookup.host(HOST)))

    async def test_circle(self) -> None:
        self.zone[HOST] = cname("other.test")
        self.zone["other.test"] = cname(HOST)
        self.assertIn("no such name", await self.failure(self.lookup.host(HOST)))

    async def test_endless_chain(self) -> None:
        for i in range(30):
            self.zone[f"{i}.test"] = cname(f"{i + 1}.test")
        self.server.most_names = 2
        self.assertIn("form a loop", await self.failure(self.lookup.host("0.test")))
        self.assertEqual(self.server.asked["14.test", dns.A], 1)
        self.assertEqual(self.server.asked["16.test", dns.A], 0)


class ServiceTests(LookupTestCase):
    """Servers of services."""

    async def test_records(self) -> None:
        self.zone["_ssh._tcp.test"] = [
            srv("one.test", 22, 10, 60, ttl=9),
            srv("two.test", 2222, 20, 0),
        ]
        answer = await self.lookup.service("_ssh._tcp.test")
        self.assertEqual(
            answer.services,
            [ServiceRecord(10, 60, 22, "one.test"), ServiceRecord(20, 0, 2222, "two.test")],
        )
        self.assertEqual(answer.ttl, 9)

    async def test_unknown(self) -> None:
        self.assertIn("no SRV record", await self.failure(self.lookup.service("_ssh._tcp.test")))

    async def test_strange_target(self) -> None:
        """A record may name any bytes; they are shown so that they cannot be mistaken for text."""
        self.zone["_ssh._tcp.test"] = [
            srv("one.test"),
            dns.Record_SRV(0, 0, 22, b"\n\xe4.test", 30),
        ]
        answer = await self.lookup.service("_ssh._tcp.test")
        targets = {it.target for it in answer.services}
        self.assertEqual(targets, {"one.test", r"\n\xe4.test"})

    async def test_failure(self) -> None:
        self.server.fail("_ssh._tcp.test", dns.ESERVER)
        self.assertIn("SERVFAIL", await self.failure(self.lookup.service("_ssh._tcp.test")))


class SystemTests(LookupTestCase):
    """What the system's files say."""

    async def test_hosts(self) -> None:
        self.hosts.write_text("10.0.0.1 other host.test\n10.0.0.2 host.test\nfd00::01 HOST.test\n")
        answer = await self.lookup.host(HOST)
        self.assertEqual(
            answer.addresses,
            {dns.A: frozenset({"10.0.0.1", "10.0.0.2"}), dns.AAAA: frozenset({"fd00::1"})},
        )
        self.assertEqual(answer.ttl, math.inf)
        self.assertEqual(self.server.asked.total(), 0)

    async def test_localhost(self) -> None:
        self.assertEqual(await self.addresses("localhost"), ["127.0.0.1", "::1"])
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.assertEqual(await self.addresses("localhost"), ["127.0.0.1"])

    async def test_search(self) -> None:
        self.resolv_conf.write_text("search one.test two.test\n")
        self.zone["web.two.test"] = a("10.0.0.1")
        self.assertEqual(await self.addresses("web"), ["10.0.0.1"])
        self.assertEqual(self.server.asked["web.one.test", dns.A], 1)
        self.assertEqual(self.server.asked["web", dns.A], 0)

    async def test_search_goes_on_after_failures(self) -> None:
        """A domain whose servers fail, for one family or for both, does not keep a name from being found in the next."""
        self.resolv_conf.write_text("search one.test two.test three.test\n")
        self.zone["web.three.test"] = a("10.0.0.1")
        self.zone["web.two.test"] = [dns.Record_TXT(b"text")]
        self.server.fail("web.one.test", dns.ESERVER)
        self.server.fail("web.two.test", dns.EREFUSED, dns.AAAA)
        answer = await self.lookup.host("web")
        self.assertEqual(answer.addresses[dns.A], frozenset({"10.0.0.1"}))
        self.assertEqual(answer.trouble, "")

    async def test_search_in_vain_after_a_failure(self) -> None:
        """Where no later domain has the name, the failure is told: the name may exist there."""
        self.resolv_conf.write_text("search one.test two.test\n")
        self.server.fail("web.one.test", dns.ESERVER)
        self.server.fail("web.two.test", dns.EREFUSED)
        self.assertIn("SERVFAIL", await self.failure(self.lookup.host("web")))
        self.assertEqual(self.server.asked["web", dns.A], 1)

    async def test_service_after_a_failure(self) -> None:
        self.resolv_conf.write_text("search one.test two.test\noptions ndots:5\n")
        self.zone["_ssh._tcp.two.test"] = [srv("one.test")]
        self.server.fail("_ssh._tcp.one.test", dns.ESERVER)
        answer = await self.lookup.service("_ssh._tcp")
        self.assertEqual([it.target for it in answer.services], ["one.test"])

    async def test_search_ends_where_nobody_answers(self) -> None:
        self.resolv_conf.write_text("search one.test two.test\n")
        await self.server.stop()
        self.assertIn("refused", await self.failure(self.lookup.host("web")))

    async def test_servers_of_the_file(self) -> None:
        lookup = Lookup(self.time, (), self.resolv_conf, self.hosts)
        for server in ("255.255.255.254", "255.255.255.255"):
            self.resolv_conf.write_text(f"nameserver {server}\n")
            waiting = Deferred.fromCoroutine(self.failure(lookup.host(HOST)))
            while not waiting.called:
                self.time.advance(1)
            self.assertIn(server, await waiting)
