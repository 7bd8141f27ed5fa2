"""What root does by path, while whoever may write to a folder on the way swaps links in."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.processes.test_privileges import require_root
from tests.support.folders import make_folder
from txmux.admin.listen_addresses import make_token
from txmux.files import file_id, open_log, remove_own_socket
from txmux.net.sockets.unixpath import bind
from txmux.processes.supervisor.pidfile import remove_pid, write_pid

_NOBODY = 65534
_ROUNDS = 1000
_SWAPPING = """
import os, sys
way, victim, user = sys.argv[1:]
os.setuid(int(user))
os.symlink(victim, way + ".link")
print(flush=True)
while True:
    try:
        os.symlink(victim + "/precious", way + "/new")
        os.rename(way + "/new", way + "/file")
        os.unlink(way + "/file")
    except OSError:
        pass
    os.rename(way, way + ".aside")
    os.rename(way + ".link", way)
    os.rename(way, way + ".link")
    os.rename(way + ".aside", way)
"""


class RaceTest(SynchronousTestCase):
    def setUp(self) -> None:
        require_root()
        folder = make_folder(self)
        folder.chmod(0o755)
        theirs = folder / "theirs"
        theirs.mkdir()
        self.way = theirs / "way"
        self.way.mkdir()
        for one in (theirs, self.way):
            os.chown(one, _NOBODY, -1)
        self.victim = folder / "victim"
        self.victim.mkdir()
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(self.victim / "file.sock"))
        for name in ("precious", "file"):
            (self.victim / name).write_text("1\n")
            (self.victim / name).chmod(0o600)
        arguments = (self.way, self.victim, str(_NOBODY))
        swapping = subprocess.Popen(
            [sys.executable, "-ISc", _SWAPPING, *arguments], stdout=subprocess.PIPE
        )
        self.addCleanup(swapping.communicate)
        self.addCleanup(swapping.kill)
        assert swapping.stdout is not None
        swapping.stdout.readline()

    def look(self) -> list[tuple[str, int, int, bytes]]:
        return [
            (one.name, one.stat().st_ino, one.stat().st_mode, one.read_bytes() if one.is_file() else b"")
            for one in sorted(self.victim.iterdir())
        ]  # fmt: skip

    def race(self, step: Callable[[Path], object], name: str) -> None:
        """Take a step again and again, and see that nothing of root's has changed; until it has been taken at all."""
        before = self.look()
        rounds = taken = 0
        while rounds < _ROUNDS or not taken:
            rounds += 1
            with contextlib.suppress(OSError):
                step(self.way / name)
                taken += 1
            with contextlib.suppress(OSError):
                (self.way.with_suffix(".aside") / name).unlink()
        self.assertEqual(self.look(), before)

    def test_steps(self) -> None:
        for step, name in (
            (_bind, "file"), (_bind_and_remove, "file.sock"), (_name_process, "file"),
            (make_token, "token"), (lambda path: os.close(open_log(path, (_NOBODY, _NOBODY))), "log"),
        ):  # fmt: skip
            self.race(step, name)


def _bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        bind(opened, path, 0o666)


def _bind_and_remove(path: Path) -> None:
    _bind(path)
    remove_own_socket(path, file_id(path))


def _name_process(path: Path) -> None:
    write_pid(path, 1)
    remove_pid(path, 1)
