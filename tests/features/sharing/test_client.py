from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import Peer, PeerFactory, VirtualTime, listen, reactor
from txmux.features.sharing.client import RedisClient, RedisConnection, RedisError, SharingTimes
from txmux.features.sharing.store import Store


class _Redis(Peer):
    reply = b":0\r\n"

    def dataReceived(self, data: bytes) -> None:
        self.send(self.reply * data.count(b"*"))


class ConnectionTest(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()
        self.redis = PeerFactory(_Redis)
        port = listen(self, self.redis)
        self.came: list[float] = []
        self.up: list[Any] = []
        store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        self.link = RedisConnection(self.time, store, self.is_up, lambda _: None)
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
            self.link.drop("a test")
        while len(self.came) == count:
            await deferLater(reactor, 0)
            if self.link.retry is not None:
                self.time.advance(0.1)
        return self.time.seconds() - begun

    async def test_reconnects_at_once_and_then_backs_off_until_one_lasts(self) -> None:
        await self.again()
        self.assertLess(await self.again(), 1)
        self.assertGreater(sum([await self.again() for _ in range(40)]), 100)
        self.time.advance(9)
        self.time.advance(9)
        self.assertLess(await self.again(), 1)

    async def test_stopped_while_it_connects(self) -> None:
        """Nor is it started after that."""
        await self.stop()
        self.link.start()
        for _ in range(20):
            await deferLater(reactor, 0)
        self.assertEqual(self.came, [])
        for peer in self.redis.peers:
            await peer.is_lost()


class ClientTest(TestCase):
    async def why(self, build: Callable[[], Peer], *, channel: str = "") -> str:
        port = listen(self, PeerFactory(build))
        why: list[str] = []
        store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        time = VirtualTime()
        times = SharingTimes(patience=10)
        client = RedisClient(time, store, self.fail, why.append, times=times, channel=channel)
        self.addCleanup(client.stop)
        client.start()

        def waits(connection: RedisConnection) -> bool:
            is_asking = build is Peer and connection.made is not None
            return is_asking or connection.retry is not None

        while len(why) < 2:
            await deferLater(reactor, 0)
            if all(map(waits, client.connections)):
                time.advance(1)
        (found,) = {*why}
        return found

    async def test_why_there_is_no_connection(self) -> None:
        self.assertEqual(await self.why(Peer, channel="x"), "no answer within 10 s")
        for reply, why in (
            (b"-READONLY You can't write against a read only replica.\r\n", "name the master"),
            (b"-LOADING Redis is loading the dataset in memory\r\n", "it is loading its data"),
            (b"*1\r\n" * 10_000, "arrays of more than 4 levels"),
            (b"+nonsense\r\n", "it does not answer as Redis does"),
        ):
            self.assertIn(why, await self.why(type("_Answering", (_Redis,), {"reply": reply})))


class FailedWorkTest(SynchronousTestCase):
    def test_says_why_at_once_and_cancels_the_rest_at_the_end(self) -> None:
        why: list[str] = []
        store = Store("redis://127.0.0.1:1", "127.0.0.1", 1)
        client = RedisClient(Clock(), store, self.fail, why.append)

        async def work(done: Deferred[Any]) -> None:
            await done

        several, last = [fail(RedisError("one of several"))], Deferred[Any]()
        alone = fail(RedisError("it alone"))
        for done in (alone, gatherResults(several, consumeErrors=True), last):
            client.redis = object()  # type: ignore[assignment]
            client.run(work(done))
        self.assertEqual((why, client.redis is None), (["it alone", "one of several"], False))
        client.stop()
        self.assertEqual((len(why), client.busy, last.called), (2, set(), True))
