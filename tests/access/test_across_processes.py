"""Limits in memory that other workers write to, too, of which one may be hostile."""

import contextlib
import os
import subprocess
import sys
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.access import across_processes
from txmux.access.across_processes import FileLock, LayoutError, LimitsLayout, SharedLimits
from txmux.access.admission import Refused
from txmux.access.loops import LoopDetector
from txmux.access.per_source import source_of
from txmux.errors import MuxError
from txmux.rules.reading.parser import parse
from txmux.wire.proxyprotocol.header import Address

_RULES = """
[listen a]
endpoint = 127.0.0.1:1
max_connections = 5
max_connections_per_source = 3
max_undecided_per_source = 2
connection_rate_per_source = 5/s
[route r]
match = any
backend = b
[backend b]
server = 127.0.0.1:2
hold = 5s
hold_limit = 3
"""
_CLIENTS = [Address(ip_address(f"192.0.2.{n}"), 1) for n in range(2)]
_WRITTEN = st.sampled_from((0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1)) | st.integers(0, 2**64 - 1)


class _Worker:
    """A worker whose memory another one has written to."""

    def __init__(self) -> None:
        rules = parse(_RULES, "x")
        self.limits = limits = SharedLimits.make(rules, 2)
        self.admission = limits.admissions(1, float, 3)(rules.listeners[0])
        self.held = limits.held("b", 3, 1)
        self.taken: list[Any] = []

    def scribble(self, value: int) -> None:
        words, layout = self.limits.memory.cast("Q"), self.limits.layout
        for start in (LoopDetector.SIZE, *layout.rows.values()):
            for column in range(layout.columns):
                words[start // 8 + column] = value
        table = self.limits.tables["a"]
        for begin, end in table.written():
            for at in range(begin, end):
                if table.numbers[at]:
                    table.numbers[at] = value

    def enter(self, client: Address) -> None:
        with contextlib.suppress(Refused):
            self.taken.append(self.admission.enter(client))

    def adopt(self, client: Address) -> None:
        self.taken.append(self.admission.adopt(client))

    def leave(self, _: Address) -> None:
        if self.taken:
            self.admission.leave(self.taken.pop())

    def move_away(self, _: Address) -> None:
        if self.taken:
            self.admission.move_away(self.taken.pop())

    def hold(self, _: Address) -> None:
        if self.held.take():
            self.held.give_back()

    def report(self, _: Address) -> None:
        sources = self.admission.per_source
        assert sources is not None
        sources.tracked()
        sources.restore(sources.buckets())

    def offered(self, _: Address) -> None:
        self.limits.awaited(1).add()

    def other_ended(self, _: Address) -> None:
        self.limits.clear(2)
        self.limits.collect()

    def another(self, _: Address) -> None:
        self.limits.assign(2, os.getpid())
        self.limits.worker_ended(2)
        with contextlib.suppress(MuxError):
            SharedLimits.adopt(self.limits.descriptor, self.limits.handed_over(), 2)

    DOES = (enter, adopt, leave, move_away, offered, hold, report, other_ended, another)


_STEPS = st.lists(
    st.tuples(st.sampled_from(_Worker.DOES), st.sampled_from(_CLIENTS), _WRITTEN), max_size=30
)


class HostileMemoryTest(SynchronousTestCase):
    @given(_STEPS)
    def test_nothing_raises(self, steps: list[tuple[Any, Address, int]]) -> None:
        """Another worker writes anything anywhere, between any two steps of this one."""
        worker = _Worker()
        try:
            for step, client, value in steps:
                step(worker, client)
                worker.scribble(value)
        finally:
            worker.limits.close()

    def test_all_are_found(self) -> None:
        worker = _Worker()
        self.addCleanup(worker.limits.close)
        for client in _CLIENTS:
            worker.enter(client)
        limits, table = worker.limits, worker.limits.tables["a"]
        self.assertEqual(table.tracked(0), len(_CLIENTS))
        for client in _CLIENTS:
            worker.move_away(client)
        limits.collect()
        slots = [table.find(source_of(client.host), 0) for client in _CLIENTS]
        self.assertEqual([slot and table.total(slot) for slot in slots], [0, 0])
        self.assertTrue(limits.held("b", 0, 1).take())
        self.assertFalse(limits.held("b", 1, 2).take())
        self.assertEqual([limits.assign(n, os.getpid()) for n in (1, 2)], [1, 2])

    def test_waits_for_a_hundredth_of_the_time(self) -> None:
        """A worker that holds the lock, and lets go of it for moments, slows the others by no more."""
        file = os.memfd_create("test")
        self.addCleanup(os.close, file)
        holder = subprocess.Popen(
            [sys.executable, "-c", _HOLDER, str(file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[file],
        )  # fmt: skip
        self.addCleanup(holder.communicate)  # it ends with its input
        assert holder.stdin is not None
        assert holder.stdout is not None
        commands, done = holder.stdin, holder.stdout

        def tell(what: str) -> None:
            commands.write(f"{what}\n")
            commands.flush()
            done.readline()

        time = _Time()
        self.patch(across_processes, "time", time)
        lock, waited = FileLock(file), 0.0
        for _ in range(50):
            tell("hold")
            began = time.now
            with lock:
                waited += time.now - began
            tell("release")
            with lock:
                time.now += 1.0
        self.assertGreater(waited, 1.0)
        self.assertLess(waited, 1.0 + 0.01 * time.now + 0.02)


_HOLDER = """
import fcntl, sys
number = int(sys.argv[1])
for line in sys.stdin:
    fcntl.lockf(number, fcntl.LOCK_EX if line == "hold\\n" else fcntl.LOCK_UN, 1)
    print(flush=True)
"""


class _Time:
    """A clock that moves while a process sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


NAMES = st.lists(st.sampled_from("abcdef"), unique=True)


def text_of(names: list[str], limit: int) -> str:
    text = "".join(
        f"[listen {name}]\nendpoint = 127.0.0.1:{1000 + ord(name)}\n"
        f"max_connections_per_source = {limit}\n"
        for name in ("z", *names)
    )
    return f"{text}[route r]\nunder = *\nmatch = any\nbackend = close\n"


class LimitsLayoutTest(SynchronousTestCase):
    @given(before=NAMES, after=NAMES, limit=st.integers(0, 1))
    def test_changes_make_it(self, before: list[str], after: list[str], limit: int) -> None:
        old, new = LimitsLayout(5), LimitsLayout(5)
        old.extend(parse(text_of(before, 1), "x"))
        new.extend(parse(text_of(after, limit), "x"))
        self.assertEqual(old.changed(**new.changes(old)), new)
        expected = {"rows": {}, "tables": {}, "gone_rows": [], "gone_tables": [], "size": old.size}
        self.assertEqual(old.changes(old), expected)

    def test_worker_follows(self) -> None:
        rules = parse(text_of(["a"], 1), "x")
        limits = SharedLimits.make(parse(text_of([], 1), "x"), 2)
        self.addCleanup(limits.close)
        self.assertRaises(LayoutError, limits.per_source, rules.listeners[1], 1, float)
        before = limits.layout
        limits.extend(rules)
        changes = limits.layout.changes(before)
        limits.layout = before
        limits.remap_changed(**changes)
        self.assertIsNotNone(limits.admissions(1, float, 0)(rules.listeners[1]).per_source)
        for wrong in ({"size": 8}, {"rows": {"a": -8}}, {"tables": {"a": changes["size"]}}):
            self.assertRaises(LayoutError, limits.remap_changed, **{**changes, **wrong})
        made = SharedLimits.of_service(lambda: rules, lambda _: False, None)
        self.addCleanup(made.close)
        self.assertEqual(made.layout.tables.keys(), {"z", "a"})
