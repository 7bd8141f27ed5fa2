import os
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import make_folder, run_text

_SLOW = Path(__file__).parent.parent / "script/lib/slow"
_COMPUTING = """
import time
began = time.monotonic()
while time.process_time() < 0.2: pass
print(time.process_time() / (time.monotonic() - began))
raise SystemExit(7)
"""


class SlowTests(SynchronousTestCase):
    def slow(self, *words: str, groups: Path | None = None) -> subprocess.CompletedProcess[str]:
        environ = dict(os.environ)
        if groups:
            # In folders that are no groups files stay, for whose end the script would wait.
            (groups / "bin").mkdir()
            (groups / "bin/sleep").symlink_to("/bin/true")
            environ |= {"CGROUPS": str(groups), "PATH": f"{groups}/bin:{environ['PATH']}"}
        command = [str(_SLOW), "20", *words]
        return run_text(*command, env=environ)

    def test_share(self) -> None:
        """The command has its share and no more; its status is the script's, and its group is removed."""
        before = self.groups()
        done = self.slow(sys.executable, "-c", _COMPUTING)
        if done.returncode == 125:
            raise SkipTest(done.stderr)
        self.assertEqual(done.returncode, 7, done)
        self.assertLess(float(done.stdout), 0.3)  # the first period may begin late
        self.assertEqual(self.groups(), before)

    def groups(self) -> set[Path]:
        return {*Path("/sys/fs/cgroup").glob("cpu/slow-*")}

    def test_second_version(self) -> None:
        # A container's own group may have processes: they go into a group beside.
        for controllers in ("cpu memory\n", "memory\n"):
            top = make_folder(self)
            (top / "cgroup.controllers").touch()
            (top / "cgroup.procs").touch()
            (top / "cgroup.subtree_control").write_text(controllers)
            done = self.slow("sh", "-c", "echo $$", groups=top)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            (group,) = top.glob("slow-*")
            self.assertEqual((group / "cgroup.procs").read_text(), done.stdout)
            self.assertEqual((group / "cpu.max").read_text(), "20000 100000\n")
            self.assertIn("cpu", (top / "cgroup.subtree_control").read_text())
        done = self.slow("echo", "no", groups=make_folder(self))
        self.assertEqual((done.returncode, done.stdout), (125, ""))
        self.assertIn("no CPU quota can be set here", done.stderr)
