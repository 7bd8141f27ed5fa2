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
        self.assertEqual(self.written("refused"), ["worker 1: refused"])
        for count in (50, 60):
            lines: list[str] = []
            for _ in range(count):
                lines += self.pass_seconds(1)
                self.assertEqual(self.written("refused"), [])
            self.assertEqual(lines, [] if count == 50 else [self.counted("warn", 59)])
        self.assertEqual(self.pass_seconds(9), [])

    def test_count_that_comes_when_all_is_over_is_no_warning(self) -> None:
        """It says when the last was, and the next one is written at once."""
        self.written(*["refused"] * 4)
        self.assertEqual(self.pass_seconds(49), [])
        self.assertEqual(self.written("refused"), [])
        self.assertEqual(self.pass_seconds(10), [])
        self.assertEqual(self.pass_seconds(1), [self.counted("info", 4, ", the last 11 s ago")])
        self.assertEqual(self.written("refused"), ["worker 1: refused"])
        self.assertEqual(self.pass_seconds(60), [])

    def counted(self, level: str, count: int, end: str = "") -> str:
        line = f"workers: refused (repeated {count} times within a minute{end})"
        return f"[txmux.telemetry.folding.FoldedLog#{level}] {line}"

    def test_other_lines_and_levels(self) -> None:
        self.assertEqual(self.written("a", "b", "a"), ["worker 1: a", "worker 2: b"])
        self.assertEqual(self.written("a", level="error"), ["worker 1: a"])
        self.assertEqual(self.written("a", "a", level="info"), ["worker 1: a", "worker 2: a"])
        self.setUp()
        self.written(*["it failed\nTraceback\n  x"] * 2)  # repeated traceback is one line
        (line,) = self.pass_seconds(60)
        self.assertIn("workers: it failed (repeated 1 time within a minute", line)

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
