"""The file that names the process."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import make_folder
from txmux.processes.supervisor.pidfile import PidFile, PidFileError


class PidFileTest(SynchronousTestCase):
    def test_life(self) -> None:
        folder = make_folder(self)
        path = folder / "txmux.pid"
        # It has this process's ID, takes the place of another one's, and is gone at the end; nothing else is left.
        path.write_text("1\n")
        file = PidFile(path)
        file.write()
        self.assertEqual(path.read_text(), f"{os.getpid()}\n")
        self.assertEqual(list(folder.iterdir()), [path])
        for _ in range(2):
            file.remove()
            self.assertEqual(list(folder.iterdir()), [])
        # One that somebody has removed is written again; one of another process stays.
        file.write()
        path.unlink()
        file.write_again()
        self.assertEqual(path.read_text(), f"{os.getpid()}\n")
        path.write_text("1\n")
        file.write_again()
        file.remove()
        self.assertEqual(path.read_text(), "1\n")
        # An error names the file.
        path.unlink()
        file = PidFile(folder / "none" / "txmux.pid")
        why = r"--pidfile /.*/none/txmux\.pid: No such file"
        self.assertRaisesRegex(PidFileError, why, file.write)
        path.mkdir()
        self.assertRaises(PidFileError, PidFile(path).write)
        self.assertEqual(list(folder.iterdir()), [path])
