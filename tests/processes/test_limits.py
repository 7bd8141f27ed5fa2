"""Limits for sources that hold for several processes together."""

import contextlib
import gc
import itertools
import json
import os
import random
import resource
import sys
from array import array
from collections.abc import Callable, Container
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import Child
from tests.support.held import held_by
from tests.support.limits import lowered
from txmux.access import across_processes
from txmux.access.across_processes import SharedLimits
from txmux.access.admission import Admission, Refused, Tally
from txmux.access.per_source import Permit, source_of
from txmux.errors import MuxError
from txmux.rules.model import Listener, Rules
from txmux.rules.reading.parser import parse
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
table = limits.tables["raced"]
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
        most = max(most, sum(limits.row("")))
    refused += 1
    for _ in range(taken):
        tally.give_back()
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
        self.limits = self.enterContext(closing(SharedLimits.make(self.rules, 2)))
        self.made = [self.limits.admissions(worker, self.clock.seconds, 3) for worker in (0, 1)]
        # There is none for a listener that does not count sources.
        self.assertEqual(set(self.limits.tables), {"counted", "timed"})

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

    def test_all_count_in_both_workers(self) -> None:
        """The rates of sources, and the limits of a listener and of the service."""
        one, other = self.admissions("timed")
        for worker in (one, other, one):
            worker.leave(worker.enter(CLIENT))
        self.assert_refused(other)
        self.clock.advance(1)
        other.leave(other.enter(CLIENT))
        self.assert_refused(one)
        self.clock.advance(3)
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

    def test_no_room(self) -> None:
        """Where there is no room for other rules, all is as before, and they have their room once there is some, also where a worker has made it."""
        keys = "endpoint = 127.0.0.1:0\nmax_connections_per_source = 1\n"
        text = RULES + "".join(f"[listen new{number}]\n{keys}" for number in range(8))
        before = self.limits.layout
        with lowered(resource.RLIMIT_FSIZE, before.size):
            self.assertRaises(OSError, self.limits.extend, parse(text, "x"))
        self.assertEqual(self.limits.layout, before)
        for name, rules, most in (
            ("new0", text, 0),
            ("new", f"{text}[listen new]\nendpoint = 127.0.0.1:0\n", 2),
        ):
            self.use(rules, most)
            one, other = self.admissions(name)
            one.enter(CLIENT)
            self.assert_refused(other)
            os.ftruncate(self.limits.descriptor, 1 << 30)


def limited(*names: str) -> Rules:
    keys = "endpoint = 127.0.0.1:0\nmax_connections = 2\nconnection_rate_per_source = 1/s burst=4\n"
    return parse("".join(f"[listen {name}]\n{keys}" for name in names), "x")


def running(pids: Container[int]) -> Any:
    return patch.object(across_processes, "_is_running", pids.__contains__)


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
        self.worker.remap(self.limits.layout)

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
            held_by(self.worker),
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

    def test_rows_that_are_kept(self) -> None:
        # That of a connection on its way.
        self.admission("a").enter(CLIENT)
        self.admission("a").move_away(None)
        self.use("b")
        self.use("b", "c")
        self.assertEqual(self.admitted(self.admission("c")), 2)
        self.use("a", "b")
        self.assertEqual(self.admitted(self.admission("a")), 1)
        # That of one that is not yet admitted.
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
        table = self.limits.layout.tables["a"]
        for name in "ac":
            one = self.admission(name)
            for _ in range(4):  # as often as one source may come at once
                one.leave(one.enter(CLIENT))
            self.assertRaises(Refused, one.enter, CLIENT)
            self.use("b")
            self.use("b", "c")
            self.assertEqual(self.limits.layout.tables["c"], table)


class _Program:
    """A service of a chain of upgrades: its supervisor's view of the memory, and its workers."""

    def __init__(self, limits: SharedLimits, seconds: Callable[[], float]) -> None:
        self.limits = limits
        self.seconds = seconds
        self.has_supervisor = True
        self.workers: dict[int, int] = {}  # process IDs by number
        self.admissions: dict[int, Admission] = {}
        self.awaited: dict[int, Tally] = {}

    def start_worker(self, pid: int) -> None:
        number = 1 if 0 in self.workers else 0
        column = self.limits.assign(number, pid)
        self.workers[number] = pid
        its = SharedLimits(self.limits.descriptor, self.limits.layout)
        make = its.admissions(column, self.seconds, _SERVICE)
        self.admissions[number] = make(named(parse(_CHAIN, "x"), "a"))
        self.awaited[number] = its.awaited(column)


_SERVICE, _LISTENER, _SOURCE = 6, 5, 3
_CHAIN = f"""
[listen a]
endpoint = 127.0.0.1:0
max_connections = {_LISTENER}
max_connections_per_source = {_SOURCE}
[route all]
match = any
backend = 127.0.0.1:1
"""


class _Chain:
    """Services that take each other's place, and what each client should find."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.running: set[int] = set()
        self.pids = itertools.count(1)
        first = SharedLimits.make(parse(_CHAIN, "x"), 2)
        self.descriptor = first.descriptor
        self.programs = [_Program(first, self.clock.seconds)]
        self.open: list[tuple[_Program, int, str, Permit | None]] = []
        self.start_workers(self.programs[0])

    @property
    def serving(self) -> _Program:
        return self.programs[-1]

    def start_workers(self, program: _Program) -> None:
        while len(program.workers) < 2:
            self.running.add(pid := next(self.pids))
            program.start_worker(pid)

    def collect(self) -> None:
        """As supervisors do each second."""
        for program in self.programs:
            if program.has_supervisor:
                program.limits.collect()

    def enter(self, choice: int) -> None:
        number, host = choice % 2, f"192.0.2.{choice // 2 % 3}"
        self.collect()
        admission = self.serving.admissions[number]
        of_source = sum(host == its for *_, its, _ in self.open)
        has_room = len(self.open) < _LISTENER and of_source < _SOURCE
        try:
            permit = admission.enter(Address(ip_address(host), 1))
        except Refused:
            assert not has_room, "refused, although there is room"
        else:
            assert has_room, "more than the limit"
            self.open.append((self.serving, number, host, permit))

    def leave(self, choice: int) -> None:
        if self.open:
            program, number, _, permit = self.open.pop(choice % len(self.open))
            program.admissions[number].leave(permit)

    def move(self, choice: int) -> None:
        """Hand a connection over to a worker of the service that serves; meanwhile another client may come, and any worker die."""
        if not self.open:
            return
        program, number, host, permit = self.open.pop(choice % len(self.open))
        to, other = self.serving, choice // 2 % 2
        awaited, admission, pid = to.awaited[other], to.admissions[other], to.workers[other]
        sender, its_pid = program.admissions[number], program.workers[number]
        awaited.add()
        if choice % 3 == 1:
            self.kill(choice)
        if is_sent := its_pid in self.running:
            sender.move_away(permit)
            on_its_way = (_Program(to.limits, to.seconds), 0, host, None)
            self.open.append(on_its_way)
        if choice % 3 == 2:
            self.kill(choice)
        if is_sent and pid not in self.running:
            self.open.remove(on_its_way)
        self.enter(choice)
        if pid in self.running:
            if is_sent:
                self.open.remove(on_its_way)
                permit = admission.adopt(Address(ip_address(host), 1))
                self.open.append((to, other, host, permit))
            awaited.give_back()

    def upgrade(self, _: int) -> None:
        before = self.serving.limits
        told = json.loads(json.dumps(before.handed_over()))
        descriptor = os.dup(self.descriptor)
        try:
            limits = SharedLimits.adopt(descriptor, told, 2)
        except MuxError:
            os.close(descriptor)
            return
        limits.extend(parse(_CHAIN, "x"))
        self.programs.append(_Program(limits, self.clock.seconds))
        self.start_workers(self.serving)

    def fail(self, _: int) -> None:
        """The supervisor that serves dies, and its workers go on; the one before serves again."""
        if len(self.programs) > 1:
            dead = self.programs.pop()
            dead.has_supervisor = False
            self.programs.insert(0, dead)
            self.programs[-1].limits.follow(dead.limits.handed_over())
            self.start_workers(self.serving)
            assert self.serving.has_supervisor

    def kill(self, choice: int) -> None:
        """A worker dies with its connections; if it serves, it is replaced."""
        workers = [(program, number) for program in self.programs for number in program.workers]
        program, number = workers[choice % len(workers)]
        self.running.discard(program.workers.pop(number))
        self.open = [one for one in self.open if one[:2] != (program, number)]
        if program.has_supervisor:
            program.limits.worker_ended(number)
        self.start_workers(self.serving)


_DOES = (_Chain.enter, _Chain.enter, _Chain.leave, _Chain.move, _Chain.upgrade, _Chain.kill)


class ChainTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.collect)  # the memory is mapped until then

    @given(
        st.lists(st.tuples(st.sampled_from((*_DOES, _Chain.fail)), st.integers(0, 99)), max_size=60)
    )
    def test_each_client_is_counted_once(self, steps: list[tuple[Any, int]]) -> None:
        """Whatever upgrades, fails and dies: no limit is exceeded, and no client is refused where there is room."""
        chain = _Chain()
        with running(chain.running):
            try:
                for step, choice in steps:
                    if step is _Chain.fail and not chain.programs[0].has_supervisor:
                        continue
                    step(chain, choice)
            finally:
                for program in chain.programs:
                    program.limits.close()

    def test_too_many_columns_in_use(self) -> None:
        """Each service needs as many as it may have workers; processes that have ended need none."""
        chain = _Chain()
        with running(chain.running):
            for _ in range(5):
                chain.upgrade(0)
            self.assertEqual(len(chain.programs), 3)
            for pid in chain.programs[0].workers.values():
                chain.running.discard(pid)
            chain.upgrade(0)
            self.assertEqual(len(chain.programs), 4)
        for program in chain.programs:
            program.limits.close()

    def test_memory_of_another_version(self) -> None:
        limits = self.enterContext(closing(SharedLimits.make(parse(_CHAIN, "x"), 2)))
        told = limits.handed_over()
        layout = told["layout"]
        others: list[dict[str, Any]] = [
            {**told, "format": 0},
            {"format": told["format"]},
            *(
                {**told, "layout": {**layout, **change}}
                for change in ({"more": 1}, {"size": 1}, {"rows": None}, {"columns": "x"})
            ),
        ]
        for other in others:
            with self.assertRaises(MuxError):
                SharedLimits.adopt(limits.descriptor, other, 2)
            limits.follow(other)
            self.assertEqual(limits.handed_over(), told)
        # The name of the table is handed on: by it, other machines know what this one counts.
        taken = SharedLimits.adopt(os.dup(limits.descriptor), limits.handed_over(), 2)
        self.addCleanup(taken.close)
        self.assertEqual(taken.tables["a"].name, limits.tables["a"].name)
        # What is where in memory of its own says nothing of this one.
        own, beside = (SharedLimits.make(limited(*names), 2) for names in (("a",), ("b", "a")))
        self.addCleanup(own.close)
        self.addCleanup(beside.close)
        before = own.layout
        own.follow(beside.handed_over())
        self.assertEqual(own.layout, before)

    def two(self, *names: str) -> tuple[SharedLimits, SharedLimits, Admission]:
        """Make a service, and one that takes its place, in whose worker 7 a client is, and one on its way, for which that waits."""
        old = SharedLimits.make(rules := limited(*names), 2, lambda _: ())
        self.addCleanup(old.close)
        new = SharedLimits.adopt(os.dup(old.descriptor), old.handed_over(), 2)
        self.addCleanup(new.close)
        make = new.admissions(column := new.assign(0, 7), Clock().seconds, 0)
        new.awaited(column).add()
        admission = make(named(rules, "a"))
        admission.enter(CLIENT)
        admission.move_away(admission.enter(CLIENT))
        return old, new, admission

    def test_what_a_dead_worker_leaves_is_cleared(self) -> None:
        """Where its supervisor is dead, too, another one does it: all that it had, and what was on its way.

        Rows are not used again while another service counts: it may serve again, and knows them by their names.
        """
        pids = {7}
        with running(pids):
            old, _, _ = self.two("a", "b")
            counts, place = old.row("a"), old.layout.rows["b"]
            old.collect()
            self.assertEqual(sum(counts), 2)
            old.extend(limited("a", "c"))
            self.assertEqual(old.layout.rows["b"], place)
            pids.clear()
            old.collect()
            self.assertEqual(sum(counts), 0)
            old.extend(limited("a", "d"))
            self.assertNotIn("b", old.layout.rows)

    def test_what_moves_is_cleared_by_each_supervisor(self) -> None:
        """Whoever has looked before, what nobody takes counts no more, for the service, the listener and the source.

        A process whose rules do not limit the sources takes none of them, a supervisor that is replaced does not know the listeners
        that came after it, and a sender may find out later than supervisors that a receiver has ended.
        """
        with running({7, 8}):
            old, new, _ = self.two("a")
            new.extend(rules := limited("a", "b"))
            make = new.admissions(new.assign(1, 8), Clock().seconds, 0)
            make(Listener("a")).adopt(CLIENT)
            new.worker_ended(0)
            self.assertEqual(self.counts(new, "a"), [1, 1, 0])
            sender = make(named(rules, "b"))
            sender.move_away(sender.enter(CLIENT))
            self.assertEqual(self.counts(new, "b"), [2, 1, 1])
            old.collect()
            new.collect()
            self.assertEqual(self.counts(new, "b"), [1, 0, 0])

    def counts(self, limits: SharedLimits, name: str) -> list[int]:
        per_source = limits.sources(Clock().seconds)[name]
        assert per_source is not None
        tallies = [sum(limits.row(row)) for row in ("", name)]
        table = per_source.source_table
        slot = table.find(source_of(CLIENT.host), 0)
        assert slot is not None
        return [*tallies, table.total(slot) & 0xFFFFFFFF]

    def test_places_of_a_service_that_died_are_kept(self) -> None:
        """What it has added goes on to count there, wherever the one that serves again places more."""
        old = self.enterContext(closing(SharedLimits.make(limited("a"), 2)))
        new = SharedLimits.adopt(os.dup(old.descriptor), old.handed_over(), 2)
        self.addCleanup(new.close)
        new.extend(rules := limited("a", "b"))
        column = new.assign(0, os.getpid())
        new.admissions(column, Clock().seconds, 0)(named(rules, "b")).enter(CLIENT)
        old.follow(new.handed_over())
        old.extend(rules := limited("a", "b", "c"))
        for name, room in (("b", 1), ("c", 2)):
            admission = old.admissions(2, Clock().seconds, 0)(named(rules, name))
            for number in range(room):
                admission.enter(Address(ip_address(f"192.0.2.{number}"), 1))
            self.assertRaises(Refused, admission.enter, Address(ip_address("192.0.2.9"), 1))


@pytest.mark.by_turns(each=True)
class RaceTest(SynchronousTestCase):
    def race(self, program: str) -> list[int]:
        self.rules = parse(RACED, "x")
        self.limits = self.enterContext(closing(SharedLimits.make(self.rules, 2)))
        racers = []
        for worker in (1, 2):
            filled = RACER.format(
                rules=RACED,
                worker=worker,
                columns=self.limits.layout.columns,
                parent=os.getpid(),
                descriptor=self.limits.descriptor,
                race=program,
            )
            racers.append(child := Child(sys.executable, "-c", filled, stdin=True))
            self.addCleanup(child.end)
        for racer in racers:
            racer.wait_for("racing")
        for racer in racers:
            racer.say(b"go")
        found = [int(racer.wait_for(r"most (\d+) refused \d+")[1]) for racer in racers]
        self.assertEqual([racer.wait() for racer in racers], [0, 0])
        return found

    def test_race(self) -> None:
        """However they compete, neither a tally nor a source has more than its limit, and nothing is left of sources in the end."""
        self.assertLessEqual(max(self.race(TALLIES)), 3)
        self.assertEqual(self.race(SOURCES), [1, 1])
        per_source = self.limits.per_source(self.rules.listeners[0], 0, Clock().seconds)
        assert per_source is not None
        self.assertIsNotNone(per_source.enter(7))
        self.assertIsNotNone(per_source.enter(source_of(ip_address("192.0.2.1"))))


@pytest.mark.by_turns(each=True)
class SparseTest(SynchronousTestCase):
    def test_told(self) -> None:
        """What is told are all those that are known, and only what was used is looked at: the memory does not grow."""
        # For many workers, so that slots are not of a length that pages are a multiple of.
        limits = self.enterContext(closing(SharedLimits.make(parse(RULES, "x"), 16)))
        clock = Clock()
        clock.advance(1000)
        *_, timed = parse(RULES.replace("max_connections = 2", ""), "x").listeners
        admission = limits.admissions(5, clock.seconds, 0)(timed)
        per_source = admission.per_source
        assert per_source is not None

        def used() -> int:
            return os.fstat(limits.descriptor).st_blocks * 512

        for count in (1000, 10):
            hosts = [ip_address(f"198.51.{one // 250}.{one % 250}") for one in range(count)]
            for host in hosts:
                admission.enter(Address(host, 40000))
            if count == 10:
                # Where the system does not tell what was used, all is looked at, with the same outcome.
                self.patch(across_processes, "os", SimpleNamespace(lseek=os.lseek, close=os.close))
            before, told = used(), array("Q")
            told.frombytes(per_source.buckets())
            self.assertEqual({*told[::2]}, {*map(source_of, hosts)})
            self.assertEqual(({*told[1::2]}, per_source.tracked()), ({10**9}, count))
            if count == 1000:
                limits.clear(5)
                clock.advance(1)
                self.assertEqual((per_source.buckets(), per_source.tracked()), (b"", 0))
                self.assertLess(used() - before, 2**18)
