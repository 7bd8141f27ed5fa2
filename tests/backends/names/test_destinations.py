"""Servers that clients choose: real sockets, a name server of the test's own, and a clock that the test moves."""

from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names.nameserver import SILENCE, NameServer, a, aaaa
from tests.support.held import held_by
from tests.support.kit import MuxTestCase, Peer, change_constants, connect, listen, reactor
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.backends.names import cache
from txmux.backends.names.cache import KnownName, NameCache
from txmux.backends.names.destinations import ClientTarget, Denial, Destinations, Unknown
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import BackendPool
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Public, Reachable
from txmux.rules.model.networks import is_public
from txmux.rules.reading.backend import KEYS
from txmux.rules.reading.endpoints import server
from txmux.rules.reading.values import network
from txmux.telemetry.counting.counter_groups import ServerTotals
from txmux.wire.facts import printable

_LOOPBACK = Reachable([network("127.0.0.0/8"), network("::1")])


def names(*lines: str) -> Any:
    kind = KEYS["allow_names"].kind
    return kind.collect(map(kind.read, lines))


def hello(name: str) -> bytes:
    return records(client_hello(server_name(name)))


class DestinationsTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer.started(self)
        self.there = listen(self, self.backend)
        self.cache = NameCache(self.time)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.cache.stop()))

    def by_name(self, text: str = "", match: str = "tls", **settings: Any) -> int:
        text = text or f"{{sni}}:{self.there}"
        usual = {"allow_names": names("*.test"), "allow_networks": _LOOPBACK}
        settings = {"resolvers": (self.dns.place,), **usual, **settings}
        return self.mux([route(match, Backend("by-name", (server(text),), **settings))])

    async def end(self, *ends: Peer) -> None:
        for end in ends:
            end.close()
            await end.is_lost()

    async def ends(self, port: int, data: bytes) -> Any:
        """Return the line of a client that is turned away, or whose server has had its bytes and finished."""
        before, served = len(self.records), len(self.backend.peers)
        client = await self.connect(port, data)
        while len(self.records) == before and len(self.backend.peers) == served:
            await self.turn()
        if len(self.backend.peers) > served:
            peer = await self.backend.heard(len(data), served)
            self.assertEqual(bytes(peer.received), data)
            client.close()
            peer.close()
        await client.is_lost()
        return await self.logged(before + 1)

    async def test_client_goes_where_its_name_leads(self) -> None:
        self.dns.zone["www.test"] = a("127.0.0.1")
        port = self.by_name()
        for name in ("www.test", "WWW.Test.", "www.test"):
            line = await self.ends(port, hello(name))
            self.assertEqual((line.reason, line.server), ("done", f"127.0.0.1:{self.there}"))
            self.assertEqual(line.facts["sni"], "www.test")
        self.assertEqual(self.dns.asked["www.test", dns.A], 1)
        self.dns.zone["www.test"] = a("127.0.0.1")  # final dot is not in the text around
        port = self.by_name(f"{{host}}.Test.:{self.there}", "http", allow_names=names("*.test"))
        for host in ("www", "WWW.", "www.:80"):
            line = await self.ends(port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self.assertEqual((line.reason, line.server), ("done", f"127.0.0.1:{self.there}"), host)
        self.dns.zone["www.test"] = a("127.0.0.2")  # local address and port
        port = self.by_name("{sni}:{port}", allow_networks=Reachable([network("127.0.0.2")]))
        self.addCleanup(reactor.listenTCP(port, self.backend, interface="127.0.0.2").stopListening)
        line = await self.ends(port, hello("www.test"))
        self.assertEqual((line.reason, line.server), ("done", f"127.0.0.2:{port}"))
        change_constants(self, cache, _MOST_QUEUED=0)  # source with too many names
        self.dns.fail("a.test", SILENCE)
        port = self.by_name()
        line = await self.ends(port, hello("a.test"))
        self.assertEqual(line.reason, "limit")

    async def test_reasons(self) -> None:
        self.dns.zone["near.test"] = a("10.0.0.1")
        port = self.by_name()
        for name, reason, place in (
            ("", "no-name", None),
            ("www.example", "name-denied", f"www.example:{self.there}"),
            ("near.test", "address-denied", f"10.0.0.1:{self.there}"),
            ("nothing.test", "no-server", f"nothing.test:{self.there}"),
        ):
            line = await self.ends(port, hello(name) if name else records(client_hello()))
            self.assertEqual((line.reason, line.server), (reason, place), name)
            self.assertEqual(line.facts.get("sni", ""), name)
            self.assertEqual(line.backend, "by-name")
        [upstream] = self.factory.upstreams.all()  # denied names are no failures of the server
        [member] = upstream.pool.members
        failed = ServerTotals.failed.read(member.counts.cells)
        self.assertEqual({name: count for name, count in failed.items() if count}, {"no-server": 1})

    async def test_known_name_needs_no_transport(self) -> None:
        self.dns.zone["www.test"] = a("127.0.0.1", ttl=2)
        port = self.by_name()
        await self.ends(port, hello("www.test"))
        client = await self.connect(port, hello("www.test"))
        peer = await self.backend.heard(1, 1)
        self.assertEqual({one.transport for one in self.factory.connections}, {None})
        await self.end(client, peer)
        await self.logged(2)
        self.time.advance(2.1)
        await self.ends(port, hello("www.test"))
        self.assertEqual(self.dns.asked["www.test", dns.A], 2)

    async def test_hello_in_pieces_and_none(self) -> None:
        self.dns.zone["www.test"] = a("127.0.0.1")
        port, data = self.by_name(), hello("www.test")
        client = await self.connect_read(port, data[:20])
        client.send(data[20:])
        await self.end(client, await self.backend.heard(len(data)))
        line = await self.logged()
        self.assertEqual((line.reason, line.facts["sni"]), ("done", "www.test"))

    async def test_host_of_http(self) -> None:
        self.dns.zone["www.test"] = a("127.0.0.1")
        allowed = names("*.test", "127.0.0.1", "::1", "10.*")
        port = self.by_name(f"{{host}}:{self.there}", "http", allow_names=allowed)
        for host, reason, place in (
            ("WWW.test:8080", "done", f"127.0.0.1:{self.there}"),
            ("127.0.0.1", "done", f"127.0.0.1:{self.there}"),
            ("10.0.0.1", "address-denied", f"10.0.0.1:{self.there}"),
            ("[::ffff:10.0.0.1]:80", "address-denied", f"10.0.0.1:{self.there}"),
            ("[::ffff:127.0.0.1]", "done", f"127.0.0.1:{self.there}"),
            ("[v1.a]", "name-denied", None),
            ("[::1%lo]", "name-denied", None),
            ("", "no-name", None),
            ("a..test", "name-denied", f"a..test:{self.there}"),
            ("a\0.test", "name-denied", None),
            (f"{'a.' * 123}aa.test", "no-server", None),
            (f"{'a.' * 123}aaa.test", "name-denied", None),
        ):
            line = await self.ends(port, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            self.assertEqual(line.reason, reason, host)
            if place:
                self.assertEqual(line.server, place)
        line = await self.ends(port, b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual((line.reason, line.server), ("no-name", None))

    async def test_other_addresses_of_the_name_are_tried(self) -> None:
        self.dns.zone["www.test"] = a("127.0.0.1", "127.0.0.9", "10.0.0.1")
        port = self.by_name()
        tried = set()
        for _ in range(3):
            line = await self.ends(port, hello("www.test"))
            self.assertEqual((line.reason, line.server), ("done", f"127.0.0.1:{self.there}"))
            tried.add(line.facts.get("tried"))
        self.assertEqual(tried, {None, f"127.0.0.9:{self.there} connect-refused"})
        self.dns.zone["none.test"] = a("127.0.0.8", "127.0.0.9")
        with capturedLogs() as logged:  # all addresses fail
            line = await self.ends(port, hello("none.test"))
        self.assertEqual(line.reason, "connect-refused")
        self.assertEqual(line.facts["tried"].count("connect-refused"), 2)
        [warning] = [one for one in logged if one["log_level"].name == "warn"]
        last = f"127.0.0.9:{self.there}"
        self.assertEqual((warning["server"], warning["why"]), (last, "connection refused"))

    async def test_name_that_changes(self) -> None:
        """What is dialled is what was looked at, however short the name server says that it holds."""
        self.dns.zone["www.test"] = a("127.0.0.1", ttl=0)
        port = self.by_name()
        self.assertEqual((await self.ends(port, hello("www.test"))).reason, "done")
        self.dns.zone["www.test"] = a("10.0.0.1", ttl=0)
        self.assertEqual((await self.ends(port, hello("www.test"))).reason, "done")
        self.time.advance(1.1)
        self.assertEqual((await self.ends(port, hello("www.test"))).reason, "address-denied")
        self.assertEqual(len(self.backend.peers), 2)

    async def test_own_address(self) -> None:
        allowed = Reachable([Public.PUBLIC, network("127.0.0.0/8")])
        port = self.by_name("{sni}:{port}", allow_networks=allowed, allow_names=names("127.*"))
        line = await self.ends(port, hello("127.0.0.1"))
        self.assertEqual((line.reason, line.server), ("address-denied", f"127.0.0.1:{port}"))
        line = await self.ends(port, hello("127.0.0.2"))  # where nothing of it listens
        self.assertEqual((line.reason, line.server), ("connect-refused", f"127.0.0.2:{port}"))
        own, known = ("8.8.8.8", 443), NameCache(Clock())
        few = {"allow_networks": Reachable([network("8.8.8.0/24")])}
        settings: Any
        for text, settings, cause in (
            ("{sni}:443", {}, "address-denied"), ("udp:{sni}:443", few, "address-denied"),
            ("{sni}:443", few, None),  # which the count of its hops finds
        ):  # fmt: skip
            backend = Backend("b", (server(text),), allow_names=names("*"), **settings)
            destinations = Destinations(backend, known, lambda *at: at == own, Clock().seconds)
            [template] = BackendPool(backend, Clock().seconds).members
            for host in (
                ("8.8.8.8",) if settings else ("8.8.8.8", "64:ff9b::808:808", "2002:808:808::1")
            ):
                found = destinations.choose(template, ClientTarget({"sni": host}, "", 0))
                self.assertEqual(getattr(found, "cause", None), cause, (text, host))

    async def test_what_is_denied_by_whatever_name(self) -> None:
        """By itself, all but the public internet; the system connects to 127.0.0.1 for 0.0.0.0, and to ::1 for ::."""
        self.dns.zone |= {
            "private.test": a("10.1.2.3"), "here.test": a("127.0.0.1"), "zero.test": a("0.0.0.0"),
            "mapped.test": aaaa("::ffff:127.0.0.1"), "nat64.test": aaaa("64:ff9b::7f00:1"),
            "alias.test": a("127.0.0.2"), "other64.test": aaaa("64:ff9b::7f00:2"),
            "admin.test": a("127.0.0.1"), "both.test": a("127.0.0.1", "127.0.0.2"),
        }  # fmt: skip
        everywhere = Reachable([network("0.0.0.0/0"), network("::/0")])
        but = {"deny_networks": Reachable([network("127.0.0.2")]), "deny_names": names("admin.*")}
        for networks, settings, asked, reason in (
            (None, {}, ("private.test", "here.test", "mapped.test", "nat64.test", "localhost", "169.254.169.254"),
             "address-denied"),
            (everywhere, but, ("alias.test", "other64.test", "127.0.0.2", "::ffff:127.0.0.2", "64:ff9b::7f00:2"),
             "address-denied"),
            (everywhere, but, ("ADMIN.test.",), "name-denied"), (everywhere, but, ["both.test"] * 3, "done"),
            (everywhere, {"deny_networks": _LOOPBACK},
             ("zero.test", "0.0.0.0", "0.0.0.0.", "::ffff:0.0.0.0", "::"), "address-denied"),
            (everywhere, {}, ("zero.test",), "done"),
        ):  # fmt: skip
            port = self.by_name(allow_networks=networks, allow_names=names("*"), **settings)
            for name in asked:
                line = await self.ends(port, hello(name))
                self.assertEqual(line.reason, reason, name)
                if reason == "done":
                    self.assertEqual(line.server, f"127.0.0.1:{self.there}")
        self.assertEqual(len(self.backend.peers), 4)

    async def test_what_has_no_network_in_it(self) -> None:
        """A list may be empty, and ``public`` is no network: neither allows what is not in it."""
        for allowed in (Reachable([Public.PUBLIC]), Reachable([])):
            port = self.by_name("{local}:1", "any", allow_networks=allowed, allow_names=None)
            self.assertEqual((await self.ends(port, b"x")).reason, "address-denied")
            self.records.clear()
        port = self.by_name(allow_networks=Reachable([]), allow_names=names("*"))
        for name in ("8.8.8.8", "127.0.0.1"):
            self.assertEqual((await self.ends(port, hello(name))).reason, "address-denied")

    async def test_denied_addresses_at_each_attempt(self) -> None:
        """Neither a retry nor a name that changes its mind leads there."""
        self.dns.zone["www.test"] = a("127.0.0.9", "127.0.0.1")
        port = self.by_name(deny_networks=Reachable([network("127.0.0.1")]))
        for _ in range(2):
            line = await self.ends(port, hello("www.test"))
            self.assertIn(line.reason, ("connect-refused", "address-denied"))
        self.dns.zone["turn.test"] = a("127.0.0.9", ttl=1)
        await self.ends(port, hello("turn.test"))
        self.dns.zone["turn.test"] = a("127.0.0.1", ttl=1)
        self.time.advance(1.5)
        self.assertEqual((await self.ends(port, hello("turn.test"))).reason, "address-denied")
        self.assertEqual(self.backend.peers, [])

    async def test_one_look_up_for_all_who_ask(self) -> None:
        self.dns.fail("www.test", SILENCE)
        port = self.by_name()
        clients = [await self.connect(port, hello("www.test")) for _ in range(5)]
        its = self.factory.connections
        await self.until_so(lambda: self.dns.asked["www.test", dns.A] and len(its) == 5)
        await self.turn(20)
        self.assertEqual(self.dns.asked["www.test", dns.A], 1)
        clients[0].reset()
        await self.logged(1)
        self.time.advance(5)
        for client in clients[1:]:
            await client.is_lost()
        await self.until_logged(5)  # the look-up goes on
        reasons = [record.reason for record in self.records]
        self.assertEqual(reasons, ["client-gone", *["connect-timeout"] * 4])

    async def test_turns_are_those_of_addresses(self) -> None:
        change_constants(self, cache, _MOST_OF_SOURCE=1)
        self.dns.fail("dead.test", SILENCE)
        self.dns.zone |= {"good.test": a("127.0.0.1"), "other.test": a("127.0.0.1")}
        port = self.by_name()
        await self.connect(port, hello("dead.test"))
        await self.until_so(lambda: self.dns.asked["dead.test", dns.A])
        await self.connect(port, hello("good.test"))
        other = await connect(self, port, source="127.0.0.2")
        other.send(hello("other.test"))
        await self.end(other, await self.backend.peer(0))
        line = await self.logged()
        self.assertEqual((line.reason, line.facts["sni"]), ("done", "other.test"))
        self.assertFalse(self.dns.asked["good.test", dns.A])

    async def test_service_ends_meanwhile(self) -> None:
        self.dns.fail("www.test", SILENCE)
        await self.connect(self.by_name(), hello("www.test"))
        await self.until_so(lambda: self.dns.asked["www.test", dns.A])
        self.assertEqual(self.factory.upstreams.all()[0].pool.connections, 1)

    def look_up(self, name: str, source: int = 0, *author: int | None) -> Deferred[None]:
        return self.cache.look_up((self.dns.place,), name, source, *author)

    def silent(self, count: int, source: int = 0, *author: int) -> list[Deferred[None]]:
        found = []
        for number in range(len(self.dns.codes), len(self.dns.codes) + count):
            self.dns.fail(f"{number}.test", SILENCE, dns.A, dns.AAAA)
            found.append(self.look_up(f"{number}.test", source, *author))
        return found

    async def answered(self, *asked: Deferred[None]) -> None:
        while not all(one.called for one in asked):
            await self.turn()

    async def timed_out(self, asked: Deferred[None]) -> None:
        while not asked.called:
            self.time.advance(1)
            await self.turn(5)

    async def test_how_long_and_how_many(self) -> None:
        change_constants(self, cache, _MOST_NAMES=2)
        self.dns.zone |= {"a.test": a("1.1.1.1", ttl=0), "b.test": a("1.1.1.2", ttl=9999)}
        for name in ("a.test", "b.test"):
            await self.look_up(name)
        self.assertTrue(self.known("a.test"))
        self.time.advance(1.0)
        self.assertFalse(self.known("a.test"))
        self.time.advance(298.0)
        self.assertTrue(self.known("b.test"))
        self.time.advance(1.0)
        self.assertFalse(self.known("b.test"))
        for name in ("b.test", "a.test", "nothing.test", "nothing.test"):
            await self.look_up(name)
        known = [name for name in ("a.test", "b.test", "nothing.test") if self.known(name)]
        self.assertEqual(known, ["a.test", "nothing.test"])

    def known(self, name: str) -> bool:
        return self.cache.known((self.dns.place,), name) is not None

    async def test_source_with_silent_names_delays_no_other(self) -> None:
        held = list[int]()
        for second in range(10):
            self.silent(60)
            held.append(held_by(self.cache))
            for source in (1, 2):
                name = f"{second}.{source}.test"
                self.dns.zone[name] = a("1.1.1.1")
                await self.answered(self.look_up(name, source))
                self.assertTrue(self.known(name))
            self.time.advance(1)
            await self.turn(5)
        self.assertLess(held[9], 2 * held[1])

    async def test_silent_names_delay_no_other_below_the_limit(self) -> None:
        for source in range(4):
            self.silent(24, source)
        self.dns.zone["b.test"] = a("1.1.1.1")
        await self.answered(self.look_up("b.test"))
        self.assertTrue(self.known("b.test"))

    async def test_silent_names_of_a_user_delay_nobody_elses(self) -> None:
        """Neither clients of the operator's backends wait for those of another user's, however many sources these have, nor clients of a third one's."""
        for source in range(8):
            self.silent(60, source, 1001)
        for author in (1002, None):
            name = f"good.{author}.test"
            self.dns.zone[name] = a("1.1.1.1")
            await self.answered(self.look_up(name, 9, author))
            self.assertTrue(self.known(name))
        for source in range(8):
            self.silent(60, source)
        self.dns.zone["late.test"] = a("1.1.1.1")
        late = self.look_up("late.test", 9, 1002)
        self.time.advance(1)
        await self.turn(5)
        self.time.advance(3)
        await self.answered(late)

    async def test_turns_go_to_the_source_with_fewest(self) -> None:
        for source in range(4):
            self.silent(124, source)
        self.dns.zone |= {"a.test": a("1.1.1.1"), "b.test": a("1.1.1.2")}
        good = [self.look_up(name, source) for source, name in ((1, "a.test"), (5, "b.test"))]
        await self.turn(100)
        self.assertEqual([one.called for one in good], [False, False])
        self.assertTrue(self.look_up("c.test", 1).called)
        self.time.advance(1)
        await self.turn(5)
        self.time.advance(3)
        await self.answered(good[1])
        self.assertTrue(self.known("b.test"))
        self.assertFalse(good[0].called)

    async def test_name_that_is_listed_here(self) -> None:
        """It is known at once, however many wait for a turn."""
        change_constants(self, cache, _MOST_OF_SOURCE=1, _MOST_QUEUED=2000)
        [silent] = self.silent(1)
        listed = [self.look_up(f"{number}.localhost") for number in range(2000)]
        await self.timed_out(silent)
        await self.answered(*listed)

    async def test_failure_that_took_long_is_kept_for_longer(self) -> None:
        self.time.advance(5)
        silent, missing = self.silent(1)[0], self.look_up("nothing.test")
        await self.answered(missing)
        self.time.advance(1)
        self.assertFalse(self.known("nothing.test"))
        await self.timed_out(silent)
        self.time.advance(4.9)
        self.assertTrue(self.known("0.test"))
        self.time.advance(0.1)
        self.assertFalse(self.known("0.test"))

    async def test_look_ups_under_way(self) -> None:
        change_constants(self, cache, _MOST_AT_ONCE=1)
        self.cache = NameCache(self.time)
        self.dns.zone["b.test"] = a("1.1.1.1")
        self.dns.fail("a.test", SILENCE)
        first, left, second = map(self.look_up, ("a.test", "left.test", "b.test"))
        while not self.dns.asked["a.test", dns.A]:
            await self.turn()
        left.cancel()
        await self.assertFailure(left, CancelledError)
        self.dns.codes.clear()
        await self.timed_out(second)
        self.assertTrue(first.called)
        self.assertEqual(self.dns.asked["left.test", dns.A], 0)


_HOSTILE = st.text("aZ0.-_:%[]\0\xe9xn*{}1:f", max_size=300) | st.sampled_from(
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "::1", "::ffff:127.0.0.1"),
        *(
            "64:ff9b::7f00:1", "fe80::1%lo", "localhost", "localhost.", "0", "0.0.0.0", "::",
            "[::1]",
        ),
        *("xn--a-ecp.test", "b\xfccher.test", "a" * 255, ".", "..", "-a.test", "a.test.."),
        *("169.254.169.254", "8.8.8.8", "2606:4700::1111", "10.0.0.1."),
    ]
)  # fmt: skip
_ADDRESSES = st.integers(0, 2**32 - 1).map(ip_address) | st.integers(0, 2**128 - 1).map(ip_address)


class ChosenTest(SynchronousTestCase):
    @given(_HOSTILE, st.lists(_ADDRESSES, max_size=4))
    def test_only_public_addresses(self, name: str, addresses: list[Any]) -> None:
        """Whatever a client says, and whatever a name server does."""
        backend = Backend("b", (server("{sni}:443"),), allow_names=names("*"))
        known = NameCache(Clock())
        destinations = Destinations(backend, known, lambda *_: False, Clock().seconds)
        [template] = BackendPool(backend, Clock().seconds).members
        asked = ClientTarget({"sni": printable(name)} if name else {}, "", 0)
        found = destinations.choose(template, asked)
        if isinstance(found, Unknown):
            self.assertRegex(found.name, r"\A[a-z0-9_.-]{1,253}\Z")
            self.patch(known, "known", lambda *_: KnownName(tuple(addresses), 1.0))
            found = destinations.choose(template, asked)
        if isinstance(found, Member):
            self.assertTrue(is_public(ip_address(found.target.host)), found)
            self.assertIsNotNone(found.socket_address)
        else:
            self.assertIsInstance(found, Denial)

    def test_whether_it_matters_where_a_client_has_connected_to(self) -> None:
        no_cache: Any = None
        for text, matters in (
            ("{sni}:443", False), ("{sni}:{port}", True), ("{local}:443", True), ("{local}:{port}", True),
        ):  # fmt: skip
            made = Destinations(Backend("b", (server(text),)), no_cache, lambda *_: False, float)
            self.assertIs(made.needs_local, matters, text)
