"""What `tests/support/listing.py` does in a run: it lists tests that wait or fail, and fails those that may not be skipped."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from tests.support.nested import run_tests

_CONFTEST = "from tests.support.listing import pytest_runtest_call, pytest_runtest_logreport\n"
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
        listed, failed = folder / "listed", folder / "failed"
        settings = (f"TXMUX_LIST_WAITING={listed}", f"TXMUX_LIST_FAILED={failed}")
        self.assertEqual(run_tests(self, _CONFTEST, _TESTS, *settings)[0], 1)
        wanted = ["test_some.py::test_waits", "test_some.py::test_waits_and_fails"]
        self.assertEqual(listed.read_text().splitlines(), wanted)
        name, *lines = failed.read_text().splitlines()
        self.assertEqual(name, "test_some.py::test_waits_and_fails")
        self.assertRegex("\n".join(lines), "\n    E +AssertionError: why+\n")
        self.assertLess(max(map(len, lines)), 210)

    def test_skipped(self) -> None:
        """Where all is asked for, only the reasons in the list are good ones."""
        conftest = "from tests.support.listing import pytest_runtest_makereport\n"
        for requires, failed in (("1", ["test_missing", "Tests::test_right"]), ("", [])):
            _, said = run_tests(self, conftest, _SKIPPED, f"TXMUX_REQUIRE_SERVERS={requires}")
            self.assertEqual(re.findall(r"FAILED \S*test_some.py::(\S+)", said), failed)
            self.assertEqual("not in tests/skips.txt: needs a right" in said, bool(failed))
