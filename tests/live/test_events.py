"""What happens in a service, as it is told to those who follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.live.test_connections import LiveCase
from tests.live.test_workers import WorkersCase
from tests.support.peers import connect, reactor
from txmux.observe.events import MOST, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable


class Follower:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.beats = 0

    def __call__(self, event: dict[str, Any] | None) -> None:
        if event is None:
            self.beats += 1
        else:
            self.events.append(event)

    async def kinds(self, count: int) -> list[str]:
        """Wait for this many events, and give their kinds."""
        while len(self.events) < count:
            await deferLater(reactor, 0.01)
        return [event["event"] for event in self.events]


class EventsTest(LiveCase):
    """One process."""

    def follow(self) -> tuple[Follower, Callable[[], None]]:
        """Follow the service; gives what ends that, too."""
        follower = Follower()
        end = self.running.subscribe(follower)
        self.addCleanup(end)
        return follower, end

    async def test_connection(self) -> None:
        """A connection is told of when it begins, when it is decided, and when it ends, each time with its ID."""
        port = self.begin()
        follower, _ = self.follow()
        client = await self.client(port)
        await self.listed(1, state="relaying")
        client.reset()
        self.assertEqual(await follower.kinds(3), ["begin", "decide", "end"])
        begin, decide, end = follower.events
        self.assertEqual(len({one["id"] for one in follower.events}), 1)
        self.assertEqual(begin["listener"], "public")
        self.assertEqual((decide["route"], decide["facts"]), ("ssh", {"software": "a"}))
        self.assertEqual(
            (end["reason"], end["bytes_in"], end["worker"]), ("client-reset", 11, None)
        )

    async def test_nobody(self) -> None:
        """Nothing is told while nobody follows, nor after the last one has gone."""
        port = self.begin()
        first, end_first = self.follow()
        second, end_second = self.follow()
        (factory,) = self.running.factories
        self.assertTrue(factory.engine.events.wanted)
        end_first()
        await self.client(port)
        self.assertEqual((await second.kinds(2), first.events), (["begin", "decide"], []))
        end_second()
        self.assertFalse(factory.engine.events.wanted)
        before = len(second.events)
        await self.client(port)
        await self.listed(2, state="relaying")
        self.assertEqual(len(second.events), before)

    async def test_server(self) -> None:
        """A server that changes its state is told of, and a reload of the rules."""
        self.begin()
        follower, _ = self.follow()
        with capturedLogs():
            await self.running.set_server("b", f"127.0.0.1:{self.server}", state="drain")
            (event,) = follower.events
            self.assertEqual(
                (event["event"], event["before"], event["state"]), ("server", "up", "drain")
            )
            self.assertEqual((event["backend"], event["server"]), ("b", f"127.0.0.1:{self.server}"))
            report = await self.running.reload(self.running.rules)
        event = follower.events[-1]
        self.assertEqual((event["event"], event["ok"]), ("reload", report.ok))

    async def test_beats(self) -> None:
        """Who follows hears something now and then, and when the service stops."""
        self.begin()
        follower, _ = self.follow()
        for _ in range(3):
            self.time.advance(5)
        self.assertEqual(follower.beats, 4)
        await self.running.stopService()
        self.assertEqual(follower.events[-1]["event"], "stop")


class SamplingTest(SynchronousTestCase):
    """Too many events."""

    def test_flood(self) -> None:
        """Of each second the first hundred are passed on; then it is told how many were skipped."""
        clock = Clock()
        told: list[dict[str, Any]] = []
        sampling = Sampling(clock.seconds)
        clock.advance(5)
        for number in range(MOST + 7):
            sampling.pass_on({"event": "begin", "number": number}, told.append)
        self.assertEqual([one["number"] for one in told], list(range(MOST)))
        clock.advance(1)
        sampling.pass_on({"event": "end"}, told.append)
        self.assertEqual([one["event"] for one in told[MOST:]], ["skipped", "end"])
        self.assertEqual(told[MOST]["count"], 7)


class WorkersTest(WorkersCase):
    """With workers."""

    async def test_all(self) -> None:
        """What happens in all workers is told, also in one that was started later."""
        port = await self.begin()
        follower = Follower()
        end = self.running.subscribe(follower)
        self.addCleanup(end)
        clients = await self.spread(port)
        while len(follower.events) < 2 * len(clients):
            await deferLater(reactor, 0.01)
        self.assertEqual({one["worker"] for one in follower.events}, {1, 2})
        end()
        told = len(follower.events)
        client = await connect(self, port)
        client.send(b"SSH-2.0-a\r\n")
        await self.listed(len(clients) + 1, state="relaying")
        self.assertEqual(len(follower.events), told)
