"""The file that names the process."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.processes.supervisor.pidfile import PidFile, PidFileError


class PidFileTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.path = self.folder / "txmux.pid"

    def test_life(self) -> None:
        # It has this process's ID, takes the place of another one's, and is gone at the end; nothing else is left.
        self.path.write_text("1\n")
        file = PidFile(self.path)
        file.write()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
        self.assertEqual(list(self.folder.iterdir()), [self.path])
        for _ in range(2):
            file.remove()
            self.assertEqual(list(self.folder.iterdir()), [])
        # One that somebody has removed is written again; one of another process stays.
        file.write()
        self.path.unlink()
        file.write_again()
        self.assertEqual(self.path.read_text(), f"{os.getpid()}\n")
        self.path.write_text("1\n")
        file.write_again()
        file.remove()
        self.assertEqual(self.path.read_text(), "1\n")

    def test_error_names_the_file(self) -> None:
        file = PidFile(self.folder / "none" / "txmux.pid")
        self.assertRaisesRegex(
            PidFileError, r"--pidfile /.*/none/txmux\.pid: No such file", file.write
        )
        self.path.mkdir()
        self.assertRaises(PidFileError, PidFile(self.path).write)
        self.assertEqual(list(self.folder.iterdir()), [self.path])
