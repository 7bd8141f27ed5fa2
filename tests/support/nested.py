"""Runs of tests that a test writes."""

import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import run
from tests.support.folders import make_folder

_CHECKOUT = Path(__file__).parents[2]


def run_tests(
    test: SynchronousTestCase, conftest: str, tests: str, *settings: str, words: Sequence[str] = ()
) -> tuple[int, str]:
    folder = make_folder(test)
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_some.py").write_text(tests)
    environment = ["-u", "PYTEST_ADDOPTS", "-u", "PYTEST_XDIST_WORKER", f"PYTHONPATH={_CHECKOUT}"]
    environment += ["PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", *settings]
    options = ("-q", "-rf", "--no-header", "-p", "no:cacheprovider", "--rootdir", folder)
    done = run("env", *environment, sys.executable, "-m", "pytest", *options, *words, folder)
    return done.returncode, done.stdout.decode()
