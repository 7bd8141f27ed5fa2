import json
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names.nameserver import NameServer, a, srv
from tests.backends.names.resolve_case import NamesCase, service
from tests.features.consul.stand_in import Consul, Instance, instances_in
from tests.support.kit import change_constants, has_ipv6, make_folder
from txmux.backends.pool.pool import BackendPool
from txmux.features.consul import finding
from txmux.features.consul.finding import InstancesReader, NotConsulError, next_index
from txmux.features.consul.reading import CONSUL, ConsulAPI
from txmux.rules.installed import server_kind_of
from txmux.rules.model import Resolve, Settings
from txmux.rules.reading.endpoints import server


class ConsulTests(NamesCase):
    def setUp(self) -> None:
        super().setUp()
        self.consul = Consul(self, self.time)
        self.addCleanup(self.stop)  # before the stand-in is

    def _assert_quiet(self, _: None) -> None:
        self.assertEqual(len(self.time.clock.getDelayedCalls()), self.consul.waiting)
        self.assertEqual([line for line in self.said() if line.startswith("warn")], [])

    def consul_pool(self, line: str = "consul:web", **options: Any) -> BackendPool:
        api = ConsulAPI(options.pop("url", self.consul.url), options.pop("token", None))
        return self.pool(server(line, server_kind_of, Settings(more={CONSUL: api})), **options)

    def texts(self, pool: BackendPool) -> list[str]:
        return [member.target.text for member in pool.members]

    async def asks_again(self) -> float:
        before = len(self.consul.asked)
        [call] = self.due()
        seconds: float = call.getTime() - self.time.seconds()
        self.time.advance(seconds)
        await self.until(lambda: len(self.consul.asked) > before)
        return seconds

    async def rests(self) -> None:
        await self.until(self.due)

    def due(self) -> list[Any]:
        calls: Any = self.time.clock.getDelayedCalls()
        return [call for call in calls if "start_lookup" in str(call.func)]

    # How Consul is asked; the stand-in complains of what is wrong with it, too.
    async def test_index_of_last_answer(self) -> None:
        self.consul.register("web", [Instance(80)])
        pool = self.consul_pool()
        await self.found(pool, "127.0.0.1:80")
        await self.rests()
        self.assertEqual(await self.asks_again(), 1.0)
        self.consul.register("web", [Instance(80), Instance(81)])
        await self.found(pool, "127.0.0.1:80", "127.0.0.1:81")
        await self.rests()
        await self.asks_again()
        asked = [{"index": [index], "wait": ["30s"]} for index in ("10", "13")]
        self.assertEqual((self.consul.asked, self.consul.tokens), ([{}, *asked], [None] * 3))

    async def test_nothing_changes(self) -> None:
        self.consul.register("web", [Instance(80)])
        pool = self.consul_pool(resolve=Resolve(2.0))
        await self.found(pool, "127.0.0.1:80")
        [member] = pool.members
        for _ in range(3):
            await self.rests()
            await self.asks_again()
            await self.until(lambda: self.consul.waiting)
            self.time.advance(2)
        await self.rests()
        self.assertEqual(pool.members, [member])
        self.assertEqual(self.consul.asked[-1], {"index": ["10"], "wait": ["2s"]})

    async def test_each_instance_that_is_meant_is_found(self) -> None:
        """What is asked for, and what the weights are; pools that want the same share one question."""
        blue = ("v1", "blue")
        instances = [
            Instance(1, tags=blue, datacenter="dc2"), Instance(2, tags=("v1",), datacenter="dc2"),
            Instance(3, tags=blue, weights=(5, 1)),
            Instance(4, tags=blue, datacenter="dc2", status="warning"),
        ]  # fmt: skip
        self.consul.register("web", instances)
        await self.found(self.consul_pool("consul:web tag=v1,blue dc=dc2 passing"), "127.0.0.1:1")
        asked = {"passing": ["true"], "tag": ["v1", "blue"], "dc": ["dc2"]}
        self.assertEqual(self.consul.asked, [asked])
        for line in ("consul:web tag=v1,blue", "consul:web tag=v1,blue weight=3"):
            pool = self.consul_pool(line)
            await self.found(pool, "127.0.0.1:3")
        self.assertEqual([member.full_weight for member in pool.members], [15])
        self.assertEqual(len(self.consul.asked), 2)
        # At a host with a name, or at a socket.
        self.server.zone["consul.test"] = a("127.0.0.1")
        local = Consul(self, self.time, make_folder(self) / "consul.sock")
        for consul, url in (
            (self.consul, self.consul.url.replace("127.0.0.1", "consul.test")),
            (local, local.url),
        ):
            consul.register("web", [Instance(80)])
            await self.found(self.consul_pool(url=url), "127.0.0.1:80")

    async def test_token(self) -> None:
        file = make_folder(self) / "token"
        file.write_text("first\n")
        self.consul.token = "first"
        pool = await self.known(token=file)
        file.write_text("second\n")
        self.consul.token = "second"
        await self.asks_again()
        self.consul.register("web", [Instance(81)])
        await self.found(pool, "127.0.0.1:81")
        self.assertEqual(self.consul.tokens, ["first", "second"])

    async def test_stop(self) -> None:
        """While an answer is waited for, also the first one."""
        await self.waits()
        self.consul.hangs = True
        self.consul_pool("consul:early")
        await self.until(lambda: len(self.consul.asked) == 3)
        self.consul_pool("consul:other")
        await self.names.stop()
        await self.until(lambda: not self.consul.waiting)
        self.assertEqual(self.said(), [])

    async def known(self, **options: Any) -> BackendPool:
        self.consul.register("web", [Instance(80)])
        pool = self.consul_pool(**options)
        await self.found(pool, "127.0.0.1:80")
        await self.rests()
        return pool

    async def waits(self, **options: Any) -> BackendPool:
        """Have a question wait for a change."""
        pool = await self.known(**options)
        await self.asks_again()
        await self.until(lambda: self.consul.waiting)
        return pool

    async def fails(self) -> str:
        await self.asks_again()
        logged: list[str] = []
        await self.until(lambda: logged.extend(self.said()) or logged)  # type: ignore[func-returns-value]
        await self.rests()
        [line] = logged
        return line

    async def test_index_goes_back(self) -> None:
        """After an index that has gone back the next question has none, so that no change is missed."""
        pool = await self.waits()
        self.consul.restore(3)
        await self.rests()
        await self.asks_again()
        await self.rests()
        await self.asks_again()
        asked = [query.get("index") for query in self.consul.asked]
        self.assertEqual((asked, self.texts(pool)), ([None, ["10"], None, ["3"]], ["127.0.0.1:80"]))

    async def test_away(self) -> None:
        """While Consul is away what was known stays; that is told once, and that it is over; waits grow up to `resolve`, spread."""
        pool = await self.known()
        await self.consul.leave()
        waits = []
        for _ in range(8):
            before = self.time.seconds()
            [call] = self.time.clock.getDelayedCalls()
            waits.append(call.getTime() - before)
            self.time.advance(waits[-1])
            await self.rests()
        for number, wait in enumerate(waits[1:]):
            low = min(2**number, 30)
            self.assertTrue(low <= wait <= 1.5 * low, waits)
        self.assertGreater(len({wait / min(2**n, 30) for n, wait in enumerate(waits[1:])}), 3)
        [line] = self.said()
        why = r"cannot find the addresses of consul:web, keeping the known one; Consul at http://127\.0\.0\.1:\d+: connection refused"
        self.assertRegex(line, f"^warn: {why}")
        self.consul.listen()
        self.consul.register("web", [Instance(81)])
        await self.asks_again()
        await self.found(pool, "127.0.0.1:81")
        self.assertEqual(self.said(), ["info: the addresses of consul:web are known again"])
        # It may have another state, so that its first question has no index.
        self.assertEqual(self.consul.asked[-1], {})

    async def test_silence_is_known_within_a_minute(self) -> None:
        pool = await self.waits(resolve=Resolve(600.0))
        self.assertEqual(self.consul.asked[-1]["wait"], ["40s"])
        self.consul.hangs = True
        self.consul.forget()
        self.time.advance(52.4)
        self.assertEqual(self.said(), [])
        self.time.advance(0.2)
        await self.rests()
        self.assertEqual(self.texts(pool), ["127.0.0.1:80"])
        [source] = self.names.sources()
        self.assertEqual(source.name, f"consul {self.consul.url}")
        self.assertEqual((source.up, source.why), (False, "no answer in time"))
        await self.asks_again()
        self.time.advance(7)
        self.assertTrue(source.state().is_overdue)
        self.assertEqual(len(self.said()), 1)

    async def test_what_holds_for_one_service_says_nothing_of_consul(self) -> None:
        for token in (None, Path("/nowhere/token")):
            self.consul_pool(token=token)
            await self.until(lambda: not self.names.unanswered())
        [source] = self.names.sources()
        self.assertTrue(source.up)
        await self.consul.leave()
        for call in self.due():
            self.time.advance(max(0.0, call.getTime() - self.time.seconds()))
        await self.until(lambda: not source.up)
        # The reason is that of the service which was asked for last.
        said = self.said()
        self.assertIn(source.why, f"{said[1]}\n{said[2]}")
        self.assertEqual((len(said), "connection refused" in said[2]), (3, True))

    async def test_wrong_token(self) -> None:
        self.consul.token = "right"
        pool = self.consul_pool()
        await self.rests()
        [line] = self.said()
        self.assertIn("none is known yet; ", line)
        self.assertIn("answers 403 (ACL not found); see 'token=' of 'consul'", line)
        self.consul_pool(token=Path("/nowhere/token"))
        await self.until(lambda: len(self.logs) > self.said_before)
        [line] = self.said()
        self.assertIn("cannot read '/nowhere/token': No such file", line)
        self.assertEqual(pool.members, [])

    async def test_may_see_nothing(self) -> None:
        """An empty answer to somebody who may not see the service is not taken for an empty service."""
        pool = await self.known()
        self.consul.filtered = True
        self.consul.register("other", [])
        line = await self.fails()  # at once, since something has changed
        self.assertIn("its token may not read this service", line)
        self.assertEqual(self.texts(pool), ["127.0.0.1:80"])

    async def test_empty(self) -> None:
        pool = await self.waits()
        self.assertEqual(self.names.stale(), {})
        self.consul.register("web", [Instance(80, status="critical")])
        await self.found(pool)
        await self.rests()
        why = "Consul has no instance of web to lead clients to"
        self.assertEqual(self.said(), [f"warn: {why}"])
        self.assertEqual([*self.names.stale().values()], [(None, why)])
        self.consul.register("web", [Instance(80)])
        await self.asks_again()
        await self.found(pool, "127.0.0.1:80")
        self.assertEqual(self.names.stale(), {})

    async def test_many_reasons(self) -> None:
        """Of reasons that are others each time, as those of a proxy that numbers its answers, no more than ten are logged."""
        await self.known()
        self.consul.broken = 500, "No cluster leader\n"
        self.assertIn("answers 500 (No cluster leader)", await self.fails())
        for number in range(15):
            self.consul.broken = 502, f"request {number}"
            await self.asks_again()
            await self.rests()
        self.assertEqual(len(self.said()), 9)

    async def test_odd_answers(self) -> None:
        """Instances with a name, and what is no list of instances."""
        self.consul.register("web", [Instance(80), Instance(80, address="db.example.com")])
        await self.found(self.consul_pool(), "127.0.0.1:80")
        why = "left out, which have a host name instead of an IP address: db.example.com"
        [line] = self.said()
        self.assertIn(why, line)
        await self.rests()
        self.consul.broken = 200, "<html>"
        self.assertIn("its answer is not a list of instances", await self.fails())


_NAME = "_web._tcp.service.consul"


class ConsulDnsTests(NamesCase):
    async def test_large_answer(self) -> None:
        """An answer that is cut is asked for over TCP, by IPv6, too; and again after a second, since its time to live is 0."""
        for host in ["127.0.0.1", *(["::1"] if has_ipv6() else [])]:
            agent = NameServer()
            agent.listen(host)
            self.addCleanup(agent.stop)
            names = [f"0a0000{n:02x}.addr.dc1.consul" for n in range(1, 61)]
            agent.zone[_NAME] = [srv(name, 8000 + n, 1, 1, 0) for n, name in enumerate(names, 1)]
            for number, name in enumerate(names, 1):
                agent.zone[name] = a(f"10.0.0.{number}", ttl=0)
            pool = self.pool(service(_NAME), resolvers=(agent.place,))
            await self.found(pool, *(f"10.0.0.{n}:{8000 + n}" for n in range(1, 61)))
            self.assertEqual(agent.asked_by_tcp[_NAME, 33], 1)
            self.assertEqual(await self.next_look_up(), 1.0)
            await self.until(lambda agent=agent: agent.asked_by_tcp[_NAME, 33] == 2)  # type: ignore[misc]
            self.names.remove_pool(pool)


_KEYS = st.sampled_from(["Node", "Service", "Checks", "Address", "Port", "Weights", "Status"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner),
)

_ODD = _JSON | st.binary()
_INSTANCE = st.fixed_dictionaries({
    "Service": st.fixed_dictionaries({
        "Address": st.sampled_from(("10.0.0.1", "::1", "x")), "Port": st.integers(-1, 65_536),
    }),
})  # fmt: skip


def _answer(*instances: Instance) -> bytes:
    return json.dumps([one.told("web") for one in instances]).encode()


def _found(body: bytes, *, passing: bool = False) -> Any:
    return instances_in(body, passing=passing).addresses


class InstancesTests(SynchronousTestCase):
    def test_instances_of_an_answer(self) -> None:
        """The address of the service counts, else that of the node; the order does not depend on the answer's."""
        instances = [
            Instance(80, "10.0.0.9", "10.0.0.2"), Instance(80, "10.0.0.1"),
            Instance(443, "10.0.0.1"), Instance(80, "10.0.0.3", "2001:DB8:0::1"),
        ]  # fmt: skip
        for _ in range(4):
            Random(4).shuffle(instances)
            found = [(one.host, one.port) for one in _found(_answer(*instances))]
            addresses = [("10.0.0.1", 80), ("10.0.0.1", 443), ("10.0.0.2", 80)]
            self.assertEqual(found, [*addresses, ("2001:db8::1", 80)])
        body = _answer(Instance(0), Instance(65536), Instance(5, address="db.example.com"))
        none = instances_in(body, passing=False)
        self.assertEqual((none.addresses, none.named), ((), ("db.example.com",)))
        # No weights are 1; a weight of 0 is the last priority.
        body = _answer(
            Instance(1, weights=(9, 2)), Instance(2, weights=(9, 2), status="warning"),
            Instance(3, status="critical"), Instance(4, status="unheard-of"),
            Instance(5, weights=None), Instance(6, weights=(5, 0), status="warning"),
            Instance(7, weights=(5, 0)), Instance(8, weights=(0, 0)),
        )  # fmt: skip
        passing = [(1, 9, 0), (5, 1, 0), (7, 5, 0), (8, 0, 1)]
        for is_passing, more in ((True, []), (False, [(2, 2, 0), (6, 0, 1)])):
            its = _found(body, passing=is_passing)
            weights = [(one.port, one.weight, one.priority) for one in its]
            self.assertEqual(weights, sorted(passing + more))
        change_constants(self, finding, MOST_INSTANCES=1000)
        many = [Instance(80, f"10.0.{n >> 8}.{n & 255}") for n in range(1050)]
        addresses = _found(_answer(*many))
        self.assertEqual((len(addresses), addresses), (1000, _found(_answer(*reversed(many)))))
        change_constants(self, finding, _MOST_READ=1000)
        reader = InstancesReader(passing=False)
        reader.feed(b"[")
        part = _answer(*(Instance(80, f"10.0.0.{n}") for n in range(200)))[1:-1] + b","
        for _ in range(5):
            reader.feed(part)
        self.assertRaisesRegex(NotConsulError, "more than 1000 instances", reader.feed, part)
        for before, reported, expected in (
            (0, "7", 7), (7, "7", 7), (7, "12", 12), (12, "7", 0), (0, "0", 1), (5, "0", 0),
        ):  # fmt: skip
            self.assertEqual(next_index(before, reported), expected)
        for wrong in (None, "", "-1", "x", "\u0664", "7" * 21, "7" * 6000):
            self.assertRaises(NotConsulError, next_index, 0, wrong)
        self.assertEqual(next_index(0, str(2**64 - 1)), 2**64 - 1)

    @given(st.booleans().flatmap(lambda is_list: st.lists(_INSTANCE) if is_list else _ODD))
    def test_anything(self, said: object) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        try:
            found = instances_in(body, passing=False)
        except NotConsulError as error:
            self.assertIn("its answer is not a list of instances", str(error))
        else:
            self.assertTrue(all(0 < one.port < 65536 for one in found.addresses))
