"""What a run of the tests lists: those that wait, which `.ci/run` runs again slowly, and those that fail, with which it ends."""

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
