"""SECURITY.md names a test for what it says, and each of them exists."""

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

_ROOT = Path(__file__).parents[1]
_TEXT = (_ROOT / "SECURITY.md").read_text()
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?(?:::(\w+))?`")
_UNTESTED = 3
"""Cells that only say what is possible by what the kernel leaves to a worker."""


def _rows(heading: str) -> list[list[str]]:
    section = _TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


class SecurityTests(SynchronousTestCase):
    def test_every_test_exists(self) -> None:
        named = _NAMED.findall(_TEXT)
        self.assertGreater(len(named), 50)
        self.assertEqual(len(named), _TEXT.count("`tests"))
        paths = {file for file, *_ in named}
        files = {file: ast.parse((_ROOT / file).read_text()).body for file in paths}
        for file, name, method in named:
            classes = {node.name: node for node in files[file] if isinstance(node, ast.ClassDef)}
            if name:
                self.assertIn(name, classes, file)
            if method:
                methods = [getattr(node, "name", "") for node in classes[name].body]
                self.assertIn(method, methods, f"{file}::{name}")

    def test_every_cell_has_its_test(self) -> None:
        without = 0
        for who, can, cannot in _rows("Who can do what"):
            self.assertRegex(cannot, _NAMED, who)
            without += not _NAMED.search(can)
        self.assertLessEqual(without, _UNTESTED)
        for author, *cells in _rows("What authors of rules can do to others"):
            self.assertEqual(len(cells), 6, author)
            for cell in cells:
                self.assertRegex(cell, _NAMED, author)
        for place, *_, tests in _rows("What is decided by is what is done"):
            self.assertRegex(tests, _NAMED, place)
