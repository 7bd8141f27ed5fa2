"""What `tests/conftest.py` does in a run: it lists tests that wait or fail, and fails those that may not be skipped."""

import re
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import run
from tests.support.folders import make_folder

_CONFTEST = "from tests.conftest import pytest_runtest_call, pytest_runtest_logreport\n"
_TESTS = """
import time

def test_computes():
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass

def test_waits():
    for _ in range(20):
        time.sleep(0.001)

def test_waits_and_fails():
    test_waits()
    raise AssertionError("why" + "y" * 1000)
"""

_SKIPPED = """
import pytest, unittest

def test_missing():
    pytest.skip("nginx is not installed")

def test_kernel():
    raise unittest.SkipTest("this kernel has no Landlock")

@pytest.mark.xfail
def test_fails():
    raise AssertionError

class Tests(unittest.TestCase):
    @unittest.skip("needs a right")
    def test_right(self):
        pass
"""


class ListingTests(SynchronousTestCase):
    def test_waiting(self) -> None:
        """A test waits if it does so by the system's count, however long it takes."""
        folder = make_folder(self)
        (folder / "conftest.py").write_text(_CONFTEST)
        (folder / "test_some.py").write_text(_TESTS)
        listed, failed = folder / "listed", folder / "failed"
        clean = ("env", "-u", "PYTEST_ADDOPTS", "-u", "PYTEST_XDIST_WORKER")
        settings = (
            *(f"PYTHONPATH={Path(__file__).parents[1]}", f"TXMUX_LIST_WAITING={listed}"),
            f"TXMUX_LIST_FAILED={failed}",
        )
        pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
        done = run(*clean, *settings, *pytest, "--rootdir", folder, folder)
        self.assertEqual(done.returncode, 1, done)
        self.assertEqual(
            listed.read_text().splitlines(),
            ["test_some.py::test_waits", "test_some.py::test_waits_and_fails"],
        )
        name, *lines = failed.read_text().splitlines()
        self.assertEqual(name, "test_some.py::test_waits_and_fails")
        self.assertRegex("\n".join(lines), "\n    E +AssertionError: why+\n")
        self.assertLess(max(map(len, lines)), 210)

    def test_skipped(self) -> None:
        """Where all is asked for, only the reasons in the list are good ones."""
        folder = make_folder(self)
        (folder / "conftest.py").write_text(
            "from tests.conftest import pytest_runtest_makereport\n"
        )
        (folder / "test_some.py").write_text(_SKIPPED)
        for requires, failed in (("1", ["test_missing", "Tests::test_right"]), ("", [])):
            pytest = (sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider")
            done = run(
                *("env", "-u", "PYTEST_ADDOPTS", "-u", "PYTEST_XDIST_WORKER"),
                *(f"PYTHONPATH={Path(__file__).parents[1]}", f"TXMUX_REQUIRE_SERVERS={requires}"),
                *(*pytest, "--rootdir", folder, folder),
            )
            said = done.stdout.decode()
            self.assertEqual(re.findall(r"FAILED \S*test_some.py::(\S+)", said), failed)
            self.assertEqual(said.count("not in tests/skips.txt: needs a right"), len(failed[1:]))
