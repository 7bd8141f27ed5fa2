"""Rates of sources that two machines share by a real Redis. The machines are services of this process."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.interop.children import output_of
from tests.interop.servers import start_redis
from tests.support.folders import make_folder
from tests.support.peers import Peer, PeerFactory, connect, reactor
from txmux import EmbeddedService
from txmux.features.sharing import leases
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

_HELD = "txmux:{x:ff0000007f000001}:held"
"""The key of the connections of 127.0.0.1."""


class _Server(Protocol):
    """Says that the client was let in, and closes."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"1")
        transport.loseConnection()


class _Client(Protocol):
    """Waits for that, and for the end."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        self._heard = heard
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._heard(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over.callback(None)


def _waited(machine: EmbeddedService) -> float:
    shared: Any = machine.listeners[0].runtime.parts["sharing"]
    return shared.seconds() - shared._sent_at[0] if shared._sent_at else 0.0


class SharedRatesTest(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.redis = start_redis(self.folder)
        self.addCleanup(self.redis.end)
        factory = Factory.forProtocol(_Server)
        factory.noisy = False
        self.server: Any = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.server.stopListening)
        self.let_in: list[float] = []
        self.slowest = 0.0
        # A machine that is busy with other tests is not a slow Redis.
        self.patch(leases, "_SLOW", 60.0)

    def machine(self, rate: str = "", limit: str = "") -> EmbeddedService:
        limit = limit or f"connection_rate_per_source = {rate}"
        text = _RULES.format(redis=self.redis.port, limit=limit, server=self.server.getHost().port)
        made = EmbeddedService(parse(text, self.folder / "rules.ini"))
        made.startService()
        self.addCleanup(lambda: made.running and made.stopService())
        return made

    async def up(self, *machines: EmbeddedService, wanted: bool = True) -> None:
        for one in machines:
            shared: Any = one.listeners[0].runtime.parts["sharing"]
            while shared.is_up != wanted:
                await deferLater(reactor, 0.005)

    def connect(self, machine: EmbeddedService) -> Any:
        port: Any = machine.ports[0]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        connecting = connectProtocol(endpoint, _Client(self._heard))
        return connecting.addCallback(lambda client: client.over)

    def _heard(self, data: bytes) -> None:
        self.let_in.append(time.monotonic())

    async def come(
        self, machines: list[EmbeddedService], per_second: float, seconds: float
    ) -> None:
        """Have clients come at a rate, by the machines in turn, and note how late they come and Redis answers."""
        begun, connecting = time.monotonic(), []
        for number in range(int(per_second * seconds)):
            early = begun + number / per_second - time.monotonic()
            await deferLater(reactor, max(0.0, early))
            self.slowest = max(self.slowest, -early, *map(_waited, machines))
            connecting.append(self.connect(machines[number % len(machines)]))
        await gatherResults(connecting)

    async def test_sum(self) -> None:
        """Of 100 clients a second, both machines together let in the 20 that the rules say, when the burst is over."""
        machines = [self.machine("20/s burst=40") for _ in range(2)]
        await self.up(*machines)
        await self.come(machines, 100, 3)
        begun = time.monotonic()
        self.let_in.clear()
        await self.come(machines, 100, 4)
        wanted = 20 * (time.monotonic() - begun)
        # Who comes while an answer is on its way is let in, and counted later. On a busy machine these are many.
        off = 8 + 100 * self.slowest
        self.assertTrue(abs(len(self.let_in) - wanted) <= off, (len(self.let_in), wanted, off))

    async def test_quiet_is_never_asked_about(self) -> None:
        machines = [self.machine("20/s burst=40") for _ in range(2)]
        await self.up(*machines)
        await self.come(machines, 50, 0.6)
        told = output_of("redis-cli", "-p", str(self.redis.port), "keys", "*").decode()
        self.assertEqual((len(self.let_in), told.split()), (30, []))

    async def test_gone(self) -> None:
        """Without Redis each machine lets in what it may by itself, at once; one that comes back empty refuses nobody wrongly."""
        machines = [self.machine("100/s burst=40") for _ in range(2)]
        await self.up(*machines)
        await self.come(machines, 200, 1)
        self.redis.end()
        await self.up(*machines, wanted=False)
        await deferLater(reactor, 0.4)  # the buckets are full again
        self.let_in.clear()
        await self.come(machines, 160, 0.5)  # 80 in all: the burst of each
        self.assertEqual(len(self.let_in), 80)
        await deferLater(reactor, 0.4)
        self.redis = start_redis(self.folder, self.redis.port)
        self.addCleanup(self.redis.end)
        await self.up(*machines)
        self.let_in.clear()
        await self.come(machines[:1], 80, 0.5)  # its burst, however late some of them are
        self.assertEqual(len(self.let_in), 40)

    async def test_slow(self) -> None:
        """A Redis that does not answer in time is as one that is gone, is told of once, and is asked again when it answers."""
        self.patch(leases, "_SLOW", 0.2)
        self.patch(leases, "_LONGEST", 1.0)
        self.patch(leases, "STEADY", 1.0)
        machines = [self.machine("5/s burst=10") for _ in range(2)]
        await self.up(*machines)
        with capturedLogs() as events:
            os.kill(self.redis.child.pid, signal.SIGSTOP)
            try:
                # Half of the burst in two seconds is enough to be asked about.
                await self.come(machines, 1000, 0.02)
                await self.up(*machines, wanted=False)
                await deferLater(reactor, 2.1)  # the buckets are full again
                self.let_in.clear()
                await self.come(machines, 1000, 0.02)
                self.assertEqual(len(self.let_in), 20)
                told = [one for one in events if "this machine alone" in str(one.get("effect"))]
            finally:
                os.kill(self.redis.child.pid, signal.SIGCONT)
            await self.up(*machines)
        self.assertEqual(len(told), 2)  # one for each machine

    async def test_connections(self) -> None:
        """Connections of one source count at all machines, for as long as they are there; those of a machine that is gone, for no longer than 15 s."""
        clients = await self.hold_all()
        for client in clients:
            client.reset()
        while self.redis_told("hvals", _HELD).count(" ") > 1:
            await deferLater(reactor, 0.05)
        while (await self.stay(self.machines[1])).finished:
            await deferLater(reactor, 0.05)

    async def hold_all(self) -> list[Peer]:
        """Have a source make all the connections that it may, seven by one machine and the rest by another; give the seven."""
        machines = [self.machine(limit="max_connections_per_source = 10") for _ in range(2)]
        self.machines = machines
        await self.up(*machines)
        self.server.factory = PeerFactory()
        clients = [await self.stay(machines[0]) for _ in range(7)]
        self.assertFalse(any(client.finished for client in clients))
        while not self.redis_told("hvals", _HELD).startswith("7 "):
            await deferLater(reactor, 0.05)
        # half of them: then Redis is asked
        others = [await self.stay(machines[1]) for _ in range(5)]
        shared: Any = machines[1].listeners[0].runtime.parts["sharing"]
        while not any(one.others for one in shared.limits_elsewhere("x").counts._sources.values()):
            await deferLater(reactor, 0.01)
        others += [await self.stay(machines[1]) for _ in range(4)]
        self.assertEqual([client.finished for client in others], [False] * 5 + [True] * 4)
        return clients

    async def stay(self, machine: EmbeddedService) -> Peer:
        port: Any = machine.ports[0]
        before = len(self.server.factory.peers)
        client = await connect(self, port.getHost().port)
        while not client.finished and len(self.server.factory.peers) == before:
            await deferLater(reactor, 0)
        return client

    async def test_machine_gone(self) -> None:
        """What a machine had that has died counts until its time is over, which is fifteen seconds by Redis's clock, and then no more."""
        await self.hold_all()
        gone: Any = self.machines[0].listeners[0].runtime.parts["sharing"]
        await gone.stop()  # it tells nobody, as one that has died
        name = self.redis_told("hkeys", _HELD).split()[0]
        self.assertTrue((await self.stay(self.machines[1])).finished)
        count, till = map(int, self.redis_told("hget", _HELD, name).split())
        seconds, microseconds = map(int, self.redis_told("time").split())
        left = till / 1e6 - seconds - microseconds / 1e6
        self.assertEqual((count, left < 15), (7, True))
        # Nobody waits for that: its time is over as soon as Redis believes it.
        self.redis_told("hset", _HELD, name, f"7 {till - 15_000_000}")
        while (await self.stay(self.machines[1])).finished:
            await deferLater(reactor, 0.05)
        self.assertNotIn(name, self.redis_told("hkeys", _HELD))
        self.assertIn(int(self.redis_told("pttl", _HELD)), range(1, 15_001))

    def redis_told(self, *words: str) -> str:
        return output_of("redis-cli", "-p", str(self.redis.port), *words).decode()

    def gauge(self, machine: EmbeddedService) -> bool | None:
        assert machine.serving is not None
        parts = machine.serving.runtime.parts.values()
        return is_shared(source.state() for part in parts for source in part.sources())

    async def test_metric_of_redis(self) -> None:
        self.patch(leases, "STEADY", 0.1)
        machine = self.machine("100/s burst=10")
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

    async def test_flushed_scripts_are_loaded_again(self) -> None:
        machine = self.machine("1/s burst=100")  # so many may come at once, if this machine is busy
        await self.up(machine)
        output_of("redis-cli", "-p", str(self.redis.port), "script", "flush")
        await self.come([machine], 80, 1)
        await self.up(machine)
        self.assertEqual(len(self.let_in), 80)
