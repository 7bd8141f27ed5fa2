"""Garbage while connections move, and afterwards."""

from __future__ import annotations

import gc
import weakref

from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.service import ServiceTestCase
from txmux import MuxService
from txmux.processes.upgrade import collecting
from txmux.processes.upgrade.collecting import UNCOLLECTED


class _Ring:
    """Garbage, as soon as nobody has it."""

    def __init__(self) -> None:
        self.own = self


class CollectingTest(SynchronousTestCase):
    """The time while connections move."""

    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.enable)

    def moved(self, count: int) -> weakref.ref[_Ring]:
        """Have objects come, among which some garbage is."""
        ring = _Ring()
        found = weakref.ref(ring)
        with UNCOLLECTED:
            del ring
            self.came = [[number] for number in range(count)]
        return found

    def test_looks_for_none(self) -> None:
        """No garbage is looked for meanwhile, also where one such time is within another one; then it is again."""
        with UNCOLLECTED:
            with UNCOLLECTED:
                self.assertFalse(gc.isenabled())
            self.assertFalse(gc.isenabled())
        self.assertTrue(gc.isenabled())

    def test_few(self) -> None:
        """Where few objects come, garbage is freed as ever, so that many small moves leave none."""
        ring = self.moved(100)
        self.assertEqual(gc.get_freeze_count(), 0)
        gc.collect()
        self.assertIsNone(ring())

    def test_many(self) -> None:
        """Very many are not looked through afterwards, until the process has handed its connections over."""
        self.patch(collecting, "_FEW", 10**9)
        ring = self.moved(collecting._MANY + 1000)
        gc.collect()
        self.assertIsNotNone(ring())
        self.came.clear()
        UNCOLLECTED.release()
        self.assertIsNone(ring())
        self.assertEqual(gc.get_freeze_count(), 0)

    def test_kept(self) -> None:
        """A process that keeps very many connections does not hold these up."""
        self.patch(collecting, "_FEW", 10)
        ring = self.moved(collecting._MANY + 1000)
        UNCOLLECTED.release()
        self.assertIsNotNone(ring())
        self.assertGreater(gc.get_freeze_count(), 0)

    def test_while_others_move(self) -> None:
        """Nothing is released while connections move."""
        self.patch(collecting, "_FEW", 10**9)
        ring = self.moved(collecting._MANY + 1000)
        with UNCOLLECTED:
            UNCOLLECTED.release()
            self.assertIsNotNone(ring())


_RULES = """
[txmux]
workers = COUNT
access_log = LOG

[listen public]
endpoint = 127.0.0.1:0
default = 127.0.0.1:BACKEND
detect_timeout = 1ms
"""


class ChangeTest(ServiceTestCase):
    """A service that has workers, or none."""

    async def test_released(self) -> None:
        """What was left aside, when this process took over connections of workers, is freed when it hands them to others."""
        self.patch(collecting, "_MANY", -1)
        self.patch(collecting, "_FEW", 10**9)
        self.addCleanup(gc.unfreeze)
        servers = PeerFactory()
        self.text = _RULES.replace("BACKEND", str(listen(self, servers)))
        running = self.service_of(2)
        running.startService()
        self.addCleanup(running.stopService)
        (opened,) = running._sockets.sockets().values()
        client = await connect(self, opened.getsockname()[1])
        client.send(b"hello")
        server = await servers.heard(5)
        for workers, is_aside in ((1, True), (2, False)):
            self.service_of(workers)
            report = await running.reload()
            self.assertEqual(report.errors, ())
            while bool(gc.get_freeze_count()) is not is_aside:
                await deferLater(reactor, 0.01)
        client.close()
        await server.is_lost()

    def service_of(self, workers: int) -> MuxService:
        """Write rules with this many workers, and make a service of them."""
        rules = self.folder / "rules.ini"
        rules.write_text(self.text.replace("COUNT", str(workers)).replace("LOG", str(self.log)))
        return MuxService.from_file(rules, reactor=reactor)
