import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.programs import require_program, run_text
from txmux.cli import COMMANDS, make_parser, names_of_commands
from txmux.detection.registry import installed_matchers
from txmux.rules.reading.sections import TABLES

_ROOT = Path(__file__).parent.parent
_PROGRAM = _ROOT / "docs/manpages.py"


class ManPageTests(SynchronousTestCase):
    folder: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="txmux-man-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run([sys.executable, _PROGRAM, cls.folder], env=environment, check=True)

    def run_program(self, *words: str | Path) -> str:
        command = [require_program(str(words[0])), *words[1:]]
        done = run_text(*command, env={**os.environ, "MANWIDTH": "80", "LC_ALL": "C"}, check=True)
        return done.stdout + done.stderr

    def test_pages(self) -> None:
        names = {path.name for path in self.folder.glob("man1/*")}
        wanted = {"txmux.1", *(f"txmux-{command}.1" for command in names_of_commands())}
        self.assertEqual(names, wanted)
        # `mandoc` finds nothing.
        pages = sorted(self.folder.glob("*/*"))
        self.assertEqual(self.run_program("mandoc", "-T", "lint", *pages), "")
        # Those of rules and matchers have every key with its default, every matcher, and a whole file.
        example = "match = tls sni=www.example.com,*.example.org"
        for page, words in (
            ("man5/txmux-rules.5", {name for table in TABLES.values() for name in table}),
            ("man7/txmux-matchers.7", installed_matchers()),
        ):
            shown = self.run_program("man", "--warnings", "-l", self.folder / page)
            self.assertNotIn("warning", shown)
            for name in words:
                self.assertIn(f"\n       {name}", shown)
            self.assertEqual(example in " ".join(shown.split()), "rules" in page)
        # ``man`` shows them without a warning, with each option and the day of a build that can be repeated.
        drain = self.run_program("man", "--warnings", "-l", self.folder / "man1/txmux-drain.1")
        self.assertNotIn("warning", drain)
        summary = COMMANDS["drain"].rstrip(".")
        one_line = " ".join(drain.split())
        self.assertIn(f"txmux-drain - {summary[0].lower()}{summary[1:]} SYNOPSIS", one_line)
        self.assertIn("txmux drain [-h] [--maintenance | --ready]", drain)
        self.assertIn("2023-11-14", drain)
        whole = self.run_program("man", "--warnings", "-l", self.folder / "man1/txmux.1")
        actions = make_parser()._actions
        (commands,) = (one for one in actions if isinstance(one, argparse._SubParsersAction))
        for command in names_of_commands():
            self.assertIn(f"txmux-{command}(1)", whole)
            self.assertIn(commands.choices[command].description.split()[0], whole)


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class ScriptTests(SynchronousTestCase):
    def test_script_writes_pages_and_completions(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="txmux man "))
        self.addCleanup(shutil.rmtree, folder)
        subprocess.run([_ROOT / "script/man", folder], cwd="/", check=True, timeout=900)
        written = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        some = {"man1/txmux-check.1", "man5/txmux-rules.5", "man7/txmux-matchers.7"}
        self.assertLessEqual(some, written)
        for name in ("txmux", "_txmux", "txmux.fish"):
            self.assertIn("txmux", (folder / "completion" / name).read_text())
