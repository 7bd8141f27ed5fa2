from collections.abc import Callable
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import SupervisedTestCase, reactor
from txmux.backends.upstreams import Upstreams
from txmux.control.events import Hub
from txmux.control.steering import set_server
from txmux.net.channel.message import Message
from txmux.telemetry.events import MOST


class Follower:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.beats = 0

    def __call__(self, event: dict[str, Any] | None) -> None:
        if event is None:
            self.beats += 1
        else:
            self.events.append(event)

    async def kinds(self, count: int) -> list[str]:
        while len(self.events) < count:
            await deferLater(reactor, 0.01)
        return [event["event"] for event in self.events]


class Process:
    number = 1
    ready = True
    is_late = is_retiring = False
    sink: Callable[[dict[str, Any]], object] | None = None

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None:
        self.sink = sink

    def send(self, message: Message, **values: Any) -> None:
        pass

    def ask(self, *_: object, **__: Any) -> Deferred[Any]:
        return Deferred()


class HubTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.process = Process()
        upstreams = Upstreams(self.clock, self.clock, mock.Mock())
        self.hub = Hub(self.clock, lambda: [self.process], lambda: upstreams)

    def flood(self) -> Callable[[dict[str, Any]], object]:
        sink = self.process.sink
        assert sink is not None
        for _ in range(MOST + 7):
            sink({"event": "begin"})
        return sink

    def test_skipped_by_a_worker_and_over_all_workers(self) -> None:
        """And a sign of life each five seconds, and at once."""
        follower, other = Follower(), Follower()
        self.hub.subscribe(other)()
        self.assertIsNone(self.process.sink)
        end = self.hub.subscribe(follower)
        self.flood()({"event": "skipped", "count": 3})
        for seconds, beats in ((1, 1), (3.9, 1), (0.1, 2)):
            self.clock.advance(seconds)
            self.assertEqual(follower.beats, beats)
        found = [(one["event"], one["worker"], one["count"]) for one in follower.events[MOST:]]
        self.assertEqual(found, [("skipped", 1, 3), ("skipped", None, 7)])
        self.hub.report_stop()
        self.assertEqual(follower.events[-1]["event"], "stop")
        end()
        self.assertEqual((self.process.sink, other.events), (None, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_next_follower_hears_nothing_skipped_before(self) -> None:
        first, second = Follower(), Follower()
        end = self.hub.subscribe(first)
        late = self.flood()
        end()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for _ in range(MOST + 1):
            late({"event": "end"})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        end = self.hub.subscribe(second)
        self.clock.advance(2)
        late({"event": "end"})
        self.assertEqual([one["event"] for one in second.events], ["end"])
        self.hub.report_stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(first.events), MOST)


class WorkersTest(SupervisedTestCase):
    workers = 2

    async def test_events_of_all_present_and_later_workers(self) -> None:
        """Of connections, servers and reloads, for as long as somebody follows."""
        port, control, follower = await self.live.begin(), self.running.control, Follower()
        end = control.events.subscribe(follower)
        self.addCleanup(end)
        clients = await self.live.spread(port)
        await follower.kinds(2 * len(clients))
        self.assertEqual({one["worker"] for one in follower.events}, {1, 2})
        clients[0].reset()
        await follower.kinds(2 * len(clients) + 1)
        last = follower.events[-1]
        its = [one for one in follower.events if one["id"] == last["id"]]
        self.assertEqual([one["event"] for one in its], ["begin", "decide", "end"])
        self.assertEqual(its[0]["listener"], "public")
        self.assertEqual((its[1]["route"], its[1]["facts"]), ("ssh", {"software": "a"}))
        self.assertEqual((last["reason"], last["bytes_in"]), ("client-reset", 11))
        states, server = ("up", "drain", "up"), f"127.0.0.1:{self.live.server}"
        with capturedLogs():
            for state in ("drain", "ready"):
                await set_server(control, "b", server, state=state)
            report = await self.running.reload(control.rules)
        *changes, reload = follower.events[-3:]
        expected = [("server", "b", server, *states[at : at + 2]) for at in (0, 1)]
        names = "event", "backend", "server", "before", "state"
        self.assertEqual([tuple(one[name] for name in names) for one in changes], expected)
        self.assertEqual((reload["event"], reload["ok"]), ("reload", report.ok))
        end()
        told = len(follower.events)
        await self.live.client(port)
        await self.live.listed(len(clients), state="relaying")
        self.assertEqual(len(follower.events), told)
