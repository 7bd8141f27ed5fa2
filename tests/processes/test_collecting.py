"""Garbage while connections move, and afterwards."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.upgrade import transfer
from txmux.processes.upgrade.transfer import UNCOLLECTED


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
        self.patch(transfer, "_FEW", 10**9)
        ring = self.moved(transfer._MANY + 1000)
        gc.collect()
        self.assertIsNotNone(ring())
        self.came.clear()
        UNCOLLECTED.release()
        self.assertIsNone(ring())
        self.assertEqual(gc.get_freeze_count(), 0)

    def test_kept(self) -> None:
        """A process that keeps very many connections does not hold these up."""
        self.patch(transfer, "_FEW", 10)
        ring = self.moved(transfer._MANY + 1000)
        UNCOLLECTED.release()
        self.assertIsNotNone(ring())
        self.assertGreater(gc.get_freeze_count(), 0)

    def test_while_others_move(self) -> None:
        """Nothing is released while connections move."""
        self.patch(transfer, "_FEW", 10**9)
        ring = self.moved(transfer._MANY + 1000)
        with UNCOLLECTED:
            UNCOLLECTED.release()
            self.assertIsNotNone(ring())
