from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.features.sharing.machine import Machine, RedisPlayed
from tests.support.mux import VirtualTime
from tests.support.peers import PeerFactory, listen, reactor
from txmux.access.per_source import PerSource, SourceLimits
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.exchange import SharedSources
from txmux.features.sharing.store import Store
from txmux.telemetry.sources import Source

_STEP = 0.25  # seconds of the virtual clock


@pytest.mark.by_turns(each=True)
class HangingTest(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()
        self.kind: Any = type("_This", (RedisPlayed,), {"time": self.time})
        self.port = listen(self, PeerFactory(self.kind))

    def followed(self, kind: str) -> Source:
        store = Store(f"redis://127.0.0.1:{self.port}", "127.0.0.1", self.port)
        shared: SharedBans | SharedSources
        if kind == "bans":
            shared = SharedBans(self.time, store, Machine().bans, self.time.seconds)
        else:
            limits = PerSource(SourceLimits(connections=2), self.time.seconds)
            shared = SharedSources(self.time, store, lambda: {"x": limits})
        shared.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stopped(shared)))
        return shared.source

    async def stopped(self, shared: Any) -> None:
        stopping = shared.stop()
        while not stopping.called:
            await self.passed(0.0)

    async def passed(self, seconds: float) -> None:
        self.time.advance(seconds)
        for _ in range(8):  # what has begun by then ends on sockets
            await deferLater(reactor, 0)

    async def until_up(self, source: Source) -> None:
        while not source.state().up or source.state().age is None:
            await self.passed(_STEP)

    async def test_noticed_within_five_seconds(self) -> None:
        """Whenever it begins to hang, even if no client comes."""
        for kind in ("bans", "limits"):
            source = self.followed(kind)
            for phase in range(12):
                self.kind.hangs = False
                await self.until_up(source)
                for _ in range(24 + phase):
                    await self.passed(_STEP)
                    self.assertTrue(source.state().up, kind)
                self.kind.hangs, began = True, self.time.seconds()
                while not source.state().is_overdue:
                    await self.passed(_STEP)
                self.assertLess(self.time.seconds() - began, 5 - _STEP, (kind, phase))

    async def test_slow_answers_are_no_outage(self) -> None:
        """A machine that is slow has them after two seconds, each time."""
        self.kind.late = 2.0
        sources = [self.followed(kind) for kind in ("bans", "limits")]
        for source in sources:
            await self.until_up(source)
        for _ in range(400):
            await self.passed(_STEP)
            for source in sources:
                self.assertFalse(source.state().is_overdue)
                self.assertTrue(source.state().up)
