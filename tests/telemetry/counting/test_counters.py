import os
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.steps import counts_of
from txmux.rules.model import Rules
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counter_groups import NO_ROUTE, RouteTotals
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.counting.process_counters import CounterLayout, ProcessCounters
from txmux.telemetry.counting.snapshot import Counts
from txmux.telemetry.record import ConnectionRecord

PATH = Path("rules.ini")

RULES = """
[listen public]
endpoint = 127.0.0.1:0

[route a]
under = *
match = ssh
backend = 127.0.0.1:22
"""

MORE = """
[listen other]
endpoint = 127.0.0.1:0

[route b]
under = *
match = any
backend = 127.0.0.1:80
"""


def worker_of(counters: Counters, number: int) -> ProcessCounters:
    column = counters.column(number)
    assert column.descriptor is not None
    layout = CounterLayout(dict(column.layout.places), column.layout.cells)
    return ProcessCounters(layout, os.dup(column.descriptor))


def route_of(counts: Counts, route: str) -> RouteTotals:
    return next(one for one in counts.routes if (one.listener, one.route) == ("public", route))


def overwrite(counters: ProcessCounters) -> None:
    for at in range(len(counters.cells)):
        counters.cells[at] = 2**64 - 1


class CountersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.rules = parse(RULES, PATH)
        self.counters = Counters()
        self.counters.extend(self.rules)

    def counts(self, rules: Rules | None = None) -> Counts:
        return counts_of(self.counters, rules or self.rules)

    def begin(self, column: ProcessCounters, route: str = NO_ROUTE) -> None:
        record = ConnectionRecord(time=1000.5, id="x", listener="public", client="?", detect_ms=2.0)
        listener = column.listener("public")
        listener.accepted()
        if route:
            column.route("public", route).matched(record)
            listener.decided(record)

    def end(self, column: ProcessCounters, route: str) -> None:
        record = ConnectionRecord(
            time=1000.5, id="x", listener="public", client="?", detect_ms=2.0, duration_ms=70.0
        )
        column.listener("public").connection_ended(column.route("public", route), record, "done")

    def test_sums_of_processes_and_live_ones_by_difference(self) -> None:
        first, second = (worker_of(self.counters, number) for number in (1, 2))
        self.begin(first, "a")
        self.begin(second, "a")
        self.begin(second)
        self.end(first, "a")
        (listener,) = self.counts().listeners
        self.assertEqual((listener.total, listener.active, listener.undecided), (3, 2, 1))
        route = route_of(self.counts(), "a")
        self.assertEqual((route.matches, route.active, route.ended["done"]), (2, 1, 1))
        self.assertEqual(route.last_match, 1000.5)
        (listener,) = self.counts().listeners  # histogram
        self.assertEqual(listener.detect.buckets[:3], [(0.001, 0), (0.0025, 2), (0.005, 2)])
        self.assertEqual((listener.detect.count, listener.detect.sum), (2, 0.004))
        self.assertEqual(listener.detect_bytes.buckets[0], (1, 2))
        self.assertEqual(listener.detect_bytes.buckets[-1], (32768, 2))

    def test_connections_of_a_crashed_process_have_ended(self) -> None:
        column = worker_of(self.counters, 1)
        column.server("127.0.0.1:22", "127.0.0.1:22").connected()
        self.begin(column, "a")
        self.begin(column, "a")
        self.end(column, "a")
        self.begin(column)
        column.backend("127.0.0.1:22").held()
        self.assertEqual(self.counters.held(), {"127.0.0.1:22": 1})
        self.assertEqual(self.counters.ended(1), 2)
        self.assertEqual(self.counters.held(), {})
        counts = self.counts()
        (listener,) = counts.listeners
        self.assertEqual((listener.total, listener.active, listener.undecided), (3, 0, 0))
        self.assertEqual(route_of(counts, "a").ended["crashed"], 1)
        self.assertEqual(route_of(counts, NO_ROUTE).ended["crashed"], 1)
        self.assertEqual([(one.total, one.active) for one in counts.servers], [(1, 0)])
        self.assertEqual(self.counters.ended(1), 0)
        self.begin(worker_of(self.counters, 1), "a")
        self.assertEqual(route_of(self.counts(), "a").matches, 3)
        self.assertEqual(route_of(self.counts(), "a").active, 1)

    def test_what_the_layout_lacks_is_counted_by_one_process_alone(self) -> None:
        column = worker_of(self.counters, 1)
        others = column.tolist()
        column.layout.places["backend\nbeyond"] = len(column.cells) - 1
        for name in ("lacking", "beyond"):
            for _ in range(2):
                column.backend(name).held()
            self.assertEqual(max(column.block(f"backend\n{name}")), 2)
        self.assertEqual(column.tolist(), others)

    def test_connection_moved_to_another_process_counts_once(self) -> None:
        first, second = (worker_of(self.counters, number) for number in (1, 2))
        self.begin(first, "a")
        first.listener("public").moved_away(first.route("public", "a"))
        second.listener("public").adopted(second.route("public", "a"))
        self.assertEqual(self.counters.ended(1), 0)
        self.assertEqual(route_of(self.counts(), "a").active, 1)
        self.assertEqual(self.counts().listeners[0].total, 1)
        self.assertEqual(self.counters.ended(2), 1)
        self.assertEqual(route_of(self.counts(), "a").active, 0)

    def test_other_rules_get_room_in_the_same_memory(self) -> None:
        column = worker_of(self.counters, 1)
        old = column.route("public", "a")
        self.begin(column, "a")
        more = parse(RULES.replace("route a", "route c") + MORE, PATH)
        self.counters.extend(more)
        layout = self.counters.layout
        column.layout.places.update(layout.changes(column.layout.places)[0])
        column.layout.cells = layout.cells
        column.remap()
        self.begin(column, "b")
        record = ConnectionRecord(time=2000.0, id="x", listener="public", client="?")
        old.matched(record)  # a connection of older rules
        told = self.counts(more)
        self.assertEqual(
            [(one.listener, one.route) for one in told.routes],
            [(name, route) for name in ("public", "other") for route in ("c", "b", "")],
        )
        self.assertEqual(route_of(told, "b").matches, 1)
        self.assertEqual(route_of(self.counts(), "a").matches, 2)

    def test_room_for_20000_new_routes(self) -> None:
        column = worker_of(self.counters, 1)
        self.begin(column, "a")
        names = [f"r{number}" for number in range(20_000)]
        (first,) = self.rules.routes
        more = (attrs.evolve(first, name=name) for name in names)  # to parse them takes seconds
        rules = attrs.evolve(self.rules, routes=(first, *more))
        self.counters.extend(rules)
        column.layout.places.update(self.counters.layout.changes(column.layout.places)[0])
        column.layout.cells = self.counters.layout.cells
        column.remap()
        self.begin(column, names[-1])
        counts = self.counts(rules)
        self.assertEqual(route_of(counts, names[-1]).matches, 1)
        self.assertEqual(route_of(counts, "a").matches, 1)
        self.assertEqual(len([*counts.routes]), 20_002)

    def named(self, number: int) -> Rules:
        return parse(RULES.replace("route a", f"route r{number}"), PATH)

    def test_room_of_forgotten_routes_is_reused_from_zero(self) -> None:
        sizes = []
        for number in range(1, 30):
            rules = self.named(number)
            self.counters.extend(rules, number)
            column = worker_of(self.counters, 1)
            self.assertEqual(route_of(self.counts(rules), f"r{number}").matches, 0)
            self.begin(column, f"r{number}")
            self.assertEqual(route_of(self.counts(rules), f"r{number}").matches, 1)
            self.counters.forget({1, number + 1})  # a connection of the first ones goes on
            sizes.append((self.counters.layout.cells, len(self.counters.layout.places)))
        self.assertEqual(sizes[5], sizes[-1])

    def test_counters_of_older_rules_stay_while_a_connection_uses_them(self) -> None:
        self.begin(worker_of(self.counters, 1), "a")
        for number in range(1, 6):
            self.counters.extend(self.named(number), number)
            self.counters.forget({1, number + 1})
        self.counters.extend(self.rules, 6)
        self.assertEqual(route_of(self.counts(), "a").matches, 1)
        for number in range(7, 9):
            self.counters.extend(self.named(number), number)
            self.counters.forget({number + 1})
        self.counters.extend(self.rules, 9)
        self.assertEqual(route_of(self.counts(), "a").matches, 0)

    def test_seen_twice(self) -> None:
        """A connection that is on its way to another process is seen by none of them for a moment, so one look is not enough."""
        self.counters.extend(self.named(1), 1)
        for versions, is_there in (({2}, True), ({1, 2}, True), ({2}, True), ({2}, False)):
            self.counters.forget(versions)
            self.assertEqual("route\npublic\na" in self.counters.layout.places, is_there)
        self.assertFalse(self.counters.has_connections("public"))  # has connections
        self.begin(worker_of(self.counters, 1), "a")
        self.assertTrue(self.counters.has_connections("public"))
        self.assertFalse(self.counters.has_connections("other"))
        self.counters.ended(1)
        self.assertFalse(self.counters.has_connections("public"))

    def test_counters_in_use_survive_refused_rules(self) -> None:
        column = worker_of(self.counters, 1)
        for number in range(3):
            self.counters.extend(self.named(number), 1)
            self.counters.forget({1})
        self.begin(column, "a")
        self.assertEqual(route_of(self.counts(), "a").matches, 1)

    # A process has written anything into its counters, and what it has started still does.
    def test_successor(self) -> None:
        old = worker_of(self.counters, 1)
        self.begin(old, "a")
        overwrite(old)
        self.counts()
        self.counters.ended(1)
        self.counts()
        successor = worker_of(self.counters, 1)
        overwrite(old)
        before = route_of(self.counts(), "a").matches
        self.begin(successor, "a")
        self.end(successor, "a")
        self.assertEqual(route_of(self.counts(), "a").matches, before + 1)
        self.assertEqual(self.counters.ended(1), 0)

    def test_former_program(self) -> None:
        overwrite(worker_of(self.counters, 1))
        new = Counters()
        new.extend(self.rules)
        arguments, descriptors = self.counters.programs()[0].handed_over()
        reads, writes = os.pipe()
        os.set_blocking(reads, False)
        new.adopt([reads, *map(os.dup, descriptors[1:])], **arguments)
        os.write(writes, bytes(100))
        new.others_ended()
        self.assertEqual(len(new.others), 1)
        os.close(writes)
        new.others_ended()
        self.assertEqual(new.others, [])
        self.begin(worker_of(new, 1), "a")
        self.assertGreater(route_of(counts_of(new, self.rules), "a").matches, 2**63)
