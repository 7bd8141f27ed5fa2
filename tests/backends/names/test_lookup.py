import math
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names import nameserver
from tests.backends.names.nameserver import FLOOD, GARBAGE, HANG_UP, SILENCE, a, aaaa, cname, srv
from tests.backends.names.resolve_case import HOST, CountingLookup, NamesCase
from tests.net.relay.reactors import PrivateReactor
from tests.support.kit import make_folder, reactor
from txmux.backends.names.lookup import HostAnswer, Lookup, ResolvConf, has_route, listed_addresses
from txmux.backends.names.question import LookupFailedError, NameServers, TrackedServers
from txmux.telemetry.sources import Source


async def failure(looking: Coroutine[Any, Any, object]) -> str:
    try:
        await looking
    except LookupFailedError as error:
        return str(error)
    raise AssertionError("it has not failed")


async def addresses(test: NamesCase, name: str = HOST) -> list[str]:
    answer = await test.lookup.host(name)
    return sorted(address for found in answer.addresses.values() for address in found)


class HostTests(NamesCase):
    async def test_both_families(self) -> None:
        self.zone[HOST] = a("10.0.0.1", "10.0.0.2", ttl=40) + aaaa("fd00::1", ttl=20)
        both = {dns.A: frozenset({"10.0.0.1", "10.0.0.2"}), dns.AAAA: frozenset({"fd00::1"})}
        self.assertEqual(await self.lookup.host(HOST), HostAnswer(both, 20))
        self.zone[HOST] = a("10.0.0.1")  # that there is none of one of them is an answer
        answer = await self.lookup.host(HOST)
        self.assertEqual((answer.addresses[dns.AAAA], answer.trouble), (frozenset(), ""))
        self.assertEqual(await addresses(self, "HOST.Test."), ["10.0.0.1"])
        for ttl, expected in ((1 << 31, 0), ((1 << 32) - 1, 0), ((1 << 31) - 1, (1 << 31) - 1)):
            self.zone[HOST] = a("10.0.0.1", ttl=ttl)
            self.assertEqual((await self.lookup.host(HOST)).ttl, expected)

    async def test_answers_of_more_than_1232_bytes_come_over_tcp(self) -> None:
        for count, by_tcp in ((70, 0), (500, 1), (4000, 1)):
            self.server.asked_by_tcp.clear()
            self.zone[HOST] = a(*(f"10.0.{i // 250}.{i % 250}" for i in range(count)))
            self.assertEqual(len(await addresses(self)), count)
            self.assertEqual(self.server.asked_by_tcp, {(HOST, dns.A): 1} if by_tcp else {})

    async def test_an_answer_that_is_cut_off_is_none(self) -> None:
        """What is left of it would be all servers, or say that there are none."""
        self.server.by_udp = nameserver.CUT
        for sent in (["10.0.0.1"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]):
            self.zone[HOST] = a(*sent)
            self.server.by_tcp = dns.OK
            self.assertEqual(await addresses(self), sent)
            self.server.by_tcp = nameserver.CUT
            self.assertIn("its answer is not whole", await failure(self.lookup.host(HOST)))

    async def test_failures(self) -> None:
        self.zone |= {
            "text.test": [dns.Record_TXT(b"text")], "dead.test": cname("end.test"),
            "a.test": cname("b.test"), "b.test": cname("a.test"),
        }  # fmt: skip
        self.server.fail("broken.test", dns.ESERVER)
        self.server.fail("odd.test", 12)
        for name, why in (
            (HOST, "no such name"), ("text.test", "has no address"), ("dead.test", "no such name"),
            ("a.test", "no such name"), (f"{'x' * 64}.test", "cannot be a name"),
            ("a..b", "cannot be a name"), ("odd.test", "response code 12"),
        ):  # fmt: skip
            self.assertIn(why, await failure(self.lookup.host(name)), name)
        why = f"the name server {self.server.shown} answered SERVFAIL"
        self.assertEqual(await failure(self.lookup.host("broken.test")), why)
        self.assertEqual(self.server.asked["broken.test", dns.A], 1)
        self.assertIn("SERVFAIL", await failure(self.lookup.service("broken.test")))
        self.assertIn("no SRV record", await failure(self.lookup.service("_ssh._tcp.test")))


class _BusyReactor(Clock):
    """Does not come to read anything."""

    def addReader(self, reader: object) -> None: ...

    def removeReader(self, reader: object) -> None: ...


class AliasTests(NamesCase):
    async def test_endless_chain(self) -> None:
        self.zone[HOST] = cname("alias.test", ttl=7)
        self.zone["alias.test"] = cname("end.test")
        self.zone["end.test"] = a("10.0.0.1") + a("10.0.0.2")
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses[dns.A], frozenset({"10.0.0.1", "10.0.0.2"}))
        self.assertEqual(answer.ttl, 7)
        for i in range(30):
            self.zone[f"{i}.test"] = cname(f"{i + 1}.test")
        self.server.most_names = 2
        self.assertIn("form a loop", await failure(self.lookup.host("0.test")))
        self.assertEqual(self.server.asked["14.test", dns.A], 1)
        self.assertEqual(self.server.asked["16.test", dns.A], 0)

    async def test_alias_at_the_end_of_an_answer(self) -> None:
        second = self.name_server()
        self.zone[HOST] = cname("end.test")
        second.zone["end.test"] = a("10.0.0.1")
        self.server.fail("end.test", dns.EREFUSED)
        self.lookup = self.lookup_with(self.server, second)
        self.assertEqual(await addresses(self), ["10.0.0.1"])

    async def test_strange_target(self) -> None:
        """A record may name any bytes; they are shown so that they cannot be mistaken for text."""
        odd = dns.Record_SRV(0, 0, 22, b"\n\xe4.test", 30)
        self.zone["_ssh._tcp.test"] = [srv("one.test"), odd]
        answer = await self.lookup.service("_ssh._tcp.test")
        self.assertEqual({it.target for it in answer.services}, {"one.test", r"\n\xe4.test"})


class SystemTests(NamesCase):
    async def test_hosts_and_localhost(self) -> None:
        self.assertEqual(await addresses(self, "localhost"), ["127.0.0.1", "::1"])
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.assertEqual(await addresses(self, "localhost"), ["127.0.0.1"])
        self.hosts.write_text("10.0.0.1 other host.test\n10.0.0.2 host.test\nfd00::01 HOST.test\n")
        both = {dns.A: frozenset({"10.0.0.1", "10.0.0.2"}), dns.AAAA: frozenset({"fd00::1"})}
        self.assertEqual(await self.lookup.host(HOST), HostAnswer(both, math.inf))
        self.assertEqual(self.server.asked.total(), 0)

    async def test_search(self) -> None:
        """A domain whose servers fail, for one family or for both, does not keep a name from being found in the next."""
        self.resolv_conf.write_text("search one.test two.test\n")
        self.zone["web.two.test"] = a("10.0.0.1")
        self.assertEqual(await addresses(self, "web"), ["10.0.0.1"])
        self.assertEqual(self.server.asked["web.one.test", dns.A], 1)
        self.assertEqual(self.server.asked["web", dns.A], 0)
        self.zone["web.two.test"] = [dns.Record_TXT(b"text")]
        self.server.fail("web.one.test", dns.ESERVER)
        self.server.fail("web.two.test", dns.EREFUSED, dns.AAAA)
        self.resolv_conf.write_text("search one.test two.test three.test\n")
        self.zone["web.three.test"] = a("10.0.0.1")
        answer = await self.lookup.host("web")
        self.assertEqual(answer.addresses[dns.A], frozenset({"10.0.0.1"}))
        self.assertEqual(answer.trouble, "")
        # Where no later domain has the name, the failure is told: the name may exist there.
        self.resolv_conf.write_text("search one.test two.test\n")
        self.server.fail("web.two.test", dns.EREFUSED)
        self.assertIn("SERVFAIL", await failure(self.lookup.host("web")))
        self.assertEqual(self.server.asked["web", dns.A], 1)
        self.resolv_conf.write_text("search one.test two.test\noptions ndots:5\n")
        self.zone["_ssh._tcp.two.test"] = [srv("one.test")]
        self.server.fail("_ssh._tcp.one.test", dns.ESERVER)
        service = await self.lookup.service("_ssh._tcp")
        self.assertEqual([it.target for it in service.services], ["one.test"])
        await self.server.stop()  # search ends where nobody answers
        self.assertIn("refused", await failure(self.lookup.host("web")))

    async def test_servers_of_the_file(self) -> None:
        lookup = Lookup(self.time, (), self.resolv_conf, self.hosts)
        for server in ("127.255.255.254", "255.255.255.255"):
            self.resolv_conf.write_text(f"nameserver {server}\n")
            waiting = Deferred.fromCoroutine(failure(lookup.host(HOST)))
            while not waiting.called:
                self.time.advance(1)
            self.assertIn(server, await waiting)


class SourceTests(NamesCase):
    def setUp(self) -> None:
        super().setUp()
        self.servers = TrackedServers(self.time, "names stay")
        self.addCleanup(lambda: self.assertFalse(self.time.clock.getDelayedCalls()))
        self.addCleanup(self.servers.stop)
        self.lookup = CountingLookup(
            self.time, [self.server.place], self.resolv_conf, self.hosts, tracked=self.servers
        )

    @property
    def source(self) -> Source:
        [source] = self.servers.sources(self.lookup.addresses)
        return source

    def look_up(self) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred.fromCoroutine(self.lookup.host(HOST))
        return waiting.addErrback(lambda why: why.trap(LookupFailedError))

    async def looked_up(self, waiting: Deferred[Any] | None = None) -> None:
        waiting = waiting or self.look_up()
        while not waiting.called:
            await deferLater(reactor, 0.001)
            self.time.advance(0.25)

    async def test_silence_for_a_name(self) -> None:
        self.server.fail(HOST, SILENCE)
        await self.looked_up()
        await self.asked("", dns.NS)
        self.assertLess(self.server.asked["", dns.NS], 4)
        self.assertTrue(self.source.up)

    async def test_silent_server(self) -> None:
        self.server.fail(HOST, SILENCE)
        self.server.fail("", SILENCE, dns.NS)
        with capturedLogs() as logged:
            await self.looked_up()
            self.assertFalse(self.source.up)
            for _ in range(60):
                self.time.advance(1)
            state = self.source.state()
            self.assertTrue(state.is_overdue)
            self.assertEqual(state.why, "no answer within 3 s")
            self.server.codes.clear()
            while not self.source.up:
                await deferLater(reactor, 0.001)
                self.time.advance(0.25)
        lines = [formatEvent(one) for one in logged if one["log_namespace"].startswith("txmux")]
        said = "no answer within 3 s; names stay", "good again"
        self.assertEqual(lines, [f"names {self.server.shown}: {what}" for what in said])

    async def test_server_that_answers_for_other_names(self) -> None:
        self.server.fail(HOST, SILENCE)
        self.server.fail("", SILENCE, dns.NS)
        self.zone["good.test"] = a("10.0.0.1")
        waiting = self.look_up()
        await self.asked(HOST)
        self.time.advance(1)
        self.assertEqual(self.source.state().failing, 1)  # it has been asked since then
        await self.asked("", dns.NS)
        for _ in range(16):
            self.time.advance(0.25)
            await addresses(self, "good.test")
        self.assertTrue(waiting.called and self.source.up)

    async def test_nothing_listens(self) -> None:
        await self.server.stop()
        await self.looked_up()
        self.assertEqual(self.source.why, "connection refused")
        self.assertEqual([*self.servers.sources()], [])  # servers that are not asked any longer

    async def test_what_answers_say(self) -> None:
        for code, up in (
            (dns.EREFUSED, False), (dns.ESERVER, True), (dns.EREFUSED, True), (dns.ENAME, True),
        ):  # fmt: skip
            self.server.fail(HOST, code)
            await self.looked_up()
            self.assertEqual(self.source.up, up, code)

    async def test_server_that_is_left_during_a_look_up(self) -> None:
        self.server.fail(HOST, SILENCE)
        self.server.fail("", SILENCE, dns.NS)
        waiting = self.look_up()
        await self.asked(HOST)
        self.assertEqual([*self.servers.sources()], [])
        await self.looked_up(waiting)
        self.assertEqual([*self.servers.sources()], [])
        self.time.advance(3)
        self.assertEqual(self.time.clock.getDelayedCalls(), [])


class TroubleTests(NamesCase):
    async def test_nobody_there_fails_at_once(self) -> None:
        await self.server.stop()
        why = await failure(self.lookup.host(HOST))
        self.assertEqual(why, f"the name server {self.server.shown}: connection refused")
        lookup = Lookup(self.time, [("255.255.255.255", 53)], self.resolv_conf, self.hosts)
        self.assertIn("255.255.255.255:53: ", await failure(lookup.host(HOST)))  # no route

    async def test_silence_is_asked_twice(self) -> None:
        self.server.fail(HOST, SILENCE)
        waiting = Deferred.fromCoroutine(failure(self.lookup.host(HOST)))
        await self.asked(HOST)
        self.time.advance(0.9)
        self.assertEqual(self.server.asked[HOST, dns.A], 1)
        self.time.advance(0.2)
        await self.asked(HOST, times=2)
        await self.asked(HOST, dns.AAAA, times=2)
        self.time.advance(3)
        self.assertIn(f"{self.server.shown}: no answer within 3 s", await waiting)

    async def test_next_server_after_silence(self) -> None:
        second = self.name_server()
        self.server.fail(HOST, SILENCE)
        second.zone[HOST] = a("10.0.0.1")
        self.lookup = self.lookup_with(self.server, second)
        waiting = Deferred.fromCoroutine(addresses(self))
        await self.asked(HOST)
        await self.asked(HOST, dns.AAAA)
        self.time.advance(1)
        self.assertEqual(await waiting, ["10.0.0.1"])

    async def test_one_family_fails(self) -> None:
        self.zone[HOST] = a("10.0.0.1", ttl=5) + aaaa("fd00::1")
        self.server.fail(HOST, dns.ESERVER, dns.AAAA)
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses, {dns.A: frozenset({"10.0.0.1"})})
        self.assertEqual(answer.ttl, 5)
        self.server.fail(HOST, dns.EREFUSED, dns.AAAA)
        answered = f"the name server {self.server.shown} answered REFUSED for AAAA"
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.trouble, f"{answered}; A was answered")
        self.zone[HOST] = []
        why = await failure(self.lookup.host(HOST))
        self.assertEqual(why, f"{answered}; A was answered, and has no address")

    async def test_silent_family_is_waited_for_1_s(self) -> None:
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
        self.assertEqual(answer.trouble, "there is no answer yet for A; AAAA was answered")

    async def test_foreign_messages(self) -> None:
        self.server.fail(HOST, GARBAGE)
        for sent in (["10.0.0.1"], [f"10.0.0.{i}" for i in range(100, 200)]):
            self.zone[HOST] = a(*sent)
            self.assertEqual(await addresses(self), sent)
        self.server.asked_by_tcp.clear()
        self.server.fail(HOST, FLOOD)
        for sent in (["10.0.0.1"], [f"10.0.0.{i}" for i in range(100, 200)]):
            self.zone[HOST] = a(*sent)
            why = await failure(self.lookup.host(HOST))
            self.assertIn("its answers are to other questions", why)
        self.assertFalse(self.server.asked_by_tcp)
        self.server.codes.clear()
        self.server.by_tcp = FLOOD
        why = await failure(self.lookup.host(HOST))
        self.assertIn("its answers are to other questions", why)

    async def test_silent_and_broken_tcp(self) -> None:
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(100)))
        self.server.by_tcp = SILENCE
        waiting = Deferred.fromCoroutine(failure(self.lookup.host(HOST)))
        await self.until(lambda: self.server.asked_by_tcp[HOST, dns.A] == 1)
        self.time.advance(3)
        await self.until(lambda: self.server.asked_by_tcp[HOST, dns.A] == 2)
        self.time.advance(3)
        self.assertIn("no answer", await waiting)
        self.server.by_tcp = HANG_UP
        self.assertIn("closed the connection", await failure(self.lookup.host(HOST)))
        await self.server.ports.pop().stopListening()
        self.assertIn("refused", await failure(self.lookup.host(HOST)))

    async def test_refused_is_asked_without_edns(self) -> None:
        """So is what was dropped, and a refusal after that counts."""
        self.zone[HOST] = a("10.0.0.1")
        for code in (dns.EFORMAT, dns.ENOTIMP, dns.EBADVERSION):
            self.server.asked.clear()
            self.server.edns = code
            self.assertEqual(await addresses(self), ["10.0.0.1"])
            self.assertEqual(self.server.asked[HOST, dns.A], 2)
        self.server.asked.clear()
        self.server.edns = SILENCE
        waiting = Deferred.fromCoroutine(addresses(self))
        await self.asked(HOST)
        await self.asked(HOST, dns.AAAA)
        self.time.advance(1)
        self.assertEqual(await waiting, ["10.0.0.1"])
        self.server.asked.clear()
        self.server.with_edns.clear()
        self.server.edns = dns.OK
        self.server.fail(HOST, dns.EFORMAT)
        self.assertIn("FORMERR", await failure(self.lookup.host(HOST)))
        self.assertEqual(self.server.asked[HOST, dns.A], 2)
        self.assertEqual(self.server.with_edns[HOST, dns.A], 1)
        self.server.edns = 23  # upper bits of the code
        self.assertIn("response code 23", await failure(self.lookup.host(HOST)))


class OtherReactorTests(NamesCase):
    """A reactor that tells of a socket's error as if there were something to read."""

    def setUp(self) -> None:
        super().setUp()
        private = PrivateReactor("select")
        self.addCleanup(private.close)
        self.other = private.reactor
        self.lookup = CountingLookup(self.other, [self.server.place], self.resolv_conf, self.hosts)

    async def test_errors_that_look_like_something_to_read(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        waiting = Deferred.fromCoroutine(addresses(self))
        for reader in self.other.getReaders():
            if reader.logPrefix() == "names":
                reader.doRead()
        await self.asked(HOST, dns.A)
        await self.asked(HOST, dns.AAAA)
        while not waiting.called:
            self.other.iterate(0.1)
        self.assertEqual(await waiting, ["10.0.0.1"])
        # That there is no server is such an error.
        await self.server.stop()
        failing = Deferred.fromCoroutine(failure(self.lookup.host(HOST)))
        while not failing.called:
            self.other.iterate(0.1)
        self.assertIn("connection refused", await failing)


class CancelTests(NamesCase):
    async def test_asking_by_tcp(self) -> None:
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
        self.server.fail(HOST, SILENCE)
        waiting = [Deferred.fromCoroutine(self.lookup.host(HOST)) for _ in range(150)]
        for kind in (dns.A, dns.AAAA):
            await self.asked(HOST, kind, 100)
        for one in waiting:
            one.cancel()
            with self.assertRaises(CancelledError):
                await one
        self.assertEqual(self.server.asked.total(), 200)


class WithoutAServerTests(SynchronousTestCase):
    def test_resolv_conf(self) -> None:
        text = (
            "; a comment\n# another\nnameserver 10.0.0.53 # by hand\nnameserver fe80::1%eth0\n"
            "nameserver nonsense\nnameserver\nsearch one.test two.test.\n"
            "options rotate ndots:5 timeout:1\nsortlist 10.0.0.0\n"
        )
        expected = ResolvConf(("10.0.0.53", "fe80::1%eth0"), ("one.test", "two.test"), 5)
        self.assertEqual(ResolvConf.parse(text), expected)
        self.assertEqual(ResolvConf.parse("search one two\ndomain three\n").search, ("three",))
        self.assertEqual(ResolvConf.parse("options ndots:99").ndots, 15)
        self.assertEqual(ResolvConf.parse("options ndots:x").ndots, 1)
        self.assertEqual(ResolvConf.parse("").servers, ("127.0.0.1",))
        self.assertEqual(ResolvConf.read(Path("/nowhere/resolv.conf")), ResolvConf())
        found = ResolvConf.parse("search one.test .\noptions ndots:2")  # candidates
        self.assertEqual(found.candidates("a.b.c"), ["a.b.c", "a.b.c.one.test"])
        self.assertEqual(found.candidates("a.b"), ["a.b.one.test", "a.b"])
        self.assertEqual(found.candidates("a.b."), ["a.b"])

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        found = ResolvConf.parse(text)
        self.assertTrue(found.servers)
        self.assertIn("host.test", found.candidates("host.test"))

    def test_addresses_of_a_name(self) -> None:
        path = make_folder(self) / "hosts"
        self.assertEqual(listed_addresses("a", path), frozenset())
        path.write_bytes(b"10.0.0.1 a\nx a\n010.0.0.9 a\n\xff a\n# 10.0.0.2 a\n\n10.0.0.3\n")
        for name, expected in (
            ("a", {"10.0.0.1"}), ("a..b", set()), ("a.localhost", {"127.0.0.1", "::1"}),
            ("notlocalhost", set()),
        ):  # fmt: skip
            self.assertEqual(listed_addresses(name, path), expected, name)
        self.assertTrue(has_route("127.0.0.1"))  # routes
        self.assertFalse(has_route("255.255.255.255"))
        self.assertFalse(has_route("ff02::1%nowhere"))

    def test_answer_that_is_read_late(self) -> None:
        """After a long turn of the loop, the timer comes before what has been received meanwhile."""
        busy, name = _BusyReactor(), HOST.encode()
        with socket.socket(type=socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            place = server.getsockname()
            asking = Deferred.fromCoroutine(NameServers(busy).ask([place], name, dns.A))
            question, client = server.recvfrom(2**12)
            message = dns.Message()
            message.fromStr(question)
            message.answer = 1
            message.answers = [dns.RRHeader(name, dns.A, payload=dns.Record_A("10.0.0.1"))]
            server.sendto(b"of another one", client)
            server.sendto(message.toStr(), client)
            busy.advance(1)
        answer: Any = self.successResultOf(asking)
        self.assertEqual(answer.answers[0].payload.dottedQuad(), "10.0.0.1")
