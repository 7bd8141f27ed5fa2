"""Tests that fail and pass again, as `.ci/run` treats them."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

_PROJECT = Path(__file__).parent.parent
_ONCE = """
from pathlib import Path

def test_good():
    pass

def test_once():
    ran = Path(__file__).with_name("ran")
    if not ran.exists():
        ran.touch()
        raise AssertionError("the first time")
"""


class FlakyTests(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def _run(self, tests: str, before: str = "true") -> subprocess.CompletedProcess[str]:
        (self.folder / "test_it.py").write_text(tests)
        pytest = f"'{sys.executable}' -m pytest -q --rootdir '{self.folder}' '{self.folder}'"
        script = f"""
            set -euo pipefail
            source script/lib/flaky
            run_all() {{ {before}; {pytest} -o cache_dir='{self.folder}/cache'; }}
            run_twice '{self.folder}/cache' run_all {pytest}
            name_flaky '{self.folder}'/*.flaky
        """
        return subprocess.run(
            ["bash", "-c", script],
            cwd=_PROJECT,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_passes_again(self) -> None:
        done = self._run(_ONCE)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("\n1 passed in", done.stdout)
        self.assertRegex(done.stderr, "flaky: .*\n.*test_it.py::test_once\n$")

    def test_passes(self) -> None:
        done = self._run("def test_good(): pass")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_fails_again(self) -> None:
        done = self._run("def test_bad(): assert False")
        self.assertEqual(done.returncode, 1, done)
        self.assertNotIn("flaky", done.stderr)

    def test_fails_much(self) -> None:
        tests = "import pytest\n@pytest.mark.parametrize('n', range(11))\ndef test_bad(n): assert 0"
        done = self._run(tests)
        self.assertEqual((done.returncode, done.stderr), (1, ""))

    def test_linter_fails(self) -> None:
        done = self._run(_ONCE, before="return 1")
        self.assertEqual((done.returncode, done.stderr), (1, ""))

    def test_broken(self) -> None:
        done = self._run("import this_is_not_there")
        self.assertEqual(done.returncode, 2, done)
