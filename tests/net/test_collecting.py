import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from txmux.net import collecting
from txmux.net.collecting import UNCOLLECTED_FOR_GOOD


class _Ring:
    """Garbage, as soon as nobody has it."""

    def __init__(self) -> None:
        self.own = self


class CollectingTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.enable)

    def moved(self, count: int) -> weakref.ref[_Ring]:
        ring = _Ring()
        found = weakref.ref(ring)
        with UNCOLLECTED_FOR_GOOD:
            del ring
            self.came = [[number] for number in range(count)]
        return found

    def test_looks_for_none(self) -> None:
        """The garbage collector is off meanwhile, also where one such time is within another one; then it is on again."""
        with UNCOLLECTED_FOR_GOOD:
            with UNCOLLECTED_FOR_GOOD:
                self.assertFalse(gc.isenabled())
            self.assertFalse(gc.isenabled())
        self.assertTrue(gc.isenabled())

    def test_few_and_many(self) -> None:
        # Where few objects come, garbage is freed as ever, so that many small moves leave none.
        before = gc.get_freeze_count()
        ring = self.moved(100)
        self.assertEqual(gc.get_freeze_count(), before)
        gc.collect()
        self.assertIsNone(ring())
        # Very many are not looked through afterwards.
        ring = self.moved(collecting._MANY + 1000)
        gc.collect()
        self.assertIsNotNone(ring())
