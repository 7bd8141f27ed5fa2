"""Tests find no service of the machine: neither in this process nor in programs that they start."""

import os
import sys

from tests.cli.support import CommandTestCase
from tests.interop.children import run
from tests.support import forks
from txmux import files


class AloneTests(CommandTestCase):
    def test_none_is_found(self) -> None:
        code, _, err = self.run_main("status")
        answers = [(code, err)]
        for module in ("txmux", "tests.support.alone"):
            done = run(sys.executable, "-m", module, "status")
            answers.append((done.returncode, done.stderr.decode()))
        words = [sys.executable, "-m", "txmux"]
        self.assertTrue(forks.can_fork(words, os.environ), "others take three times as long")
        for code, err in answers:
            self.assertEqual(code, 3, err)
            self.assertIn(f"nor the rules file {files.RULES};", err)
            self.assertNotIn("/run/txmux", err)

    def test_none_is_named(self) -> None:
        names = {"TXMUX_ADMIN", "TXMUX_ADMIN_TOKEN", "XDG_RUNTIME_DIR"}
        self.assertEqual(names & os.environ.keys(), set())
