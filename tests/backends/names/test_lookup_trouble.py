"""Look-ups that do not go as they should: name servers in trouble, and nobody who waits."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.names import dns

from tests.backends.names.lookup_case import HOST, LookupTestCase
from tests.backends.names.nameserver import GARBAGE, HANG_UP, SILENCE, a, aaaa
from tests.net.relay.reactors import PrivateReactor
from tests.support.peers import reactor
from txmux.backends.names.lookup import Lookup


class TroubleTests(LookupTestCase):
    """Name servers that do not answer as they should."""

    async def test_server_failure(self) -> None:
        self.server.fail(HOST, dns.ESERVER)
        self.assertEqual(
            await self.failure(self.lookup.host(HOST)), "the name server 127.0.0.1: SERVFAIL"
        )
        self.assertEqual(self.server.asked[HOST, dns.A], 1)

    async def test_strange_code(self) -> None:
        self.server.fail(HOST, 9)
        self.assertIn("response code 9", await self.failure(self.lookup.host(HOST)))

    async def test_next_server(self) -> None:
        second = self.name_server()
        self.server.fail(HOST, dns.ESERVER)
        second.zone[HOST] = a("10.0.0.1")
        self.lookup = self.lookup_with(self.server, second)
        self.assertEqual(await self.addresses(), ["10.0.0.1"])

    async def test_nobody_there_fails_at_once(self) -> None:
        await self.server.stop()
        why = await self.failure(self.lookup.host(HOST))
        self.assertEqual(why, "the name server 127.0.0.1: Connection refused")

    async def test_no_route(self) -> None:
        lookup = Lookup(self.time, [("255.255.255.255", 53)], self.resolv_conf, self.hosts)
        self.assertIn("255.255.255.255: ", await self.failure(lookup.host(HOST)))

    async def test_silence_is_asked_twice(self) -> None:
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
        self.zone[HOST] = a("10.0.0.1", ttl=5) + aaaa("fd00::1")
        self.server.fail(HOST, dns.ESERVER, dns.AAAA)
        answer = await self.lookup.host(HOST)
        self.assertEqual(answer.addresses, {dns.A: frozenset({"10.0.0.1"})})
        self.assertEqual(answer.ttl, 5)
        self.assertIn("SERVFAIL", answer.trouble)

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
        self.assertIn("one of the address families", answer.trouble)

    async def test_foreign_messages(self) -> None:
        self.server.fail(HOST, GARBAGE)
        for addresses in (["10.0.0.1"], [f"10.0.0.{i}" for i in range(100, 200)]):
            self.zone[HOST] = a(*addresses)
            self.assertEqual(await self.addresses(), addresses)

    async def test_broken_tcp(self) -> None:
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(100)))
        self.server.by_tcp = HANG_UP
        self.assertIn("closed the connection", await self.failure(self.lookup.host(HOST)))
        await self.server.ports.pop().stopListening()
        self.assertIn("refused", await self.failure(self.lookup.host(HOST)))

    async def test_silent_tcp(self) -> None:
        self.zone[HOST] = a(*(f"10.0.0.{i}" for i in range(100)))
        self.server.by_tcp = SILENCE
        waiting = Deferred.fromCoroutine(self.failure(self.lookup.host(HOST)))
        await self.until(lambda: self.server.asked_by_tcp[HOST, dns.A] == 1)
        self.time.advance(3)
        await self.until(lambda: self.server.asked_by_tcp[HOST, dns.A] == 2)
        self.time.advance(3)
        self.assertIn("no answer", await waiting)


class WithoutEdnsTests(LookupTestCase):
    """Name servers that do not know EDNS."""

    async def test_refused_is_asked_without_edns(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        for code in (dns.EFORMAT, dns.ENOTIMP, dns.EBADVERSION):
            self.server.asked.clear()
            self.server.edns = code
            self.assertEqual(await self.addresses(), ["10.0.0.1"])
            self.assertEqual(self.server.asked[HOST, dns.A], 2)

    async def test_dropped_is_asked_without_edns(self) -> None:
        self.zone[HOST] = a("10.0.0.1")
        self.server.edns = SILENCE
        waiting = Deferred.fromCoroutine(self.addresses())
        await self.asked(HOST)
        await self.asked(HOST, dns.AAAA)
        self.time.advance(1)
        self.assertEqual(await waiting, ["10.0.0.1"])

    async def test_still_refused(self) -> None:
        self.server.fail(HOST, dns.EFORMAT)
        self.assertIn("FORMERR", await self.failure(self.lookup.host(HOST)))
        self.assertEqual(self.server.asked[HOST, dns.A], 2)
        self.assertEqual(self.server.with_edns[HOST, dns.A], 1)

    async def test_upper_bits_of_the_code(self) -> None:
        self.server.edns = 23
        self.assertIn("response code 23", await self.failure(self.lookup.host(HOST)))


class OtherReactorTests(LookupTestCase):
    """A reactor that tells of a socket's error as if there were something to read."""

    def setUp(self) -> None:
        super().setUp()
        private = PrivateReactor("select")
        self.addCleanup(private.close)
        self.other = private.reactor
        self.lookup = Lookup(self.other, [self.server.place], self.resolv_conf, self.hosts)

    async def test_nobody_there(self) -> None:
        await self.server.stop()
        waiting = Deferred.fromCoroutine(self.failure(self.lookup.host(HOST)))
        while not waiting.called:
            self.other.iterate(0.1)
        self.assertIn("Connection refused", await waiting)

    async def test_spurious_read(self) -> None:
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
        waiting = Deferred.fromCoroutine(self.lookup.host(HOST))
        await self.asked(HOST)
        waiting.cancel()
        with self.assertRaises(CancelledError):
            await waiting

    async def test_asking(self) -> None:
        self.server.fail(HOST, SILENCE)
        await self.cancel()

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
        waiting = [Deferred.fromCoroutine(self.lookup.host(HOST)) for _ in range(100)]
        for kind in (dns.A, dns.AAAA):
            await self.asked(HOST, kind, 32)
        for one in waiting:
            one.cancel()
            with self.assertRaises(CancelledError):
                await one
        self.assertEqual(self.server.asked.total(), 64)
