"""Descriptors of processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.pidfd import pidfd_open, send_signal


class PidfdTests(SynchronousTestCase):
    """As Python gives them, and as the system does where Python does not."""

    def assert_works(self) -> None:
        """Open a process, have it end by a signal, and see that it is noticed."""
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            opened = pidfd_open(child.pid)
            self.addCleanup(os.close, opened)
            self.assertFalse(os.get_inheritable(opened))
            self.assertEqual(select.select([opened], [], [], 0)[0], [])
            send_signal(opened, signal.SIGKILL)
            self.assertEqual(select.select([opened], [], [], 60)[0], [opened])
            self.assertEqual(child.wait(), -signal.SIGKILL)
        self.assertRaises(ProcessLookupError, send_signal, opened, signal.SIGKILL)
        self.assertRaises(ProcessLookupError, pidfd_open, child.pid)

    def test_python_with(self) -> None:
        """Python has the functions."""
        self.assert_works()

    def test_python_without(self) -> None:
        """Python has none of them, as it may be with that of uv or conda."""
        for module, name in ((os, "pidfd_open"), (signal, "pidfd_send_signal")):
            self.addCleanup(setattr, module, name, getattr(module, name))
            delattr(module, name)
        self.assert_works()
