"""How much memory is left: in the memory groups (cgroups) of this process, and in the machine."""

import ctypes
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from txmux.classes import frozen

PROC = Path("/proc")
_MACHINE = "this machine has no more"


@frozen
class MemoryGroup:
    """A memory cgroup, by its folder; see ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/memory.rst`` of Linux."""

    folder: Path
    is_first_version: bool = False

    def limit(self) -> int | None:
        """Return how much its processes may use, in bytes; ``None`` if there is no limit."""
        names = (
            ("memory.limit_in_bytes",) if self.is_first_version else ("memory.max", "memory.high")
        )
        limits = [value for name in names if (value := self._number(name)) is not None]
        return min(limits, default=None)

    def free(self, swap: int) -> int | None:
        """Return how many bytes its processes may still allocate, while the machine has this much free swap space."""
        limit = self.limit()
        used = self._number("memory.usage_in_bytes" if self.is_first_version else "memory.current")
        if limit is None or used is None:
            return None
        free = limit - used + self.reclaimable()
        if not self.is_first_version:
            return free + self._swap(swap)
        # Here the second limit is of memory and swap together.
        both = self._number("memory.memsw.limit_in_bytes")
        swapped = self._number("memory.memsw.usage_in_bytes")
        if both is None or swapped is None:
            return free + swap
        return min(free + swap, both - swapped + self.reclaimable())

    def kills(self) -> int | None:
        """Return how many of its processes the kernel has killed since memory had run out."""
        name = "memory.oom_control" if self.is_first_version else "memory.events"
        return _table(self.folder / name).get("oom_kill")

    def reclaimable(self) -> int:
        """Return how many bytes of what is used the kernel can take back at once: the cache of files, but for programs that run."""
        stat = _table(self.folder / "memory.stat")
        total = "total_" if self.is_first_version else ""
        cached = sum(stat.get(f"{total}{name}", 0) for name in ("active_file", "inactive_file"))
        mapped = stat.get("total_mapped_file" if self.is_first_version else "file_mapped", 0)
        return max(0, cached - mapped) + stat.get("slab_reclaimable", 0)

    def _swap(self, free: int) -> int:
        most, used = self._number("memory.swap.max"), self._number("memory.swap.current")
        return free if most is None or used is None else max(0, min(free, most - used))

    def _number(self, name: str) -> int | None:
        try:
            number = int((self.folder / name).read_text())
        except (OSError, ValueError):  # `max`
            return None
        return None if number >= _NO_LIMIT else number


_NO_LIMIT = 2**62
"""What the first version has as the limit where there is none is about 2 ** 63."""


def memory_groups(proc: Path = PROC) -> list[MemoryGroup]:
    """Return the groups that this process is in, the innermost first; a container may show only some of them."""
    for is_first_version, root, top in _hierarchies(proc):
        for line in _lines(proc / "self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if ("memory" in controllers.split(",")) if is_first_version else not controllers:
                inside = PurePosixPath(path)
                relative = inside.relative_to(root) if inside.is_relative_to(root) else "."
                folder = top / relative
                folders = [folder, *folder.parents]
                within = [one for one in folders if one == top or top in one.parents]
                return [MemoryGroup(one, is_first_version) for one in within]
    return []


def _hierarchies(proc: Path) -> Iterator[tuple[bool, str, Path]]:
    """Yield where groups are mounted, with the group that is at the top there; first those of version 1, which have the memory if there are any."""
    second = []
    for line in _lines(proc / "self/mountinfo"):
        before, _, after = line.partition(" - ")
        root, top = before.split(" ")[3:5]
        kind, _, options = after.split(" ")[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            yield True, root, Path(top)
        elif kind == "cgroup2":
            second.append((False, root, Path(top)))
    yield from second


def free_memory(proc: Path = PROC) -> tuple[int, str] | None:
    """Return how many bytes may be allocated before the kernel kills a process, and what limits them; ``None`` if nothing says so."""
    groups, machine = memory_groups(proc), _table(proc / "meminfo")
    swap = 1024 * machine.get("SwapFree:", 0)
    found = [
        (free, f"the limit of the memory group is {megabytes(limit)}")
        for group in groups
        if (limit := group.limit()) is not None and (free := group.free(swap)) is not None
    ]
    if "MemAvailable:" in machine:
        found.append((1024 * machine["MemAvailable:"] + swap, _MACHINE))
    elif groups and (free := _free_by(groups[-1])) is not None:
        found.append((free, _MACHINE))
    return min(found, default=None)


def own_memory() -> int:
    """Return the bytes of this process without what is in files; 0 if unknown."""
    return 1024 * _table(PROC / "self/status").get("RssAnon:", 0)


def _free_by(top: MemoryGroup) -> int | None:
    """Return what the machine has left, in a unit with ``ProcSubset=pid``, which has no ``/proc/meminfo``."""
    cached = 0 if top.is_first_version else top.reclaimable()
    if not cached:
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") + cached


def kills_of_machine(proc: Path) -> int | None:
    return _table(proc / "vmstat").get("oom_kill")


def give_back() -> None:
    """Return freed memory to the system; without this, the C library keeps most of it for later."""
    with suppress(AttributeError):  # of another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def megabytes(count: int) -> str:
    return f"{max(0, count) / 2**20:.0f} MiB"


def _table(path: Path) -> Mapping[str, int]:
    """Read lines of a name and a number."""
    table = {}
    for line in _lines(path):
        with suppress(IndexError, ValueError):
            words = line.split()
            table[words[0]] = int(words[1])
    return table


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
