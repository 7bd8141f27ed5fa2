"""A share of a core for all processes of a service, however many it starts: `script/lib/slow` makes the group."""

from __future__ import annotations

from pathlib import Path

from tests.interop.children import Child

_SLOW = Path(__file__).parents[2] / "script/lib/slow"
_GROUPS = Path("/sys/fs/cgroup")


class Quota:
    """A control group, which is there until `end`."""

    def __init__(self, percent: int) -> None:
        self._holder: Child | None = None
        self._procs: Path | None = None
        if percent:
            # It holds the group: the script removes it when its command has ended.
            holds = "cat /proc/self/cgroup; exec sleep infinity"
            self._holder = Child(str(_SLOW), str(percent), "sh", "-c", holds)
            name = self._holder.wait_for(r":/(?:.*/)?(slow-\w+)$")[1]
            [self._procs] = [
                path
                for folder in ("cpu", "cpu,cpuacct", ".")
                if (path := _GROUPS / folder / name / "cgroup.procs").exists()
            ][:1]

    @property
    def before(self) -> tuple[str, ...]:
        if self._procs is None:
            return ()
        return ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._procs))

    def take(self, pid: int) -> None:
        if self._procs is not None:
            self._procs.write_text(str(pid))

    def end(self) -> None:
        """Remove it, once its processes have ended."""
        if self._holder is not None:
            self._holder.end()
