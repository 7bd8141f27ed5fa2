"""The supervisor's side of the process of which workers are forked."""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.peers import reactor
from txmux.processes import forking
from txmux.processes.workers import starting
from txmux.processes.workers.starting import Starter, installed_code, start_early


class StartingTest(SynchronousTestCase):
    """Without any worker."""

    def test_halted(self) -> None:
        """One that is halted when the service stops is ended."""
        self.patch(forking, "_PATIENCE", 0.1)
        child = start_early()
        os.kill(child.pid, signal.SIGSTOP)
        Starter(reactor, child, lambda: None).close()
        self.assertRaises(ProcessLookupError, os.kill, child.pid, 0)

    def test_installed_code(self) -> None:
        """What is installed is other code when a file has changed or is there; one that vanishes meanwhile is no error."""
        folder = make_folder(self)
        self.patch(starting, "__file__", str(folder / "processes/workers/starting.py"))
        codes = [installed_code()]
        file = folder / "module.py"
        file.symlink_to("nowhere")  # it has a name, but cannot be looked at
        codes.append(installed_code())
        file.unlink()
        for text in ("one", "other"):
            file.write_text(text)
            codes.append(installed_code())
            self.assertEqual(installed_code(), codes[-1])
        self.assertEqual(len({*codes}), len(codes))
