import json
import os
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.steps import counts_of
from tests.telemetry.counting.test_counters import PATH, RULES
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.counting.snapshot import Counts
from txmux.telemetry.record import ConnectionRecord

RECORD = ConnectionRecord(
    time=1000.5, id="x", listener="public", client="?", detect_ms=2.0, duration_ms=70.0
)


def begin(column: ProcessCounters) -> None:
    column.listener("public").accepted()
    column.route("public", "a").matched(RECORD)
    column.listener("public").decided(RECORD)
    column.server("127.0.0.1:22", "127.0.0.1:22").connected()


def end(column: ProcessCounters) -> None:
    column.listener("public").connection_ended(column.route("public", "a"), RECORD, "done")
    column.server("127.0.0.1:22", "127.0.0.1:22").released()


class HandedOverTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.rules = parse(RULES, PATH)
        self.old, self.new = Counters(), Counters()
        self.new.extend(self.rules)
        self.old.extend(self.rules)
        self.new.column(1)
        self.column = self.old.column(1)

    def hand_over(self, *, other_format: bool = False) -> None:
        for number, program in enumerate(self.old.programs()):
            told, descriptors = program.handed_over()
            if other_format and not number:
                told["format"] = "another"
                told["all"][0]["unknown\nkind"] = {"x": 1}
                told["all"][0]["listener\npublic"]["a new cell"] = 1
            self.new.adopt([os.dup(one) for one in descriptors], **json.loads(json.dumps(told)))

    def told(self) -> tuple[int, int, int, int, int]:
        counts: Counts = counts_of(self.new, self.rules)
        route = next(iter(counts.routes))
        self.assertEqual(counts.servers[0].total, route.matches)
        return (
            counts.listeners[0].total, counts.listeners[0].active, route.matches,
            route.ended["done"], counts.servers[0].active,
        )  # fmt: skip

    def test_end_of_the_old_program_loses_no_count(self) -> None:
        begin(self.column)
        begin(self.column)
        end(self.column)
        self.hand_over()
        self.assertEqual(self.new.left_behind(), (1, 0))
        del self.old, self.column
        self.assertEqual(self.new.left_behind(), (0, 0))
        self.assertEqual(self.told(), (2, 0, 2, 1, 0))
        self.assertEqual(next(iter(counts_of(self.new, self.rules).routes)).ended["crashed"], 1)

    def test_third_program_has_the_counts_of_both(self) -> None:
        begin(self.column)
        end(self.column)
        self.column.server("127.0.0.1:22", "127.0.0.1:22").failed("connect-refused")
        self.hand_over()
        del self.column
        begin(self.new.column(1))
        self.new.column(1).server("127.0.0.1:22", "127.0.0.1:22").failed("reset")
        self.old, self.new = self.new, Counters()
        self.new.extend(self.rules)
        self.new.column(1)
        self.hand_over()
        self.assertEqual(self.told(), (2, 1, 2, 1, 1))
        del self.old
        self.assertEqual(self.told(), (2, 0, 2, 1, 0))
        counts = counts_of(self.new, self.rules)
        self.assertEqual(next(iter(counts.routes)).last_match, 1000.5)
        when, cause = counts.servers[0].last_failure or (0.0, "error")
        self.assertEqual((abs(time.time() - when) < 60, cause), (True, "reset"))

    def test_two_draining_programs_end_in_any_order(self) -> None:
        begin(self.column)
        begin(self.column)
        before = len([*Path("/proc/self/fd").iterdir()])
        self.hand_over()
        self.old, self.new, first = self.new, Counters(), self.old
        self.new.extend(self.rules)
        self.new.column(1)
        begin(self.old.column(1))
        self.hand_over()
        self.assertEqual(self.told(), (3, 3, 3, 0, 3))
        self.old = Counters()
        self.assertEqual(self.told(), (3, 2, 3, 0, 2))
        end(self.column)
        self.assertEqual(self.told(), (3, 1, 3, 1, 1))
        del self.column, first
        self.assertEqual(self.told(), (3, 0, 3, 1, 0))
        self.assertLessEqual(len([*Path("/proc/self/fd").iterdir()]), before)

    def test_program_with_other_cells_takes_known_numbers(self) -> None:
        begin(self.column)
        begin(self.column)
        end(self.column)
        self.hand_over(other_format=True)
        self.assertEqual(self.told(), (2, 0, 2, 1, 0))
        self.new.column(1).listener("public").adopted(self.new.column(1).route("public", "a"))
        self.assertEqual(self.told()[:2], (2, 1))

    def test_forgotten_counters_do_not_come_back(self) -> None:
        begin(self.column)
        self.hand_over()
        other = parse(RULES.replace("route a", "route b"), PATH)
        for _ in range(3):
            self.new.extend(other, 1)
            self.new.forget({2})
        self.assertNotIn("route\npublic\na", self.new.layout.places)
        self.assertEqual(counts_of(self.new, other).listeners[0].total, 1)
        del self.old, self.column
        self.assertEqual(counts_of(self.new, other).listeners[0].total, 1)
        self.new.extend(other, 2)
        self.assertEqual([one.matches for one in counts_of(self.new, other).routes], [0, 0])
