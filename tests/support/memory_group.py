"""A memory group (cgroup) for the processes that a test starts: a small machine."""

import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest import SkipTest

from tests.interop.children import Child, eventually

_GROUPS = Path("/sys/fs/cgroup")
_MIB = 2**20

_BALLAST = """\
import sys
held = []
for line in sys.stdin:
    held.append(bytearray(b"x") * (int(line) << 20))
    print("has", len(held), flush=True)
"""
_BESIDE = 2


class MemoryLimit:
    """A group whose processes may use so much memory together; it is there until `end`.

    Args:
        megabytes: How much.

    Raises:
        SkipTest: There can be no such group here.
    """

    def __init__(self, megabytes: int) -> None:
        first = _GROUPS / "memory"
        self._is_first_version = first.is_dir()
        try:
            if not self._is_first_version:
                (_GROUPS / "cgroup.subtree_control").write_text("+memory")
            top = first if self._is_first_version else _GROUPS
            self.folder = Path(tempfile.mkdtemp(prefix="memory-", dir=top))
            self.folder.chmod(0o755)  # as they are; the service may be another user's
            self.limit(megabytes)
        except OSError as problem:
            raise SkipTest(
                f"no memory group can be made here, which takes root: {problem}"
            ) from problem

    def limit(self, megabytes: int) -> None:
        name = "memory.limit_in_bytes" if self._is_first_version else "memory.max"
        (self.folder / name).write_text(str(megabytes * _MIB))
        if not self._is_first_version:
            (self.folder / "memory.swap.max").write_text("0")

    @property
    def before(self) -> tuple[str, ...]:
        """Give a command that runs the rest of its arguments as a command in the group."""
        return ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.folder / "cgroup.procs"))

    def used(self) -> int:
        words = (self.folder / "memory.stat").read_text().split()
        stat = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return stat["total_rss" if self._is_first_version else "anon"] // _MIB

    def kills(self) -> int:
        name = "memory.oom_control" if self._is_first_version else "memory.events"
        words = (self.folder / name).read_text().split()
        return int(words[words.index("oom_kill") + 1])

    def end(self) -> None:
        eventually(self._remove, "its processes have ended")

    def _remove(self) -> bool:
        with suppress(OSError):
            self.folder.rmdir()
        return not self.folder.exists()


class Ballast:
    """Processes of a group that use memory: several, so that each is smaller than what is to be killed for that."""

    def __init__(self, group: MemoryLimit) -> None:
        command = (*group.before, sys.executable, "-c", _BALLAST)
        self._children = [Child(*command, stdin=True) for _ in range(_BESIDE)]
        self._count = 0

    def take(self, megabytes: int) -> None:
        count, number = divmod(self._count, _BESIDE)
        self._count += 1
        child = self._children[number]
        assert child.process.stdin is not None
        child.process.stdin.write(f"{megabytes}\n".encode())
        child.process.stdin.flush()
        child.wait_for(f"has {count + 1}\n")

    def end(self) -> None:
        for child in self._children:
            child.end()
