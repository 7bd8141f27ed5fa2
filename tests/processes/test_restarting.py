"""How soon a worker is started again."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.supervisor.starter import BackOff


class BackOffTest(SynchronousTestCase):
    def test_doubles(self) -> None:
        """The first time it is started at once, then after a second, and so on up to the longest; a long life resets that."""
        back_off = BackOff()
        self.assertEqual([back_off.delay(0.1) for _ in range(8)], [0, 1, 2, 4, 8, 16, 30, 30])
        self.assertEqual([back_off.delay(30), back_off.delay(0), back_off.delay(0)], [0, 1, 2])

    @given(st.lists(st.floats(0, 100)))
    def test_bounds(self, lives: list[float]) -> None:
        """It never waits longer than the longest time, and waits after each short life but the first."""
        back_off = BackOff(first=1, longest=5, settled=10)
        for number, lived in enumerate(lives):
            delay = back_off.delay(lived)
            self.assertTrue(0 <= delay <= 5)
            self.assertEqual(delay == 0, number == 0 or lived >= 10)
