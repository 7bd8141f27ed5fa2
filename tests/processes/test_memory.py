"""How much memory is left, by the files of the kernel, whom it kills first when there is none, and services that have too little."""

import os
import platform
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.running import Pair
from tests.support import proc
from tests.support.changes import change_constants, change_environment
from tests.support.kit import (
    RULES,
    Record,
    Service,
    WorkersTestCase,
    customize,
    eventually,
    make_folder,
    run,
)
from tests.support.memory_group import Ballast, MemoryLimit
from tests.support.proc import has_connection, is_gone, named, oom_score_of, pids_of
from txmux.processes import oom
from txmux.processes.memory import MemoryGroup, free_memory, memory_groups
from txmux.processes.upgrade.upgrades import lacking_descriptors, lacking_room
from txmux.telemetry.attention import MEMORY_RAN_OUT

_MIB = 2**20
_UNLIMITED = 2**63 - 4096  # as version 1 writes it


class Machine:
    """A folder with what the kernel shows of a machine and its groups."""

    def __init__(self, test: SynchronousTestCase) -> None:
        self.folder = make_folder(test)
        self.proc = self.folder / "proc"

    def write(self, files: Mapping[str, object]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def mount(self, kind: str, options: str, group: str, root: str = "/") -> None:
        top = self.folder / "groups"
        mounts = f"30 25 0:26 {root} {top} rw,nosuid shared:4 - {kind} cgroup {options}\n25 1 0:2 / / rw - ext4 /dev/sda1 rw"
        self.write({"proc/self/mountinfo": mounts, "proc/self/cgroup": group})

    def second(self) -> None:
        """A service in a group of version 2, whose parent has a limit, too."""
        self.mount("cgroup2", "rw,nsdelegate", "0::/system.slice/txmux.service")
        slice_ = "groups/system.slice"
        self.write(
            {
                f"{slice_}/memory.max": 100 * _MIB,
                f"{slice_}/memory.current": 90 * _MIB,
                f"{slice_}/memory.stat": f"active_file {_MIB}\ninactive_file {3 * _MIB}\nfile_mapped {_MIB}\nslab_reclaimable {_MIB}",
                f"{slice_}/txmux.service/memory.max": "max",
                f"{slice_}/txmux.service/memory.high": 64 * _MIB,
                f"{slice_}/txmux.service/memory.current": 40 * _MIB,
            }
        )

    def memory(self, available: int, swap: int = 0) -> None:
        """What the whole machine has, in kilobytes."""
        self.write(
            {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {available} kB\nSwapFree: {swap} kB"}
        )


class GroupTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Machine(self)

    def test_second_version(self) -> None:
        # All groups above count, each with its own limit; the cache of files can be taken back, but not programs that run.
        self.machine.second()
        inner, outer, top = memory_groups(self.machine.proc)
        self.assertEqual(
            [(group.limit(), group.free(0)) for group in (inner, outer, top)],
            [(64 * _MIB, 24 * _MIB), (100 * _MIB, 14 * _MIB), (None, None)],
        )
        self.machine.memory(10**9)
        limit = "the limit of the memory group is 100 MiB"
        self.assertEqual(free_memory(self.machine.proc), (14 * _MIB, limit))
        # What may go to swap is free as well: as much as the group may have there, and the machine has left.
        self.assertEqual((inner.free(5 * _MIB), outer.free(5 * _MIB)), (29 * _MIB, 19 * _MIB))
        self.machine.write(
            {
                "groups/system.slice/memory.swap.max": 4 * _MIB,
                "groups/system.slice/memory.swap.current": _MIB,
            }
        )
        self.assertEqual(outer.free(5 * _MIB), 17 * _MIB)
        self.machine.write({"groups/system.slice/memory.swap.max": 0})
        self.assertEqual(outer.free(5 * _MIB), 14 * _MIB)

    def test_first_version(self) -> None:
        self.machine.mount(
            "cgroup",
            "rw,memory",
            "9:name=systemd:/\n4:memory,hugetlb:/docker/a1\n0::/",
            "/docker/a1",
        )
        self.machine.memory(10**9)
        limits = {
            "groups/memory.limit_in_bytes": 96 * _MIB,
            "groups/memory.usage_in_bytes": 80 * _MIB,
            "groups/memory.stat": f"active_file 0\ntotal_active_file {4 * _MIB}\ntotal_mapped_file {_MIB}",
        }
        self.machine.write(limits)
        [group] = memory_groups(self.machine.proc)
        self.assertEqual((group.limit(), group.free(7 * _MIB)), (96 * _MIB, 26 * _MIB))
        both = {
            "groups/memory.memsw.limit_in_bytes": 97 * _MIB,
            "groups/memory.memsw.usage_in_bytes": 80 * _MIB,
        }
        self.machine.write(both)
        self.assertEqual(group.free(100 * _MIB), 20 * _MIB)
        self.machine.write({"groups/memory.memsw.limit_in_bytes": _UNLIMITED})
        self.assertEqual(group.free(100 * _MIB), 119 * _MIB)
        self.machine.write({"groups/memory.limit_in_bytes": _UNLIMITED})
        self.assertEqual((group.limit(), group.free(0)), (None, None))

    def test_no_groups(self) -> None:
        """A system without `/proc`, or one that shows nothing of groups."""
        self.assertEqual(memory_groups(self.machine.proc), [])
        self.assertIsNone(free_memory(self.machine.proc))
        self.machine.mount("cgroup", "rw,cpu", "4:cpu:/a")
        self.assertEqual(memory_groups(self.machine.proc), [])
        self.machine.memory(7, swap=3)
        self.assertEqual(free_memory(self.machine.proc), (10 * 1024, "this machine has no more"))

    def test_machine_without_meminfo(self) -> None:
        """A unit with `ProcSubset=pid` sees only the groups: the topmost has the cache of the machine."""
        self.machine.second()
        self.machine.write(
            {
                "groups/system.slice/memory.max": "max",
                "groups/system.slice/txmux.service/memory.high": "max",
            }
        )
        self.assertIsNone(free_memory(self.machine.proc))
        self.machine.write({"groups/memory.stat": f"active_file {2**50}"})
        found = free_memory(self.machine.proc)
        assert found is not None
        self.assertGreaterEqual(found[0], 2**50)
        self.assertEqual(found[1], "this machine has no more")

    def test_this_machine(self) -> None:
        """What this machine shows can be read."""
        if not Path("/proc/meminfo").exists():
            raise SkipTest("Linux only")
        found = free_memory()
        assert found is not None
        self.assertLess(0, found[0])
        groups = memory_groups()  # where no control groups are mounted, there are none
        missing = [one for one in groups if not os.path.isdir(one.folder)]  # noqa: PTH112 - nothing is followed
        self.assertEqual((missing, {*map(type, groups)} - {MemoryGroup}), ([], set()))


_FREED = """\
import resource
from pathlib import Path
from txmux.processes.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

# What lies above keeps the C library from giving it back by itself.
held = [bytes(1000) for _ in range(50_000)]
above = bytes(1000)
before = resident()
del held
give_back()
print(before - resident())
"""


class RoomTest(SynchronousTestCase):
    def test_freed_memory(self) -> None:
        """Most of what has been freed is no longer this process's."""
        if platform.libc_ver()[0] != "glibc":
            raise SkipTest("glibc only")
        done = run(sys.executable, "-c", _FREED)
        self.assertEqual(done.stderr, b"")
        self.assertGreater(int(done.stdout), 40_000_000)

    def test_upgrade(self) -> None:
        # It needs what this service needs, more with more workers; the reason says how much there is.
        limit = "the limit of the memory group is 96 MiB"

        def lacking(free: int, workers: int = 1) -> str:
            return lacking_room(workers, lambda: (free * _MIB, limit))

        self.assertEqual(lacking(2**20), "")
        self.assertRegex(
            lacking(1),
            r"^there is no room for a new process beside this one: it needs some \d+ MiB, 1 MiB are free, and the limit of the memory group is 96 MiB; "
            r"allow more memory \(MemoryMax= .*\), or restart txmux$",
        )
        one, four = (min(free for free in range(2**12) if not lacking(free, n)) for n in (1, 4))
        self.assertLess(1.5 * one, four)
        self.assertEqual(lacking_room(1, lambda: None), "")
        # Each worker of the new process needs a pair of descriptors.
        descriptors = [lacking_descriptors(workers, lambda: (80, 100)) for workers in (1, 2, 3)]
        self.assertEqual(descriptors[:2], ["", ""])
        why = r"needs 22 more .* has 80 open and may have 100; .*LimitNOFILE="
        self.assertRegex(descriptors[2], why)


_RAISED = "import os; from pathlib import Path; Path('/proc/self/oom_score_adj').write_text('17'); os.execvp(*__import__('sys').argv[1:2], __import__('sys').argv[1:])"
"""Runs a command, which has another score than this process."""

_WAITS = """\
import os, sys, time
if "TXMUX_PREDECESSOR" in os.environ and "txmux" in str(sys.orig_argv):
    from pathlib import Path
    from txmux.processes import service
    once = service.MuxService.startService
    def start(self):
        while not Path(os.environ["MAY_START"]).exists():
            time.sleep(0.01)
        once(self)
    service.MuxService.startService = start
"""


@pytest.mark.by_turns(each=True)
class ScoresTest(WorkersTestCase):
    def test_workers_before_the_supervisor(self) -> None:
        """Whatever the service was started with; also those that a new starter forks."""
        if oom.own_score() is None:
            raise SkipTest("Linux only")
        may_start = self.folder / "start"
        change_environment(self, MAY_START=str(may_start))
        customize(self, _WAITS)
        before = sys.executable, "-c", _RAISED
        running = self.upgrading(RULES, "workers = 2", before, program="run")
        proc.await_oom_scores(running.pid, 17, 167, 317, 317)
        old, [first, _] = proc.starter_of(running.pid), running.workers
        os.kill(old, signal.SIGKILL)
        starters: tuple[list[int], ...] = ([], [old])
        eventually(lambda: proc.named(running.pid, "starter") not in starters, "there is another")
        os.kill(first, signal.SIGKILL)
        # A worker has the starter's name until it has one of its own.
        eventually(
            lambda: [len(running.workers), len(proc.named(running.pid, "starter"))] == [1, 1],
            "the new starter has forked one",
        )
        proc.await_oom_scores(running.pid, 17, 167, 317)
        # The new process of an upgrade goes before the workers of the old one until it serves, and the same holds for the next one.
        for _ in range(2):
            old = running.pid
            running.ask()
            eventually(lambda p=old: bool(self.newcomers(p)), "there is a new process")  # type: ignore[misc]
            [newcomer] = self.newcomers(old)
            scores = [proc.oom_score_of(one) for one in (newcomer, proc.starter_of(newcomer))]
            self.assertEqual(scores, [617, 167])
            may_start.touch()
            running.switched()
            eventually(lambda o=old: proc.is_gone(o), "the old process has ended")  # type: ignore[misc]
            may_start.unlink()
            proc.await_oom_scores(running.pid, 17, 167, 317, 317)

    def newcomers(self, pid: int) -> list[int]:
        # Without a starter, it is a process that has its parent's name until it becomes another program.
        return [one for one in proc.named(pid, "supervis") if proc.named(one, "starter")]

    def test_score_that_is_not_there_or_too_high(self) -> None:
        # Where `/proc` has none, or cannot be written, all goes on.
        lacking = "oom._SCORE = Path('/proc/{}')\noom.go_first()\nprint([oom.score_of_supervisor()])\noom.go_last()"
        # No score is above 1000.
        high = "oom.set_score(900)\noom.go_first()\nprint(oom.own_score(), oom.score_of_supervisor())\noom.set_score(1200)\nprint(oom.own_score())\noom.go_last()\nprint(oom.own_score())"
        for program, expected in (
            (lacking.format("none"), "['']"),
            (lacking.format("version"), "['']"),
            (high, "1000 900\n1000\n900"),
        ):
            imports = "from pathlib import Path\nfrom txmux.processes import oom\n"
            done = run(sys.executable, "-c", imports + program)
            said = (done.returncode, done.stderr, done.stdout.decode().strip())
            self.assertEqual(said, (0, b"", expected))


class KillsTest(SynchronousTestCase):
    """What explains that a process was killed."""

    def setUp(self) -> None:
        self.machine = Machine(self)
        self.clock = Clock()
        self.kills = oom.OomKills(self.machine.proc, self.clock.seconds)

    def count(self, count: int) -> None:
        events = "groups/system.slice/txmux.service/memory.events"
        self.machine.write({events: f"oom 9\noom_kill {count}"})

    def test_group(self) -> None:
        """What was killed before does not count, each kill explains one end, and none long after it."""
        self.machine.second()
        self.count(3)
        self.kills.look()
        self.assertEqual(self.kills.explain(), "")
        self.count(5)
        why = "memory had run out (the limit of the memory group is 64 MiB)"
        self.assertEqual([self.kills.explain() for _ in range(3)], [why, why, ""])
        self.assertIn(MEMORY_RAN_OUT, why)
        self.count(6)
        self.kills.look()
        self.clock.advance(5)
        self.assertEqual(self.kills.explain(), why)
        self.count(7)
        self.kills.look()
        self.clock.advance(5.1)
        self.assertEqual(self.kills.explain(), "")

    def test_first_version(self) -> None:
        self.machine.mount("cgroup", "rw,memory", "4:memory:/")
        self.machine.write({"groups/memory.oom_control": "under_oom 0\noom_kill 1"})
        self.kills.look()
        self.machine.write({"groups/memory.oom_control": "under_oom 0\noom_kill 2"})
        self.assertEqual(self.kills.explain(), "memory had run out (that of the machine)")

    def test_machine(self) -> None:
        """Without a group that counts, the machine's kills do; only who was killed (SIGKILL) may have been so for lack of memory."""
        change_constants(self, oom, KILLS=self.kills)
        self.machine.write({"proc/vmstat": "oom_kill 7"})
        self.kills.look()
        self.machine.write({"proc/vmstat": "pgfault 1\noom_kill 8"})
        self.assertEqual(
            [oom.how_killed(status) for status in (None, 256, signal.SIGTERM)],
            ["ended", "exited with status 1", "was killed by signal 15 (SIGTERM)"],
        )
        killed = "was killed by the kernel: memory had run out (that of the machine)"
        self.assertEqual(oom.how_killed(signal.SIGKILL), killed)
        self.assertEqual(oom.how_killed(signal.SIGKILL), "was killed by signal 9 (SIGKILL)")
        self.assertEqual(oom.OomKills(self.machine.folder / "none").explain(), "")


_CONNECTIONS = 20


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class ShortOfMemoryTest(WorkersTestCase):
    def running(self, megabytes: int) -> Service:
        """Start a service with two workers, and connections in both."""
        self.group = MemoryLimit(megabytes)
        self.addCleanup(self.group.end)
        options: Any = {"admin": True, "before": self.group.before, "program": "run"}
        running, self.listening = self.start_relaying(**options)
        self.mux = running
        self.pairs = [
            self.relayed(running, self.listening, client)
            for _ in range(_CONNECTIONS // 2)
            for client in self.one_for_each(running, running.workers)
        ]
        return running

    def ballast(self) -> Ballast:
        ballast = Ballast(self.group)
        self.addCleanup(ballast.end)
        return ballast

    def item(self, what: str) -> Record:
        eventually(lambda: self.mux.attention(what) != [], f"there is an item {what}")
        return self.mux.attention(what)[0]

    def assert_go_on(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self.answers(*pair)

    def test_worker_goes_first(self) -> None:
        """When memory runs out a worker is killed, and replaced, and named with the reason; what the other one has goes on."""
        running = self.running(104)
        before, ballast = running.workers, self.ballast()
        while not self.group.kills():
            ballast.take(1)
        ballast.end()
        running.child.wait_for(
            r"worker \d was killed by the kernel: memory had run out \(the limit of the memory group is 104 MiB\); another one is started at once"
        )
        eventually(lambda: len(running.workers) == 2, "there are two workers again")
        (left,) = {*before} & {*running.workers}
        kept = [pair for pair in self.pairs if has_connection(left, pair[1])]
        self.assertEqual(len(kept), _CONNECTIONS // 2)
        self.assert_go_on(kept)
        self.answers(*self.relayed(running, self.listening))
        item = self.item("workers")
        # The one in its place is killed, too, if it has come before the ballast was gone.
        which = "1 worker with its" if self.group.kills() == 1 else "2 workers with their"
        text = f"the kernel has killed {which} connections: memory had run out"
        self.assertEqual((item["level"], item["text"]), ("warning", text))
        cause = r"^memory had run out \(the limit of the memory group is 104 MiB\), \d+ connections lost$"
        self.assertRegex(item["cause"], cause)
        self.assertIn("MemoryMax=", item["do"])

    def test_no_room_for_an_upgrade(self) -> None:
        """Nothing is started; as soon as there is room, it can be done."""
        running = self.running(96)
        limit = "the limit of the memory group is 96 MiB"
        running.refuse(f"there is no room for a new process .* {limit}")
        self.assertEqual(named(running.pid, "supervis"), [])
        self.assertEqual(self.group.kills(), 0)
        self.assertIn("there is no room", self.item("upgrade")["cause"])
        self.group.limit(512)
        running.upgrade()
        self.assert_go_on(self.pairs)

    def test_new_process_goes_before_workers(self) -> None:
        """If memory runs out during an upgrade, the new process ends, and no client does."""
        running = self.running(256)
        old, ballast = running.pid, self.ballast()
        running.ask()
        eventually(lambda: 600 in map(oom_score_of, pids_of(old)), "there is another")
        while not self.group.kills():
            ballast.take(4)
        ballast.end()
        running.child.wait_for(
            r"upgrade failed, the old process keeps serving: the new process was killed by the kernel: memory had run out"
        )
        self.assertFalse(is_gone(old))
        self.assert_go_on(self.pairs)
        self.answers(*self.relayed(running, self.listening))
