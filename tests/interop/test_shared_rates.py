"""Limits of sources that machines share by a real Redis. The machines are services of this process."""

from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import output_of
from tests.interop.servers import start_redis
from tests.support.changes import change_constants
from tests.support.folders import make_folder
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from txmux import EmbeddedService
from txmux.features.sharing import exchange
from txmux.features.sharing.exchange import SharedSources
from txmux.features.sharing.store import is_shared
from txmux.rules.reading.parser import parse

_RULES = """\
[txmux]
admin = off
access_log = off
shared_limits = redis://127.0.0.1:{redis}
[listen x]
endpoint = 127.0.0.1:0
{limit}
default = 127.0.0.1:{server}
"""

_KEY = exchange.KEY % "x"
_SOURCE = 0xFF0000007F000001
"""Stands for 127.0.0.1."""


def _shared(machine: EmbeddedService) -> SharedSources:
    part: Any = machine._parts["sharing"]
    shared: SharedSources = part.limits
    return shared


class SharedRatesTest(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.redis = start_redis(self.folder)
        self.addCleanup(self.redis.end)
        self.server = PeerFactory()
        self.port = listen(self, self.server)

    def machine(self, most: int = 2, limit: str = "") -> EmbeddedService:
        limit = limit or f"max_connections_per_source = {most}"
        text = _RULES.format(redis=self.redis.port, limit=limit, server=self.port)
        made = EmbeddedService(parse(text, self.folder / "rules.ini"))
        made.startService()
        self.addCleanup(lambda: made.running and made.stopService())
        return made

    async def up(self, *machines: EmbeddedService, wanted: bool = True) -> None:
        for one in machines:
            while _shared(one).is_up != wanted:
                await deferLater(reactor, 0.005)

    async def test_rate(self) -> None:
        """What a source makes at one machine is taken from its burst at another."""
        limit = "connection_rate_per_source = 4/h burst=8"
        machines = one, other = [self.machine(limit=limit) for _ in range(2)]
        await self.up(*machines)
        clients = [await self.stay(one) for _ in range(9)]
        self.assertEqual([client.finished for client in clients], [False] * 8 + [True])
        while not self.elsewhere(other):
            await deferLater(reactor, 0.01)
        self.assertTrue((await self.stay(other)).finished)

    async def test_connections(self) -> None:
        """Connections of one source count at all machines, for as long as they are there; while there is no Redis, each machine counts its own."""
        clients = await self.hold_all()
        self.redis.end()
        await self.up(*self.machines, wanted=False)
        self.assertFalse((await self.stay(self.machines[1])).finished)
        self.redis = start_redis(self.folder, self.redis.port)
        self.addCleanup(self.redis.end)
        await self.up(*self.machines)
        while not (one := await self.stay(self.machines[1])).finished:
            one.reset()
            await deferLater(reactor, 0.05)
        for client in clients:
            client.reset()
        while (await self.stay(self.machines[1])).finished:
            await deferLater(reactor, 0.05)

    async def hold_all(self) -> list[Peer]:
        """Have a source make all the connections that it may, seven by one machine and the rest by another; return the seven."""
        self.machines = machines = [self.machine(10) for _ in range(2)]
        await self.up(*machines)
        clients = [await self.stay(machines[0]) for _ in range(7)]
        self.assertFalse(any(client.finished for client in clients))
        while not self.elsewhere(machines[1]):
            await deferLater(reactor, 0.01)
        others = [await self.stay(machines[1]) for _ in range(7)]
        self.assertEqual([client.finished for client in others], [False] * 3 + [True] * 4)
        return clients

    def elsewhere(self, machine: EmbeddedService) -> object:
        exchanges = _shared(machine).exchanges.values()
        return any(_SOURCE in (one._reported_slots or ()) for one in exchanges)

    async def stay(self, machine: EmbeddedService) -> Peer:
        port: Any = machine.ports[0]
        before = len(self.server.peers)
        client = await connect(self, port.getHost().port)
        while not client.finished and len(self.server.peers) == before:
            await deferLater(reactor, 0)
        return client

    async def test_machine_gone(self) -> None:
        """What a machine had that has died counts until its time is over, which is fifteen seconds by Redis's clock, and then no more."""
        await self.hold_all()
        (name,) = {one for _, one in _shared(self.machines[0]).exchanges}
        await _shared(self.machines[0]).stop()  # it reports nothing, as one that has died
        self.assertTrue((await self.stay(self.machines[1])).finished)
        code = f"return string.sub(redis.call('hget', '{_KEY}', '{name}'), 1, 10) - redis.call('time')[1]"
        self.assertIn(int(self.redis_told("eval", code, "0")), range(8, 16))
        self.assertIn(int(self.redis_told("ttl", _KEY)), range(8, 16))
        # Nobody waits for that: its time is over as soon as Redis believes it.
        code = f"return redis.call('hset', '{_KEY}', '{name}', '0000000001' .. string.sub(redis.call('hget', '{_KEY}', '{name}'), 11))"
        self.redis_told("eval", code, "0")
        while (await self.stay(self.machines[1])).finished:
            await deferLater(reactor, 0.05)
        self.assertNotIn(name, self.redis_told("hkeys", _KEY))

    async def test_what_is_no_report_is_dropped(self) -> None:
        """Nor is one that is good for longer than any is, as after Redis's clock was set back, or that of a name which no machine has."""
        machine = self.machine()
        await self.up(machine)
        now = int(self.redis_told("time").split()[0])
        good = str(now + 10)
        wrong = ("", "x", "9999999999", f"{good}1", 20 * "x", str(now + 60), "       nan")
        self.put(dict(zip("abcdefg", wrong, strict=True)) | {65 * "n": good})
        self.put({"right": good, "more": good + 20 * "9"})
        while {*self.redis_told("hkeys", _KEY).split()} != {"right", "more"}:
            await deferLater(reactor, 0.05)
        self.assertTrue(_shared(machine).is_up)

    async def test_reports_that_are_too_many_for_an_answer(self) -> None:
        """With their names they stay below what a client takes for one; all that have room are heard."""
        machine = self.machine()
        await self.up(machine)
        good = str(int(self.redis_told("time").split()[0]) + 15)
        self.put({f"{number:064}": good + 999 * 20 * "1" for number in range(50)})
        await self.heard(machine, 44)
        self.assertTrue(_shared(machine).is_up)

    async def heard(self, machine: EmbeddedService, count: int) -> None:
        (exchanged,) = _shared(machine).exchanges.values()
        while len(exchanged._known or ()) != count:
            await deferLater(reactor, 0.01)

    def put(self, reports: dict[str, str]) -> None:
        for name, report in reports.items():
            self.redis_told("hset", _KEY, name, report)

    def redis_told(self, *words: str) -> str:
        return output_of("redis-cli", "-p", str(self.redis.port), *words).decode()

    def gauge(self, machine: EmbeddedService) -> bool | None:
        parts = machine._parts.values()
        return is_shared(source.state() for part in parts for source in part.sources())

    async def test_metric_of_redis(self) -> None:
        change_constants(self, exchange, STEADY=0.1)
        machine = self.machine()
        found = [self.gauge(machine)]
        await self.up(machine)
        found.append(self.gauge(machine))
        self.redis.end()
        while self.gauge(machine):
            await deferLater(reactor, 0.01)
        rules = parse("[listen x]\nendpoint = 127.0.0.1:0\n", self.folder / "rules.ini")
        plain = EmbeddedService(rules)
        plain.startService()
        self.addCleanup(lambda: plain.running and plain.stopService())
        found.append(self.gauge(plain))
        self.assertEqual(found, [False, True, None])
