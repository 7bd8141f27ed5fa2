from collections.abc import Collection, Mapping
from types import MappingProxyType

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.lines import LostLinesLog


class LostLinesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = LostLinesLog(self.clock.seconds)

    def told(self, seconds: float, *totals: int, losing: Collection[str] = ()) -> list[str]:
        self.clock.advance(seconds)
        with capturedLogs() as events:
            self.log.record(
                [(number, {"access log /a": total}) for number, total in enumerate(totals, 1)],
                {f"{log}: it is full": 1 for log in losing},
                () if losing else {"access log /a"},
                "access log /a",
            )
        return [eventAsText(event, includeTimestamp=False) for event in events]

    def test_once_for_all_workers(self) -> None:
        self.assertEqual(self.told(1, 0, 0), [])
        self.assertEqual(self.told(9, 3, 4, losing=["access log /a"]), [])
        self.assertEqual(self.told(9, 5, 4), [])
        self.assertEqual(self.told(4, 5, 4), [])
        (line,) = self.told(1, 5, 4)
        self.assertIn("access log /a: written again; 9 lines lost in all", line)
        self.assertEqual(self.told(9, 5, 4), [])
        self.assertEqual(self.told(9, 5, 6), [])
        self.assertIn("; 2 lines lost in all", self.told(5, 5, 6)[0])

    def test_short_lines_that_fit_on_a_full_disk(self) -> None:
        """Where some lines are written and others not, it is not over yet."""
        for lost in range(1, 20):
            losing = ["access log /a"] if lost % 2 else []
            self.assertEqual(self.told(4, lost, losing=losing), [])
        self.told(4, 20)
        self.assertIn("; 20 lines lost in all", self.told(5, 20)[0])

    def test_worker_that_is_replaced(self) -> None:
        self.told(1, 8, losing=["access log /a"])
        self.told(1, 3)
        self.assertIn("; 11 lines lost in all", self.told(5, 3)[0])

    def test_predecessor(self) -> None:
        before = {"access log /a: x": 5, "access log /a: y": 0, "other: x": 3}
        self.log.restore(before, "access log /a")
        self.assertEqual(self.losing(2), {"access log /a: x": 7})
        losing = self.losing(3, now={"access log /a: z": 3, "b: y": 0})
        self.assertEqual(losing, {"access log /a: z": 8, "b: y": 0})
        self.assertEqual(self.losing(3, written={"access log /a"}), {})
        self.assertIn("; 8 lines lost in all", self.told(5, 3)[0])

    def losing(
        self,
        total: int,
        now: Mapping[str, int] = MappingProxyType({}),
        written: Collection[str] = (),
    ) -> Mapping[str, int]:
        self.log.record([(1, {"access log /a": total})], now, written, "access log /a")
        return self.log.losing

    def test_never_fewer(self) -> None:
        """The number is of all processes that have been, of each outage: none that ends, or is opened again, takes its own away."""
        full = "access log /a: full"
        self.assertEqual(self.losing(5, {full: 5}), {full: 5})
        # The worker has ended, and another one has nothing to write.
        self.assertEqual(self.losing(0), {full: 5})
        self.assertEqual(self.losing(1, {full: 1}), {full: 6})
        self.assertEqual(self.losing(1, written={"access log /a"}), {})
        self.assertEqual(self.losing(2, {full: 1}), {full: 7})

    def test_of_a_log_that_rules_name_no_longer(self) -> None:
        other = "access log /b"
        self.log.record([(1, {other: 5})], {f"{other}: full": 5}, (), other)
        self.assertEqual(self.losing(0), {})
