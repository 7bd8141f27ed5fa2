from __future__ import annotations

import sys

from tests.cli.support import CommandTestCase
from txmux.cli import COMMANDS
from txmux.cli.completion import SHELLS


class CompletionTests(CommandTestCase):
    """The scripts; that shells take them is told by the tests with real shells."""

    def test_script_of_each_shell_has_all_commands(self) -> None:
        for shell in SHELLS:
            code, script, said = self.run_main("completion", shell)
            self.assertEqual((code, said), (0, ""))
            for command in COMMANDS:
                self.assertIn(command, script)

    def test_unknown_shell_names_the_known_ones(self) -> None:
        code, _, said = self.run_main("completion", "ksh")
        self.assertEqual(code, 2)
        # Versions of Python differ in the quotes.
        self.assertIn("ksh (choose from bash, zsh, fish)", said.replace("'", ""))

    def test_package_is_missing(self) -> None:
        self.patch(sys, "modules", {**sys.modules, "shtab": None})
        code, script, said = self.run_main("completion", "bash")
        self.assertEqual((code, script), (1, ""))
        self.assertIn("pip install 'txmux[completion]'", said)
        self.assertEqual(len(said.splitlines()), 1)
