"""Rules files that cannot be read, and files whose disk does not answer, halt no service."""

import os
import sys
from pathlib import Path

from tests.interop.children import eventually
from tests.interop.mux import Mux, Twist
from tests.processes.running import RULES, WorkersTestCase, workers_of

_SETTINGS = "watch_rules = 1s\nworkers = 1"


class _Case(WorkersTestCase):
    def lives(self, mux: Mux) -> None:
        """See that the supervisor does what it is there for: it replaces a worker, which serves."""
        self.be_closed(mux)
        [worker] = workers_of(mux.pid)
        self.kill(mux, worker)
        self.be_closed(mux)

    def reads_again(self, mux: Mux, text: str) -> None:
        new = mux.file.with_name("new.ini")
        new.write_text(f"{text}\n[route last]\nmatch = ssh\nbackend = reject\n")
        new.replace(mux.file)
        mux.child.wait_for("rules reloaded: 1 route new")


class NoFileTest(_Case):
    def setUp(self) -> None:
        super().setUp()
        self.mux = mux = Mux(self.make_folder(), RULES, _SETTINGS)
        self.addCleanup(mux.stop)
        self.text = mux.file.read_text()

    def refused(self, why: str) -> None:
        self.mux.child.wait_for(f"rules.ini: cannot be read: {why}")
        self.assertIn(why, self.mux.reload())
        self.lives(self.mux)
        self.reads_again(self.mux, self.text)

    def test_pipe_whose_writer_is_silent(self) -> None:
        self.mux.file.unlink()
        os.mkfifo(self.mux.file)
        self.addCleanup(os.close, os.open(self.mux.file, os.O_RDWR))
        self.refused("it is no regular file")

    def test_device_without_end(self) -> None:
        new = self.mux.file.with_name("new.ini")
        new.symlink_to("/dev/zero")
        new.replace(self.mux.file)
        self.refused("it is no regular file")

    def test_large_file(self) -> None:
        with self.mux.file.open("r+b") as file:
            file.truncate(1 << 40)
        self.refused("rules may have 16 MiB in all")


class DeadDiskTest(_Case):
    def setUp(self) -> None:
        super().setUp()
        self.wrapper = [sys.executable, str(Path(__file__).with_name("dead_disk.py"))]
        self.mux = mux = Mux(self.make_folder(), RULES, _SETTINGS, before=self.wrapper)
        self.addCleanup(mux.end)
        self.text = mux.file.read_text()
        self.dead = mux.file.with_name("rules.ini.dead")

    def test_look_and_reload(self) -> None:
        """A look, a reload and what comes after them end by themselves, and what waits for that disk is left behind."""
        self.dead.touch()
        self.mux.child.wait_for("rules.ini: cannot be read: its disk has not answered for 1 s")
        self.assertIn("its disk has not answered", self.mux.reload())
        self.lives(self.mux)
        threads = self.threads()
        for _ in range(3):
            self.mux.reload()
        self.assertLessEqual(self.threads(), threads + 1)
        self.dead.unlink()
        self.reads_again(self.mux, self.text)

    def threads(self) -> int:
        return len([*Path(f"/proc/{self.mux.pid}/task").iterdir()])

    def test_stop(self) -> None:
        """A service that waits for a dead disk stops when it is to."""
        self.dead.touch()
        self.mux.ask_to_reload()
        self.mux.stop()


class StartTest(WorkersTestCase):
    def test_dead_disk(self) -> None:
        wrapper = [sys.executable, str(Path(__file__).with_name("dead_disk.py"))]
        folder = self.make_folder()
        (folder / "rules.ini").write_text(RULES)
        (folder / "rules.ini.dead").touch()
        twist = Twist("--rules", folder / "rules.ini", before=wrapper)
        self.addCleanup(twist.child.end)
        eventually(lambda: "its disk has not answered" in twist.child.output, "it says why")
        self.assertEqual(twist.child.wait(), os.EX_CONFIG)
