import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.steps import counts_of
from txmux.rules.model import Rules
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counter_groups import CELL, LISTENER, NO_ROUTE, SERVER, RouteTotals
from txmux.telemetry.counting.counters import Counters, ServerChanges
from txmux.telemetry.counting.process_counters import CounterLayout, ProcessCounters, keys_of
from txmux.telemetry.counting.snapshot import Counts, server_samples, totals, unrouted
from txmux.telemetry.record import ConnectionRecord

PATH = Path("rules.ini")
_RULES = "[listen {}]\nendpoint = 127.0.0.1:0\n[route {}]\nunder = *\nmatch = {}\nbackend = {}\n"
RULES = _RULES.format("public", "a", "ssh", "127.0.0.1:22")
MORE = _RULES.format("other", "b", "any", "127.0.0.1:80")

_TIMES: dict[str, Any] = {"time": 1000.5, "detect_ms": 2.0, "duration_ms": 70.0}
RECORD = ConnectionRecord(id="x", listener="public", client="?", **_TIMES)
SSH = "127.0.0.1:22", "127.0.0.1:22"


def begin(column: ProcessCounters, route: str = NO_ROUTE) -> None:
    listener = column.listener("public")
    listener.accepted()
    if route:
        column.route("public", route).matched(RECORD)
        listener.decided(RECORD)


def end(column: ProcessCounters) -> None:
    column.listener("public").connection_ended(column.route("public", "a"), RECORD, "done")


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

    def follow(self, column: ProcessCounters) -> None:
        """Have a worker learn of the places that have been added."""
        column.layout.places.update(self.counters.layout.changes(column.layout.places)[0])
        column.layout.cells = self.counters.layout.cells
        column.remap()

    def test_sums_of_processes_and_live_ones_by_difference(self) -> None:
        first, second = (worker_of(self.counters, number) for number in (1, 2))
        begin(first, "a")
        begin(second, "a")
        begin(second)
        end(first)
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
        server, name = first.server(*SSH), "public"
        self.assertEqual(server_samples(self.counters), {})
        server.connected()
        server.answered(first.backend(SSH[0]), 2.0)
        self.assertEqual(server_samples(self.counters), {SSH: (1, 1, 2000)})
        first.listener(name).relayed(first.route(name, NO_ROUTE), None, 3, 5)
        second.listener(name).connection_ended(second.route(name, NO_ROUTE), RECORD, "silent")
        self.assertEqual(totals(self.counters, ["public", "public"]), (6, 2, 6, 10))
        self.assertEqual(totals(self.counters, []), (0, 0, 0, 0))
        ended = {"ended": 1, "bytes_in": 3, "bytes_out": 5}
        self.assertEqual(unrouted(self.counters, ["public"]), ended)
        used = {(one.listener, one.route): one.matches for one in self.counts().routes.used()}
        self.assertEqual(used, {("public", "a"): 2, ("public", NO_ROUTE): 0})

    def test_connections_of_a_crashed_process_have_ended(self) -> None:
        column = worker_of(self.counters, 1)
        column.server(*SSH).connected()
        begin(column, "a")
        begin(column, "a")
        end(column)
        begin(column)
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
        begin(worker_of(self.counters, 1), "a")
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
        begin(first, "a")
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
        begin(column, "a")
        more = parse(RULES.replace("route a", "route c") + MORE, PATH)
        self.counters.extend(more)
        self.follow(column)
        begin(column, "b")
        record = ConnectionRecord(time=2000.0, id="x", listener="public", client="?")
        old.matched(record)  # a connection of older rules
        told = self.counts(more)
        expected = [(name, route) for name in ("public", "other") for route in ("c", "b", "")]
        self.assertEqual([(one.listener, one.route) for one in told.routes], expected)
        self.assertEqual(route_of(told, "b").matches, 1)
        self.assertEqual(route_of(self.counts(), "a").matches, 2)

    def test_routes_inside_tls_and_silent_clients(self) -> None:
        """Each route has one place, whatever leads to it."""
        (first,) = self.rules.routes
        tls: Any = True
        a = attrs.evolve(first, terminate_tls=tls)
        b = attrs.evolve(a, name="b", under=("a",))
        c = attrs.evolve(first, name="c", under=("a", "b"))
        silent = parse(RULES.replace("0\n", "0\nsilent = close\n"), PATH)
        rules = attrs.evolve(silent, routes=(a, b, c))
        names = ["a", "b", "c", "silent", ""]
        keys = [key for key in keys_of(rules) if key.startswith("route")]
        self.assertEqual(sorted(keys), sorted(f"route\npublic\n{name}" for name in names))
        self.counters.extend(rules)
        self.assertEqual([one.route for one in self.counts(rules).routes], names)
        self.assertEqual([ProcessCounters().inode, self.counters.column(1).inode > 0], [0, True])
        # What is under a listener is not under a route of its name.
        route = "[route {1}]\nunder = {0}\nmatch = any\nbackend = close\n"
        text = f"[listen {{0}}]\nendpoint = :0\n{route}"
        rules = parse(text.format("a", "b") + text.format("b", "c"), PATH)
        found = {key for key in keys_of(rules) if key.startswith("route")}
        self.assertEqual(found, {"route\na\n", "route\na\nb", "route\nb\n", "route\nb\nc"})

    def test_room_for_20000_new_routes(self) -> None:
        column = worker_of(self.counters, 1)
        begin(column, "a")
        names = [f"r{number}" for number in range(20_000)]
        (first,) = self.rules.routes
        more = (attrs.evolve(first, name=name) for name in names)  # to parse them takes seconds
        rules = attrs.evolve(self.rules, routes=(first, *more))
        self.counters.extend(rules)
        self.follow(column)
        begin(column, names[-1])
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
            begin(column, f"r{number}")
            self.assertEqual(route_of(self.counts(rules), f"r{number}").matches, 1)
            self.counters.forget({1, number + 1})  # a connection of the first ones goes on
            sizes.append((self.counters.layout.cells, len(self.counters.layout.places)))
        self.assertEqual(sizes[5], sizes[-1])

    def test_counters_of_older_rules_stay_while_a_connection_uses_them(self) -> None:
        begin(worker_of(self.counters, 1), "a")
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
        begin(worker_of(self.counters, 1), "a")
        self.assertTrue(self.counters.has_connections("public"))
        self.assertFalse(self.counters.has_connections("other"))
        self.counters.ended(1)
        self.assertFalse(self.counters.has_connections("public"))

    def test_counters_in_use_survive_refused_rules(self) -> None:
        column = worker_of(self.counters, 1)
        for number in range(3):
            self.counters.extend(self.named(number), 1)
            self.counters.forget({1})
        begin(column, "a")
        self.assertEqual(route_of(self.counts(), "a").matches, 1)

    # A process has written anything into its counters, and what it has started still does.
    def test_successor(self) -> None:
        old = worker_of(self.counters, 1)
        begin(old, "a")
        overwrite(old)
        self.counts()
        self.counters.ended(1)
        self.counts()
        successor = worker_of(self.counters, 1)
        overwrite(old)
        before = route_of(self.counts(), "a").matches
        begin(successor, "a")
        end(successor)
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
        begin(worker_of(new, 1), "a")
        self.assertGreater(route_of(counts_of(new, self.rules), "a").matches, 2**63)


_NAMES = st.sampled_from(("a", "b", "c"))
_ROUNDS = st.lists(st.lists(st.tuples(st.integers(0, 2), _NAMES)))
"""For each reading, the processes in which a connection to a server has ended without an answer."""


def _cannot(*_: object) -> int:
    raise OSError(errno.EINVAL, "Invalid argument")


def _unanswered(changes: ServerChanges) -> dict[tuple[str, str], int]:
    at = SERVER.names.index("unanswered")
    return {key: cells[at] for key, (cells, *_) in changes.take().items()}


class ServerChangesTest(SynchronousTestCase):
    @given(_ROUNDS)
    def test_sums_over_processes_since_the_last_reading(
        self, rounds: list[list[tuple[int, str]]]
    ) -> None:
        counters = Counters()
        changes = ServerChanges(counters)
        known: set[str] = set()
        for events in rounds:
            expected: dict[tuple[str, str], int] = {}
            for process, name in events:
                column = counters.column(process)
                if name not in known:
                    known.add(name)
                    counters.layout.extend([LISTENER.key(name), SERVER.key("x", name)])
                    for number in range(3):
                        counters.grow(counters.column(number))
                column.server("x", name).unanswered()
                expected["x", name] = expected.get(("x", name), 0) + 1
            self.assertEqual(_unanswered(changes), expected)

    def test_less_than_before(self) -> None:
        counters = Counters()
        changes = ServerChanges(counters)
        counters.layout.extend([SERVER.key("x", "a")])
        counts = counters.column(1).server("x", "a")
        counts.asked(7)
        counts.checked(2.0)
        changes.take()
        counts.checked(1.0)
        ((cells, *_),) = changes.take().values()
        self.assertEqual(cells[SERVER.names.index("asked")], 0)
        for _ in range(5):  # block that gets another server
            counts.asked(7)
        changes.take()
        counts.cells[:] = memoryview(bytes(counts.cells.nbytes)).cast("Q")
        counts.asked(8)
        ((cells, sources, _),) = changes.take().values()
        self.assertEqual((cells[SERVER.names.index("asked")], sources), (1, {8}))

    def test_little_is_read_of_many(self) -> None:
        """Of what was ever counted in, or of all where the system cannot say what that is; each sees the same."""
        counters = Counters()
        changes = ServerChanges(counters)
        names = [str(number) for number in range(5000)]
        counters.layout.extend(SERVER.key("x", name) for name in names)
        column = counters.column(1)
        for is_known in (True, False):
            for name in ("0", "17", "18", "2500", "4999"):
                column.server("x", name).unanswered()
            (image,) = counters.images().values()
            read = sum(map(len, image.written))
            self.assertEqual(len(image.cells), column.layout.cells * CELL)
            self.assertEqual(read < len(image.cells) / 10, is_known)
            self.assertEqual(column.tolist(), column.cells[: column.layout.cells].tolist())
            few = ("x", "0"), ("x", "17"), ("x", "18"), ("x", "2500"), ("x", "4999")
            self.assertEqual(_unanswered(changes), dict.fromkeys(few, 1))
            self.patch(os, "lseek", _cannot)

    @given(st.lists(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)))))
    def test_sources_that_got_nothing(self, rounds: list[list[tuple[int, int]]]) -> None:
        """Of each process the last three that wait are known, and the last three that were reset, however often each came."""
        counters = Counters()
        changes = ServerChanges(counters)
        counters.layout.extend([SERVER.key("x", "a")])
        for number in range(4):
            counters.grow(counters.column(number))
        for events in rounds:
            last: dict[tuple[int, int], list[int]] = {}
            for process, source in events:
                counts = counters.column(process).server("x", "a")
                if source % 2:
                    counts.asked(source)
                else:
                    counts.failed("reset", source=source)
                its = last.setdefault((process, source % 2), [])
                its[:] = [source, *(one for one in its if one != source)]
            expected = {source for its in last.values() for source in its[:3]}
            waiting, reset = set[int](), set[int]()
            for _, its_waiting, its_reset in changes.take().values():
                waiting |= its_waiting
                reset |= its_reset
            self.assertEqual(waiting, {source for source in expected if source % 2})
            self.assertEqual(reset, {source for source in expected if not source % 2})


def connect(column: ProcessCounters) -> None:
    begin(column, "a")
    column.server(*SSH).connected()


def release(column: ProcessCounters) -> None:
    end(column)
    column.server(*SSH).released()


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
        connect(self.column)
        connect(self.column)
        release(self.column)
        self.hand_over()
        self.assertEqual(self.new.left_behind(), (1, 0))
        del self.old, self.column
        self.assertEqual(self.new.left_behind(), (0, 0))
        self.assertEqual(self.told(), (2, 0, 2, 1, 0))
        self.assertEqual(next(iter(counts_of(self.new, self.rules).routes)).ended["crashed"], 1)

    def test_third_program_has_the_counts_of_both(self) -> None:
        connect(self.column)
        release(self.column)
        self.column.server(*SSH).failed("connect-refused")
        self.hand_over()
        del self.column
        connect(self.new.column(1))
        self.new.column(1).server(*SSH).failed("reset")
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
        connect(self.column)
        connect(self.column)
        before = len([*Path("/proc/self/fd").iterdir()])
        self.hand_over()
        self.old, self.new, first = self.new, Counters(), self.old
        self.new.extend(self.rules)
        self.new.column(1)
        connect(self.old.column(1))
        self.hand_over()
        self.assertEqual(self.told(), (3, 3, 3, 0, 3))
        self.old = Counters()
        self.assertEqual(self.told(), (3, 2, 3, 0, 2))
        release(self.column)
        self.assertEqual(self.told(), (3, 1, 3, 1, 1))
        del self.column, first
        self.assertEqual(self.told(), (3, 0, 3, 1, 0))
        self.assertLessEqual(len([*Path("/proc/self/fd").iterdir()]), before)

    def test_program_with_other_cells_takes_known_numbers(self) -> None:
        connect(self.column)
        connect(self.column)
        release(self.column)
        self.hand_over(other_format=True)
        self.assertEqual(self.told(), (2, 0, 2, 1, 0))
        self.new.column(1).listener("public").adopted(self.new.column(1).route("public", "a"))
        self.assertEqual(self.told()[:2], (2, 1))

    def test_processes_that_the_next_program_supervises(self) -> None:
        """They are counted on; of those that had ended before, what was live has ended. What else is in a file comes after."""
        connect(self.column)
        connect(self.old.column(2))
        self.hand_over()
        first, _ = self.new.others[0].columns
        self.assertIsNone(self.new.adopt_process(1))
        self.new.others[0].pid = 1
        self.new.settle_dead([])
        self.assertEqual(self.told()[:2], (2, 2))  # another one supervises them
        self.new.others[0].pid = 2**22 + 1
        self.assertEqual(self.new.left_behind(), (0, 2))
        self.assertIs(self.new.adopt_process(first.inode), first)
        self.assertEqual(self.new.left_behind(), (2, 0))
        elsewhere = self.new.connections_elsewhere([SSH, ("x", "y")], ())
        self.assertEqual(elsewhere, {SSH: 2, ("x", "y"): 0})
        self.assertEqual(Counters().connections_elsewhere([SSH], [1]), {})
        self.new.settle_dead([first.inode])
        self.assertEqual((self.told(), self.new.others[0].columns), ((2, 1, 2, 0, 1), [first]))
        self.assertEqual(self.new.adopted_ended(first), 1)
        self.assertEqual(self.told(), (2, 0, 2, 0, 0))
        connect(self.new.column(1))
        self.assertEqual(self.new.connections_elsewhere([SSH], [1]), {SSH: 1})
        self.assertEqual((Counters.live_in(self.new.column(1)), Counters.live_in(None)), (1, 0))

    def test_forgotten_counters_do_not_come_back(self) -> None:
        connect(self.column)
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
