"""How much memory is left, by the files of the kernel."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.processes.memory import MemoryGroup, free_memory, memory_groups
from txmux.processes.upgrade.upgrades import lacking_descriptors, lacking_room

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
        self.assertEqual(
            free_memory(self.machine.proc), (14 * _MIB, "the limit of the memory group is 100 MiB")
        )
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
        self.assertEqual(
            (memory_groups(self.machine.proc), free_memory(self.machine.proc)), ([], None)
        )
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


class GiveBackTest(SynchronousTestCase):
    def test_freed_memory(self) -> None:
        """Most of what has been freed is no longer this process's."""
        if platform.libc_ver()[0] != "glibc":
            raise SkipTest("glibc only")
        done = subprocess.run(
            [sys.executable, "-c", _FREED], capture_output=True, text=True, check=False
        )
        self.assertEqual(done.stderr, "")
        self.assertGreater(int(done.stdout), 40_000_000)


class RoomTest(SynchronousTestCase):
    def test_upgrade(self) -> None:
        # It needs what this service needs, more with more workers; the reason says how much there is.
        def lacking(free: int, workers: int = 1) -> str:
            return lacking_room(
                workers, lambda: (free * _MIB, "the limit of the memory group is 96 MiB")
            )

        self.assertEqual(lacking(2**20), "")
        self.assertRegex(
            lacking(1),
            r"^there is no room for a new process beside this one: it needs some \d+ MiB, 1 MiB are free, and the limit of the memory group is 96 MiB; "
            r"allow more memory \(MemoryMax= .*\), or restart txmux$",
        )
        least = [
            min(free for free in range(2**12) if not lacking(free, workers)) for workers in (1, 4)
        ]
        self.assertLess(1.5 * least[0], least[1])
        self.assertEqual(lacking_room(1, lambda: None), "")
        # Each worker of the new process needs a pair of descriptors.
        descriptors = [lacking_descriptors(workers, lambda: (80, 100)) for workers in (1, 2, 3)]
        self.assertEqual(descriptors[:2], ["", ""])
        self.assertRegex(
            descriptors[2], r"needs 22 more .* has 80 open and may have 100; .*LimitNOFILE="
        )
