"""Limits for sources that hold for several processes together."""

import contextlib
import gc
import os
import random
import resource
import sys
from array import array
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import Child
from txmux.access import across_processes
from txmux.access.across_processes import SharedLimits
from txmux.access.admission import Admission, Refused, Tally
from txmux.access.per_source import Permit, source_of
from txmux.rules.model import Listener, Rules
from txmux.rules.reading.parser import parse
from txmux.telemetry.reasons import LimitName
from txmux.wire.proxyprotocol.header import Address

CLIENT = Address(ip_address("192.0.2.1"), 40000)

RULES = """
[txmux]
workers = 2
max_connections = 3

[listen plain]
endpoint = 127.0.0.1:0

[listen counted]
endpoint = 127.0.0.1:0
max_connections_per_source = 2

[listen timed]
endpoint = 127.0.0.1:0
max_connections = 2
connection_rate_per_source = 1/s burst=3
"""

RACED = """
[listen raced]
endpoint = 127.0.0.1:0
max_connections_per_source = 1
"""

# Comes and goes as fast as it can, beside ever new sources, and tells the most that the one source has had.
SOURCES = """
per_source = limits.per_source(listener, worker, time.time)
table = limits._tables["raced"]
for number in range(20000):
    permit = per_source.enter(7)
    if permit is None:
        refused += 1
    else:
        most = max(most, table.total(table.find(7, 0)) % 2**32)
        permit.release()
    if not number % 8:
        per_source.enter(random.getrandbits(64)).release()
"""

# Takes and gives back as fast as it can, with as many in its hands as it gets, and tells the most of all workers.
TALLIES = """
tally = limits.tally(3, "", worker)
for _ in range(3000):
    taken = 0
    while tally.take():
        taken += 1
        most = max(most, sum(limits._row("")))
    refused += 1
    for _ in range(taken):
        tally.give_back()
"""

# Does not let go of what the others wait for.
HOLDER = """
with limits._lock:
    print("it is held", flush=True)
    sys.stdin.read()
"""

# Counts, and is counted.
WAITING = """
tally = limits.tally(3, "", worker)
most = sum(tally.take() for _ in range(4))
limits.clear_expected()
"""

RACER = """
import os, random, sys, time
from txmux.access.across_processes import LimitsLayout, SharedLimits
from txmux.rules.reading.parser import parse
rules = parse({rules!r}, "x")
(listener,) = rules.listeners
worker = {worker}
layout = LimitsLayout({columns})
layout.extend(rules)
limits = SharedLimits(os.open("/proc/{parent}/fd/{descriptor}", os.O_RDWR), layout)
most = refused = 0
print("racing", flush=True)
sys.stdin.read(1)
{race}
print("most", most, "refused", refused)
"""


class SharedLimitsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rules = parse(RULES, "x")
        self.limits = SharedLimits.make(self.rules, 2)
        self.addCleanup(self.limits.close)
        self.made = [self.limits.admissions(worker, self.clock.seconds, 3) for worker in (0, 1)]

    def use(self, text: str, most: int = 0) -> None:
        """Have both workers use other rules."""
        self.rules = parse(text, "x")
        self.limits.extend(self.rules)
        self.made = [self.limits.admissions(one, self.clock.seconds, most) for one in (0, 1)]

    def admissions(self, name: str) -> list[Admission]:
        (listener,) = (one for one in self.rules.listeners if one.name == name)
        return [make(listener) for make in self.made]

    def assert_refused(self, admission: Admission) -> None:
        refused = self.assertRaises(Refused, admission.enter, CLIENT)
        self.assertEqual(refused.reason, "limit")

    def test_what_is_needed(self) -> None:
        """There is a table for each listener that counts sources, and none for the others."""
        self.assertEqual(set(self.limits._tables), {"counted", "timed"})

    def test_source_counts_in_both_workers(self) -> None:
        one, other = self.admissions("counted")
        permit = one.enter(CLIENT)
        other.enter(CLIENT)
        self.assert_refused(one)
        self.assert_refused(other)
        one.leave(permit)
        other.enter(CLIENT)
        self.assert_refused(one)

    def test_rate_counts_in_both_workers(self) -> None:
        one, other = self.admissions("timed")
        for worker in (one, other, one):
            worker.leave(worker.enter(CLIENT))
        self.assert_refused(other)
        self.clock.advance(1)
        other.leave(other.enter(CLIENT))
        self.assert_refused(one)

    def test_limits_of_listener_and_service_count_in_both_workers(self) -> None:
        one, other = self.admissions("timed")
        one.enter(CLIENT)
        other.enter(CLIENT)
        self.assert_refused(one)
        plain, beside = self.admissions("plain")
        plain.enter(CLIENT)
        self.assert_refused(beside)

    def test_other_rules(self) -> None:
        """Connections go on counting under other rules, for listeners that have the name, and those that are new begin."""
        (one, _), (plain, _) = self.admissions("counted"), self.admissions("plain")
        one.enter(CLIENT)
        plain.enter(CLIENT)
        more = "[listen new]\nendpoint = 127.0.0.1:0\nconnection_rate_per_source = 1/s burst=1\n"
        self.use(RULES.replace("[listen plain]", "[listen plain]\nmax_connections = 1") + more)
        _, other = self.admissions("counted")
        other.enter(CLIENT)
        self.assert_refused(other)
        same, _ = self.admissions("plain")
        self.assert_refused(same)
        plain.leave(None)
        same.enter(CLIENT)
        new, beside = self.admissions("new")
        new.enter(CLIENT)
        self.assert_refused(beside)

    def test_counts_of_a_worker_that_has_ended_are_dropped(self) -> None:
        gone, left = self.admissions("counted")
        gone.enter(CLIENT)
        left.enter(CLIENT)
        self.limits.clear(0)
        left.enter(CLIENT)
        self.assert_refused(left)

    def test_grown_by_a_worker(self) -> None:
        """There is room for what other rules count, also where a worker has made the memory larger."""
        os.ftruncate(self.limits.descriptor, 1 << 30)
        self.use(f"{RULES}[listen new]\nendpoint = 127.0.0.1:0\n", most=1)
        one, other = self.admissions("new")
        one.enter(CLIENT)
        self.assert_refused(other)

    def test_no_room(self) -> None:
        """Where there is no room for other rules, all is as before, and they have their room once there is some."""
        text = f"{RULES}[listen new]\nendpoint = 127.0.0.1:0\nmax_connections_per_source = 1\n"
        before, (soft, hard) = self.limits.layout, resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (before.size, hard))
        try:
            self.assertRaises(OSError, self.limits.extend, parse(text, "x"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertNotIn("new", self.limits.layout.tables)
        self.use(text)
        one, other = self.admissions("new")
        one.enter(CLIENT)
        self.assert_refused(other)


def limited(*names: str) -> Rules:
    keys = "endpoint = 127.0.0.1:0\nmax_connections = 2\nconnection_rate_per_source = 1/s burst=4\n"
    return parse("".join(f"[listen {name}]\n{keys}" for name in names), "x")


def named(rules: Rules, name: str) -> Listener:
    return next(one for one in rules.listeners if one.name == name)


class RemovedListenersTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.in_force, self.pending = {"a", "b"}, set[str]()
        self.limits = SharedLimits.make(
            limited("a", "b"), 16, lambda names: {*names} & (self.in_force | self.pending)
        )
        self.addCleanup(self.limits.close)
        self.worker = SharedLimits(os.dup(self.limits.descriptor), self.limits.layout)
        self.addCleanup(self.worker.close)
        self.use("a", "b")

    def use(self, *names: str) -> None:
        self.extend(*names)
        self.in_force = {*names}

    def extend(self, *names: str) -> None:
        self.rules = limited(*names)
        self.limits.extend(self.rules)
        self.worker.use(self.limits.layout)

    def admission(self, name: str, number: int = 1) -> Admission:
        """Give that of a listener in a worker; of two in this process, the parent's counts for the second."""
        service = self.worker if number == 1 else self.limits
        return service.admissions(number, self.clock.seconds, 0)(named(self.rules, name))

    def admitted(self, admission: Admission) -> int:
        """Tell how many clients are let in, each of a source of its own; all leave again."""
        permits: list[Permit | None] = []
        with contextlib.suppress(Refused):
            while True:
                host = f"198.51.100.{len(permits)}"
                permits.append(admission.enter(Address(ip_address(host), 1)))
        for permit in permits:
            admission.leave(permit)
        return len(permits)

    def used(self) -> tuple[int, int, int, int]:
        maps = Path("/proc/self/maps").read_text().count("txmux limits")
        return (
            os.fstat(self.limits.descriptor).st_size,
            len([*Path("/proc/self/fd").iterdir()]),
            maps,
            len(self.worker._counters),
        )

    def test_new_names(self) -> None:
        """However often listeners get new names, nothing grows, and a connection that goes on counts for its own listener."""
        kept = self.admission("a")
        permit = kept.enter(CLIENT)
        usages = []
        for number in range(120):
            self.use("b", f"c{number}")
            for name in ("b", f"c{number}"):
                self.assertEqual(self.admitted(self.admission(name)), 2)
            self.clock.advance(2)
            usages.append(self.used())
        self.assertEqual(usages[2:], [usages[2]] * 118)
        self.use("a")
        self.assertEqual(self.admitted(self.admission("a", 2)), 1)
        kept.leave(permit)
        self.assertEqual(self.admitted(self.admission("a", 2)), 2)

    def test_many_kept(self) -> None:
        """Where each listener keeps a connection, the memory is mapped anew a few times only."""
        self.addCleanup(gc.collect)
        before = self.used()
        admissions = []
        for number in range(60):
            self.use(f"c{number}")
            admissions.append(self.admission(f"c{number}"))
            admissions[-1].enter(CLIENT)
        _, descriptors, maps, _ = self.used()
        self.assertLess(descriptors - before[1], 16)
        self.assertLess(maps - before[2], 16)

    def test_exact(self) -> None:
        """Whoever comes, goes and keeps connections while listeners go and come back, each has its limit."""
        choose = random.Random(1)
        held: list[tuple[str, Admission, Permit | None]] = []
        for number in range(2000):
            if choose.random() < 0.1:
                self.use(*choose.sample("abcdef", 3))
            elif choose.random() < 0.5 and held:
                _, admission, permit = held.pop(choose.randrange(len(held)))
                admission.leave(permit)
            else:
                name = choose.choice([*self.in_force])
                admission = self.admission(name, choose.choice((1, 2)))
                client = Address(ip_address(f"198.51.{number // 250}.{number % 250}"), 1)
                if sum(one == name for one, _, _ in held) < 2:
                    held.append((name, admission, admission.enter(client)))
                else:
                    self.assertRaises(Refused, admission.enter, client)

    def test_row_of_a_connection_on_its_way_is_kept(self) -> None:
        self.admission("a").enter(CLIENT)
        self.admission("a").move_away(None)
        self.use("b")
        self.use("b", "c")
        self.assertEqual(self.admitted(self.admission("c")), 2)
        self.use("a", "b")
        self.assertEqual(self.admitted(self.admission("a")), 1)

    def test_row_of_an_expected_connection_is_kept(self) -> None:
        self.limits.expect({"counts": {"a": 1}}, self.clock.seconds())
        self.use("b")
        self.use("b", "c")
        self.assertEqual(self.admitted(self.admission("c")), 2)
        self.limits.expect_no_more()
        self.use("c", "d")
        self.assertNotIn("a", self.limits.layout.rows)

    def test_row_of_a_connection_not_yet_admitted_is_kept(self) -> None:
        pending = self.admission("a")
        self.pending = {"a"}
        self.use("b")
        self.use("b", "c")
        pending.enter(CLIENT)
        self.assertEqual(self.admitted(self.admission("c")), 2)

    def test_refused_rules(self) -> None:
        """Listeners of the rules in force keep their places, whatever rules are refused."""
        one = self.admission("a")
        for number in range(3):
            self.extend(f"refused{number}")
        self.extend("a", "b", "c")
        one.enter(CLIENT)
        self.assertEqual(self.admitted(self.admission("a", 2)), 1)
        self.assertEqual(self.admitted(self.admission("c")), 2)

    def test_rates_of_a_removed_listener_are_dropped(self) -> None:
        self.visit("a")
        table = self.limits.layout.tables["a"]
        self.use("b")
        self.use("b", "c")
        self.assertEqual(self.limits.layout.tables["c"], table)
        self.visit("c")

    def visit(self, name: str) -> None:
        """Let one source in as often as it may come at once."""
        one = self.admission(name)
        for _ in range(4):
            one.leave(one.enter(CLIENT))
        self.assertRaises(Refused, one.enter, CLIENT)


class SparseTest(SynchronousTestCase):
    def setUp(self) -> None:
        """Make the memory for many workers, so that slots are not of a length that pages are a multiple of."""
        self.limits = SharedLimits.make(parse(RULES, "x"), 16)
        self.addCleanup(self.limits.close)
        self.clock = Clock()
        self.clock.advance(1000)
        make = self.limits.admissions(5, self.clock.seconds, 0)
        *_, timed = parse(RULES.replace("max_connections = 2", ""), "x").listeners
        self.timed = make(timed)

    def enter(self, count: int) -> set[int]:
        hosts = [f"198.51.{number // 250}.{number % 250}" for number in range(count)]
        for host in hosts:
            self.timed.enter(Address(ip_address(host), 40000))
        return {source_of(ip_address(host)) for host in hosts}

    def used(self) -> int:
        return os.fstat(self.limits.descriptor).st_blocks * 512

    def test_told(self) -> None:
        """What is told are all those that are known, and only what was used is looked at: the memory does not grow."""
        sources, before = self.enter(1000), self.used()
        per_source = self.timed.per_source
        assert per_source is not None
        told = array("Q")
        told.frombytes(per_source.buckets())
        self.assertEqual(set(told[::2]), sources)
        self.assertEqual(set(told[1::2]), {10**9})
        self.assertEqual(per_source.tracked(), 1000)
        self.limits.clear(5)
        self.clock.advance(1)
        self.assertEqual((per_source.buckets(), per_source.tracked()), (b"", 0))
        self.assertLess(self.used() - before, 2**18)

    def test_all(self) -> None:
        """Where the system does not tell what was used, all is looked at, with the same outcome."""
        sources = self.enter(10)
        self.patch(across_processes, "os", SimpleNamespace(lseek=os.lseek, close=os.close))
        per_source = self.timed.per_source
        assert per_source is not None
        told = array("Q")
        told.frombytes(per_source.buckets())
        self.assertEqual(set(told[::2]), sources)


class SharedTallyTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.limits = SharedLimits.make(parse(RACED, "x"), 2)
        self.addCleanup(self.limits.close)

    def tally(self, worker: int, name: str = "raced", limit: int = 3) -> Tally:
        return self.limits.tally(limit, name, worker)

    def test_worker_gone(self) -> None:
        gone, left = self.tally(0), self.tally(1)
        for _ in range(2):
            gone.take()
        left.take()
        self.limits.clear(0)
        self.assertEqual([left.take(), left.take(), left.take()], [True, True, False])


class ExpectedTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.old, self.new = (self.service() for _ in range(2))
        for worker, host in ((1, "192.0.2.1"), (2, "192.0.2.1"), (2, "192.0.2.2")):
            self.admission(self.old, worker).enter(Address(ip_address(host), 40000))
        self.new.expect(self.old.as_json(), self.clock.seconds())

    def service(self) -> SharedLimits:
        made = SharedLimits.make(parse(RULES, "x"), 2)
        self.addCleanup(made.close)
        return made

    def admission(self, service: SharedLimits, worker: int, most: int = 0) -> Admission:
        make = service.admissions(worker, self.clock.seconds, most)
        return make(next(one for one in parse(RULES, "x").listeners if one.name == "counted"))

    def refused(self, host: str = "192.0.2.9", most: int = 0) -> LimitName | None:
        """Tell for which limit a client is refused; one that is let in leaves again."""
        admission = self.admission(self.new, 1, most)
        try:
            permit = admission.enter(Address(ip_address(host), 40000))
        except Refused as refused:
            return refused.limit
        admission.leave(permit)
        return None

    def adopt(self, host: str) -> None:
        self.admission(self.new, 2).adopt(Address(ip_address(host), 40000))

    def test_counted(self) -> None:
        """They count before they have come, and once when they have, whoever adopts them."""
        come = ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        for host in ("", *come):
            if host:
                self.adopt(host)
            self.assertEqual(self.refused(most=3), "txmux.max_connections")
            self.assertIsNone(self.refused(most=4))
            self.assertEqual(self.refused("192.0.2.1"), "max_connections_per_source")
            self.assertIsNone(self.refused("192.0.2.2"))
        self.assertEqual(self.new.as_json()["counts"][""], 3)
        self.new.expect_no_more()
        self.assertEqual(self.new.as_json()["counts"][""], 3)
        self.assertEqual(self.refused("192.0.2.1"), "max_connections_per_source")

    def test_expected_connections_that_never_come_count_no_more(self) -> None:
        self.adopt("192.0.2.2")
        self.new.expect_no_more()
        self.assertIsNone(self.refused(most=2))
        self.assertEqual(self.refused(most=1), "txmux.max_connections")
        self.assertIsNone(self.refused("192.0.2.1"))

    def test_overwritten_counts(self) -> None:
        """A compromised worker may write to the memory, but does not keep an upgrade from happening."""
        row = self.old._row("")
        row[1] = row[2] = 2**64 - 1
        self.new.expect(self.old.as_json(), self.clock.seconds())
        self.assertEqual(self.refused(most=5), "txmux.max_connections")

    def test_unexpected_connection_counts(self) -> None:
        for host in ("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"):
            self.adopt(host)
        self.assertEqual(self.refused(most=4), "txmux.max_connections")
        self.assertIsNone(self.refused(most=5))


class RaceTest(SynchronousTestCase):
    def race(self, program: str) -> list[int]:
        self.rules = parse(RACED, "x")
        self.limits = SharedLimits.make(self.rules, 2)
        self.addCleanup(self.limits.close)
        racers = [self.start_racer(program, worker) for worker in (1, 2)]
        for racer in racers:
            racer.wait_for("racing")
        for racer in racers:
            racer.say(b"go")
        found = [int(racer.wait_for(r"most (\d+) refused \d+")[1]) for racer in racers]
        self.assertEqual([racer.wait() for racer in racers], [0, 0])
        return found

    def start_racer(self, program: str, worker: int) -> Child:
        filled = RACER.format(
            rules=RACED,
            worker=worker,
            columns=self.limits.layout.columns,
            parent=os.getpid(),
            descriptor=self.limits.descriptor,
            race=program,
        )
        child = Child(sys.executable, "-c", filled, stdin=True)
        self.addCleanup(child.end)
        return child

    def test_held(self) -> None:
        """One that is halted while it counts keeps the others waiting for a moment only: the supervisor has to be able to replace it."""
        self.limits = SharedLimits.make(parse(RACED, "x"), 2)
        self.addCleanup(self.limits.close)
        holder, waiting = self.start_racer(HOLDER, 1), self.start_racer(WAITING, 2)
        holder.wait_for("racing")
        holder.process.stdin.write(b"go")  # type: ignore[union-attr]
        holder.process.stdin.flush()  # type: ignore[union-attr]
        holder.wait_for("it is held")
        waiting.wait_for("racing")
        waiting.say(b"go")
        self.assertEqual(waiting.wait_for(r"most (\d+)")[1], "3")

    def test_tally_never_exceeds_its_limit(self) -> None:
        self.assertLessEqual(max(self.race(TALLIES)), 3)

    def test_sources(self) -> None:
        """However they compete, a source never has more than its limit, and nothing is left in the end."""
        self.assertEqual(self.race(SOURCES), [1, 1])
        per_source = self.limits.per_source(self.rules.listeners[0], 0, Clock().seconds)
        assert per_source is not None
        self.assertIsNotNone(per_source.enter(7))
        self.assertIsNotNone(per_source.enter(source_of(ip_address("192.0.2.1"))))
