"""Tests of what comes of checks: members that go down and up, here and in other processes."""

from __future__ import annotations

import functools
from random import Random

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.backends.health.checked import Checked, Dialled
from tests.backends.pool.pools import Watched, servers
from tests.support.mux import VirtualTime, server_at
from tests.support.peers import PeerFactory, listen, reactor
from txmux.backends.health.checks import HealthChecks, apply_result, key_of
from txmux.backends.pool.member import ResolvedAddress
from txmux.rules.model import Check
from txmux.tcp.io_runtime import IORuntime


class ResultTests(SynchronousTestCase):
    """Results on their way to pools."""

    def test_results_reach_other_processes(self) -> None:
        here, there = Checked(), Watched(check=Check("tcp"))
        here.at_once = Dialled.refuse
        here.advance(6)
        for key, ok, why in here.results:
            apply_result(there.pool, key, ok=ok, why=why)
        self.assertEqual(there.changes, here.changes)
        self.assertEqual(
            sorted(there.changes), ["10.0.0.1:80: up -> down", "10.0.0.2:80: up -> down"]
        )

    def test_removed_member(self) -> None:
        pool = Watched(check=Check("tcp", fall=1))
        apply_result(pool.pool, "10.0.0.9:80 10.0.0.9:80", ok=False, why="timed out")
        self.assertEqual(pool.changes, [])

    def test_keys_differ_by_server(self) -> None:
        first, second = servers("a.example:80", "b.example:80")
        pool = Watched(first, second)
        for server in (first, second):
            pool.pool.set_addresses(
                server, [ResolvedAddress("10.0.0.1", 80), ResolvedAddress("10.0.0.2", 80)]
            )
        self.assertEqual(len({key_of(member) for member in pool.pool.members}), 4)


class FlappingTests(TestCase):
    """A real server that comes, goes, and comes back."""

    timeout = 300

    def setUp(self) -> None:
        self.time = VirtualTime()
        self.server = PeerFactory()
        self.port = listen(self, self.server)
        check = Check("redis", interval=1, timeout=0.5, rise=2, fall=3)
        self.watched = Watched(server_at(self.port), check=check)
        self.runtime = IORuntime(self.time)
        dial = self.runtime.dial
        take = functools.partial(apply_result, self.watched.pool)
        clock = self.time.clock
        self.checks = HealthChecks(dial, clock, self.watched.pool, check, take, random=Random(1))
        self.checks.start()
        self.addCleanup(self.stop)

    async def stop(self) -> None:
        self.checks.stop()
        self.runtime.clock.drop_idle()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])
        for peer in self.server.peers:
            await peer.is_lost()

    async def check(self, answer: bytes) -> None:
        number = len(self.server.peers)
        while len(self.server.peers) == number:
            self.time.advance(0.05)
            await deferLater(reactor, 0)
        peer = self.server.peers[-1]
        await peer.has(1)
        if not answer:
            self.time.advance(0.5)
        peer.send(answer)
        await peer.is_lost()

    async def test_flapping(self) -> None:
        (member,) = self.watched.members
        down = f"127.0.0.1:{self.port}: up -> down"
        up = f"127.0.0.1:{self.port}: down -> up"
        good, bad = b"+PONG\r\n", b"-LOADING Redis is loading\r\n"
        for answer in (good, bad, bad, good, bad, b"", good):
            await self.check(answer)
        self.assertEqual(self.watched.changes, [])
        for answer in (bad, b"", bad, bad):
            await self.check(answer)
        self.assertEqual(self.watched.changes, [down])
        self.assertEqual(
            member.why, "checks that failed: 3, the last one: no PONG: -LOADING Redis is loading"
        )
        for answer in (good, bad, good, good, good):
            await self.check(answer)
        self.assertEqual(self.watched.changes, [down, up])

    async def test_stop_in_the_middle(self) -> None:
        while not self.server.peers:
            self.time.advance(0.05)
            await deferLater(reactor, 0)
        await self.stop()
