from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.folding import FoldedLog


class FoldedLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = FoldedLog(self.clock.seconds)

    def pass_seconds(self, seconds: int) -> list[str]:
        with capturedLogs() as events:
            for _ in range(seconds):
                self.clock.advance(1)
                self.log.report()
        return [eventAsText(event, includeTimestamp=False) for event in events]

    def written(self, *lines: str, level: str = "warn") -> list[str]:
        with capturedLogs() as events:
            for number, line in enumerate(lines, 1):
                self.log.write(number, level, line)
        return [eventAsText(e, includeTimestamp=False, includeSystem=False) for e in events]

    def test_first_at_once_then_one_a_minute(self) -> None:
        self.assertEqual(self.written(*["refused"] * 4), ["worker 1: refused"])
        self.assertEqual(self.pass_seconds(59), [])
        (line,) = self.pass_seconds(1)
        self.assertTrue(line.endswith("#warn] workers: refused (repeated 3 times within a minute)"))
        self.assertEqual(self.written("refused"), [])
        (line,) = self.pass_seconds(60)
        self.assertTrue(line.endswith("refused (repeated 1 time within a minute)"))
        self.assertEqual(self.pass_seconds(60), [])
        self.assertEqual(self.written("refused"), ["worker 1: refused"])

    def test_other_lines_and_levels(self) -> None:
        self.assertEqual(self.written("a", "b", "a"), ["worker 1: a", "worker 2: b"])
        self.assertEqual(self.written("a", level="error"), ["worker 1: a"])
        self.assertEqual(self.written("a", "a", level="info"), ["worker 1: a", "worker 2: a"])

    def test_repeated_traceback_is_one_line(self) -> None:
        self.written(*["it failed\nTraceback\n  x"] * 2)
        (line,) = self.pass_seconds(60)
        self.assertTrue(line.endswith("workers: it failed (repeated 1 time within a minute)"))

    def test_bounded(self) -> None:
        """The oldest line gives way, and its number is written then, as those of all are at the end."""
        self.written("first", "first")
        written = self.written(*map(str, range(1000)))
        self.assertIn("workers: first (repeated 1 time within a minute)", written)
        self.assertEqual(self.written("first"), ["worker 1: first"])
        self.written("first")
        with capturedLogs() as events:
            self.log.finish()
        self.assertEqual(len(events), 1)
        self.assertEqual(self.pass_seconds(60), [])
