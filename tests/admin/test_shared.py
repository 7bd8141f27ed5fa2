"""Answers that are dear are made for many at once, and leave time for other work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import AdminCase
from txmux.admin.shared import Shared

if TYPE_CHECKING:
    from collections.abc import Awaitable


class SharedTest(SynchronousTestCase):
    """One kind of answer, with a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.making: list[Deferred[bytes]] = []
        self.shared = Shared(self.clock, self.make)

    def make(self) -> Awaitable[bytes]:
        """Begin an answer, which the test ends."""
        self.making.append(Deferred())
        return self.making[-1]

    def ask(self) -> Deferred[bytes]:
        """Ask for one."""
        return Deferred.fromCoroutine(self.shared.get())

    def test_shared(self) -> None:
        """Who asks while one is made gets the next one, together with all others who do."""
        first = self.ask()
        others = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.making), 1)
        self.making[0].callback(b"1")
        self.assertEqual(self.successResultOf(first), b"1")
        for other in others:
            self.assertNoResult(other)
        self.making[1].callback(b"2")
        self.assertEqual([self.successResultOf(other) for other in others], [b"2"] * 3)
        self.assertEqual(len(self.making), 2)

    def test_rest(self) -> None:
        """The next one is begun after three times as long as the last one took, but two seconds at most."""
        for took, rest in ((0.1, 0.3), (10.0, 2.0)):
            last = self.ask()
            self.clock.advance(took)
            self.making.pop().callback(b"")
            self.successResultOf(last)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            following = self.ask()
            self.clock.advance(rest - 0.01)
            self.assertEqual(self.making, [])
            self.clock.advance(0.02)
            self.making.pop().callback(b"")
            self.successResultOf(following)

    def test_failure(self) -> None:
        """Who has asked is told what went wrong, and the next one is tried again."""
        asking = [self.ask(), self.ask(), self.ask()]
        for _ in range(2):
            self.making.pop().errback(ValueError("on purpose"))
        for one in asking:
            self.failureResultOf(one, ValueError)
        good = self.ask()
        self.making.pop().callback(b"good")
        self.assertEqual(self.successResultOf(good), b"good")


class MetricsTest(AdminCase):
    """The endpoint ``metrics``, by one client that does not wait for answers."""

    async def test_pipelined(self) -> None:
        """A client that asks a thousand times and reads nothing leaves the endpoint to another one."""
        await self.start("metrics = 127.0.0.1:0")
        port = self.port_of("metrics")
        bad = await self.connect(port)
        bad.transport.pauseProducing()
        bad.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
        for _ in range(5):
            told = await self.ask("GET", "/metrics", to=port)
            self.assertEqual(told.status, 200)
            self.assertIn(b"txmux_connections_total", told.body)
