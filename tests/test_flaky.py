"""Tests that fail and pass again, and further Pythons, as `.ci/run` treats them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from tests.programs import run_text

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
_THRICE = """import pytest
@pytest.mark.parametrize("number", range(3))
def test_once(number):"""
_ELEVEN = """import pytest
@pytest.mark.parametrize("n", range(11))
def test_bad(n): assert 0
"""
_LISTS = "from tests.support.listing import pytest_runtest_logreport\n"


class FlakyTests(unittest.TestCase):
    folder: Path

    def _run(self, tests: str, before: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "test_it.py").write_text(tests)
        pytest = f"'{sys.executable}' -m pytest -q --rootdir '{self.folder}' '{self.folder}'"
        script = f"""
            set -euo pipefail
            source '{_PROJECT}/script/lib/flaky'
            TXMUX_FLAKY='{self.folder}/flaky.txt'
            trap "name_failed '{self.folder}'/*.failures" EXIT
            run_all() {{ {before}; {pytest} -o cache_dir='{self.folder}/cache'; }}
            run_twice '{self.folder}/cache' run_all {pytest}
            name_flaky '{self.folder}'/*.flaky
        """
        kept = {name: os.environ[name] for name in os.environ if name != "PYTEST_XDIST_WORKER"}
        own = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(_PROJECT)}
        # pytest names tests from its root, where it runs.
        return run_text("bash", "-c", script, cwd=self.folder, env=kept | own)

    def test_runs(self) -> None:
        """What passes again is named, unless too much does; what fails again is told, with how it ended."""
        thrice = _ONCE.replace("def test_once():", _THRICE).replace('"ran"', 'f"ran-{number}"')
        told = r"test_it.py::test_bad\n(    .*\n)*    E +assert False\n(    .*\n)*$"
        for what, tests, status, out, err in (
            ("passes again", _ONCE, 0, "\n1 passed in", r"flaky: 1 .*\n.*test_it.py::test_once\n$"),
            ("too many pass again", thrice, 1, "\n3 passed in",
             r"flaky: 3 .*\n(.*test_once\[\d\]\n){3}3 flaky tests fail a run\n$"),
            ("passes", "def test_good(): pass", 0, "", r"\A\Z"),
            ("fails again", "def test_bad(): assert False", 1, "", rf"\A(?![\s\S]*flaky)(.*\n)*failed:\n{told}"),
            ("fails much", _ELEVEN, 1, "", r"\A\Z"),
            ("the linter fails", _ONCE, 1, "", r"\A\Z"),
            ("cannot be imported", "import this_is_not_there", 2, "", r"\A"),
        ):  # fmt: skip
            with self.subTest(what), tempfile.TemporaryDirectory() as folder:
                self.folder = Path(folder)
                if what == "fails again":
                    (self.folder / "conftest.py").write_text(_LISTS)
                done = self._run(tests, "return 1" if what == "the linter fails" else "true")
                self.assertEqual(done.returncode, status, done)
                self.assertIn(out, done.stdout)
                self.assertRegex(done.stderr, err)
                if what == "passes again":
                    named = (self.folder / "flaky.txt").read_text()
                    self.assertRegex(named, "^1 flaky\n.*test_it.py::test_once\n$")

    def test_tests_that_scripts_name_are_there(self) -> None:
        """One that has moved away ends a run of others in which nothing runs."""
        scripts = [_PROJECT / ".ci/run", *(_PROJECT / "script").rglob("*")]
        texts = (one.read_text() for one in scripts if one.is_file() and one.suffix != ".pyc")
        words = {word for text in texts for word in re.findall(r"\btests/[\w{},./*]+", text)}
        self.assertTrue(any("{" in word for word in words), words)
        command = ["bash", "-c", f"printf '%s\\n' {' '.join(sorted(words))}"]
        paths = run_text(*command, check=True).stdout.split()
        self.assertEqual([path for path in paths if not any(_PROJECT.glob(f"{path}*"))], [])


def _find(name: str) -> str:
    path = shutil.which(name)
    assert path
    return path


class OtherPythonsTests(unittest.TestCase):
    """Which further Pythons `.ci/run` tries, and until when."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name, version in (
            ("bin/python3.11", 11), ("bin/python3.12", 12), ("bin/python3.13", None),
            (".pyenv/versions/3.13.0/bin/python", 13), (".pyenv/versions/3.9.18/bin/python", 9),
        ):  # fmt: skip
            python = self.folder / name
            python.parent.mkdir(parents=True, exist_ok=True)
            python.write_text(
                f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 127\n"
            )
            python.chmod(0o755)
        for name in ("rm", "setpriv"):  # no Python of this machine is there
            (self.folder / "bin" / name).symlink_to(_find(name))
        self.folder.chmod(0o755)
        self.new = f"{self.folder}/.pyenv/versions/3.13.0/bin/python"
        self.old = f"{self.folder}/bin/python3.12"

    def said(self, command: str) -> list[str]:
        script = f"""
            exec 2>&1
            set -euo pipefail
            source script/lib/flaky
            source script/lib/pythons
            test_other() {{ echo "$python"; [[ $python != "${{broken:-}}" ]]; }}
            {command}
        """
        paths = {"HOME": str(self.folder), "PATH": f"{self.folder}/bin"}
        env = {**paths, "PYTHON": "python3.11"}
        done = run_text(_find("bash"), "-c", script, cwd=_PROJECT, env=env)
        return [*done.stdout.splitlines(), str(done.returncode)]

    def test_time(self) -> None:
        # Those that there are, be they pyenv's, but for the one of all other tests.
        self.assertEqual(self.said("other_pythons"), [self.new, self.old, "0"])
        # None begins for which there is no time; all begin while there is.
        run = f"test_other_pythons {self.folder} 300 900"
        self.assertEqual(self.said(f"SECONDS=100; {run}"), ["13", self.new, "12", self.old, "0"])
        late = self.said(f"SECONDS=700; {run}")
        self.assertEqual((len(late), late[-1]), (3, "0"))
        for line, version, python in zip(late, (13, 12), (self.new, self.old), strict=False):
            self.assertIn(f"no time for {version}: try PYTHON={python} script/test", line)
        # One that fails ends it.
        run = f"broken={self.new}; test_other_pythons {self.folder} 0 900"
        self.assertEqual(self.said(run), ["13", self.new, "1"])

    def test_not_for_all_users(self) -> None:
        """Tests have other users run it, where root runs them."""
        if os.geteuid():
            raise unittest.SkipTest("needs root")
        self.folder.chmod(0o700)
        said = [f"{python} is not for all users, as tests want" for python in (self.new, self.old)]
        self.assertEqual(self.said("other_pythons"), [*said, "0"])
