"""Tests of a connection that is made again whenever it is gone."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from txredisapi import RedisProtocol  # type: ignore[import-untyped]

from tests.support.mux import VirtualTime
from tests.support.peers import PeerFactory, listen, reactor
from txmux.access.shared.client import RedisClient, RedisConnection
from txmux.rules.model.settings import Store


class ConnectionTest(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.time = VirtualTime()
        self.redis = PeerFactory()
        port = listen(self, self.redis)
        self.came: list[float] = []
        self.up: list[Any] = []
        store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        self.link = RedisConnection(
            self.time, store, None, RedisProtocol, self.is_up, lambda _: None
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))
        self.link.start()

    async def stop(self) -> None:
        stopping = self.link.stop()
        while not stopping.called:
            self.time.advance(0)
            await deferLater(reactor, 0)

    def is_up(self) -> None:
        self.came.append(self.time.seconds())
        self.up.append(self.link.protocol)

    async def again(self) -> float:
        count, begun = len(self.came), self.time.seconds()
        if self.up:
            self.link.drop()
        while len(self.came) == count:
            await deferLater(reactor, 0)
            if self.link._again is not None:
                self.time.advance(0.1)
        return self.time.seconds() - begun

    async def test_reconnects_at_once_and_then_backs_off_until_one_lasts(self) -> None:
        await self.again()
        self.assertLess(await self.again(), 1)
        waited = sum([await self.again() for _ in range(40)])
        self.assertGreater(waited, 100)
        self.time.advance(20)
        self.assertLess(await self.again(), 1)


class SubscribedTest(TestCase):
    timeout = 120

    async def test_silent_redis_counts_as_away_and_is_reconnected(self) -> None:
        port = listen(self, PeerFactory())
        why: list[str] = []
        store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        client = RedisClient(
            reactor, store, None, self.fail, why.append, patience=0.05, channel="x"
        )
        self.addCleanup(client.stop)
        client.start()
        while len(why) < 2:
            await deferLater(reactor, 0.005)
        self.assertIn("it did not answer SUBSCRIBE within 0.05 s", why)
