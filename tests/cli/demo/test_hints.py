"""What the demo tells its user to try."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.cli.demo.hints import examples, hints


class HintsTests(SynchronousTestCase):
    """`hints`: short, aligned, and with the port that is really used."""

    def test_commands(self) -> None:
        """Every command is there with the port."""
        text = hints(12345)
        for command, seen in examples(12345):
            self.assertIn("12345", command)
            self.assertIn(command, text)
            self.assertIn(seen, text)
        for program in ("curl", "redis-cli", "ssh", "nc"):
            self.assertIn(f"  {program} ", text)

    def test_layout(self) -> None:
        """What is seen stands in one column, as a comment for the shell; no line is too long."""
        lines = [line for line in hints(65535).splitlines() if "  #" in line]
        self.assertEqual(len(lines), len(examples(65535)))
        self.assertEqual(len({line.index("  # ") for line in lines}), 1)
        self.assertLessEqual(max(map(len, hints(65535).splitlines())), 100)

    def test_any_terminal(self) -> None:
        """It can be printed in any locale."""
        self.assertTrue(hints(1).isascii())
