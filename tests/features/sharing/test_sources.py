import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.features.sharing.machine import Machine, RedisPlayed
from tests.support.mux import VirtualTime
from tests.support.peers import PeerFactory, listen, reactor
from txmux.access.per_source import PerSource, SourceLimits
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.exchange import SharedSources
from txmux.features.sharing.store import Store


class SharedSourcesTest(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()
        self.kind: Any = type("_This", (RedisPlayed,), {"time": self.time})
        self.redis = PeerFactory(self.kind)
        port = listen(self, self.redis)
        self.store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        self.limits = PerSource(SourceLimits(connections=2), self.time.seconds)
        self.sources: dict[str, PerSource | None] = {"x": self.limits, "plain": None}
        self.shared = SharedSources(self.time, self.store, lambda: self.sources)
        self.source = self.shared.source
        self.shared.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))
        logs = capturedLogs()
        self.events = logs.__enter__()
        self.addCleanup(logs.__exit__, None, None, None)

    async def stop(self) -> None:
        await self.shared.stop()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def until(self, condition: Callable[[], object], *, step: float = 0.0) -> float:
        begun = self.time.seconds()
        while not condition():
            self.time.advance(step)
            for _ in range(5):  # what is on its way arrives
                await deferLater(reactor, 0.001)
        return self.time.seconds() - begun

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    async def test_silent_redis_is_known_within_five_seconds_and_connected_to_again(self) -> None:
        """Without any client; so is a connection that a firewall has forgotten."""
        await self.until(lambda: self.shared.is_up)
        (old,) = self.redis.peers
        vars(old)["hangs"] = True
        state = self.source.state
        known = await self.until(lambda: not state().up and state().is_overdue, step=0.1)
        self.assertLess(known, 5)
        again = await self.until(lambda: len(self.redis.peers) == 2 and self.shared.is_up, step=0.1)
        self.assertTrue(again < 3, again)
        await self.until(lambda: self.source.up and not self.source.why, step=0.1)
        why = "no answer within 5 s; limits of sources apply to this machine alone"
        self.assertEqual(self.lines(), [f"{self.source.name}: {it}" for it in (why, "good again")])

    async def test_redis_that_hangs_is_noticed_within_five_seconds(self) -> None:
        """Whenever it begins, even if no client comes, for bans, too; answers after two seconds, each time, are no outage."""
        bans = SharedBans(self.time, self.store, Machine().bans, self.time.seconds)
        bans.start()
        states = [self.shared.source.state, bans.source.state]
        for phase in range(12):
            self.kind.hangs = False
            await self.until(
                lambda: all(its().up and its().age is not None for its in states), step=0.25
            )
            for _ in range(24 + phase):
                await self.passed()
                self.assertTrue(all(its().up for its in states))
            self.kind.hangs = True
            known = await self.until(lambda: all(its().is_overdue for its in states), step=0.25)
            self.assertLess(known, 5)
        self.kind.hangs, self.kind.late = False, 2.0
        await self.until(lambda: all(its().up for its in states), step=0.25)
        for _ in range(400):
            await self.passed()
            self.assertFalse(any(its().is_overdue or not its().up for its in states))
        await bans.stop()
        self.kind.late = 0.0
        for _ in range(12):  # the last answers come
            await self.passed()

    async def passed(self) -> None:
        self.time.advance(0.25)
        for _ in range(8):  # what has begun by then ends on sockets
            await deferLater(reactor, 0)

    async def test_what_another_process_knew_is_forgotten(self) -> None:
        """By who owns the memory then, with the first answer, and without one."""
        self.know()
        await self.until(lambda: self.shared.is_up)
        self.assertIsNotNone(self.limits.enter(1))
        self.know()
        vars(self.redis.peers[0])["hangs"] = True
        await self.until(lambda: not self.shared.is_up, step=0.5)
        self.assertIsNotNone(self.limits.enter(1))

    async def test_answer_is_of_no_use_to_who_owns_the_memory_no_longer(self) -> None:
        await self.until(lambda: self.shared.is_up)
        (peer,) = self.redis.peers
        vars(peer)["hangs"] = True
        for source, sources in ((1, self.sources), (2, {})):
            await self.until(lambda: self.shared.is_exchanging, step=0.1)
            self.sources = sources
            peer.send(b"*2\r\n$1\r\nm\r\n$20\r\n%b\r\n" % struct.pack("<QIII", source, 2, 2, 2))
            await self.until(lambda: not self.shared.is_exchanging)
            self.assertEqual(self.limits.enter(source) is None, bool(sources))

    def know(self) -> None:
        self.limits.apply({1: (None, 2, 0)})
        self.assertIsNone(self.limits.enter(1))

    async def test_what_is_no_answer_is_named(self) -> None:
        for reply, why in (
            (b":7\r\n", "its answer is not as expected"),
            (b"*1\r\n$1\r\nx\r\n", "its answer is not as expected"),
            (b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", "its answer is not as expected"),
            (b"-OOM command not allowed\r\n", "OOM command not allowed"),
            (b"*1\r\n" * 10_000, "arrays of more than 4 levels"),
        ):
            self.patch(RedisPlayed, "answer", reply)
            await self.until(lambda: not self.source.up and why in self.source.why, step=0.5)  # noqa: B023
            self.patch(RedisPlayed, "answer", b"")
            await self.until(lambda: self.source.up, step=0.5)
        self.assertEqual(self.lines()[-1], f"{self.source.name}: good again")
