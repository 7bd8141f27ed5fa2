import difflib
import functools
import gc
import importlib.metadata
import os
import signal
import unittest
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest
from _pytest.unittest import UnitTestCase
from hypothesis.database import DirectoryBasedExampleDatabase
from twisted.trial import _synctest, util

from tests.support import listing
from tests.support.alone import see_no_services
from tests.support.compiled import remove_compiled
from tests.support.endings import allow_endings
from tests.support.jobs import await_jobs
from tests.support.leaks import Guard
from tests.support.marks import (
    is_whole,
    pytest_collection_modifyitems,  # noqa: F401 - a hook
    pytest_ignore_collect,  # noqa: F401 - the same
)
from tests.support.reached import Reached
from tests.support.refusals import RefusedCalls
from txmux.net import watched

_FOLDER = Path(__file__).parent

_LONGEST = 300.0
"""Seconds of a test until it counts as one that hangs: it may be as slow as its machine, and waits longer than for any step."""

_YOUNG = 5_000, 20, 10
"""How much Python lets come until it looks for garbage: few tests make so much that what they have made counts as old.

To look through all that is old takes a third of a second, of which half of the time of the tests went by.
"""

_MEASURED = {
    name: value for name, value in os.environ.items() if name.startswith("COVERAGE_PROCESS_")
}
"""What has coverage look at child processes."""

# Differences are shown whole, however long they are.
unittest.TestCase.maxDiff = None

# A machine that is busy is not a failure; tests of what something costs count steps, or compare times.
# Each run tries other values, in CI, too, where hypothesis would not by itself. What fails is kept, and tried again first.
hypothesis.settings.register_profile(
    "txmux",
    database=DirectoryBasedExampleDatabase(_FOLDER.parent / ".hypothesis/examples"),
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
# Where it has to be quick: `script/test --all` tries more.
hypothesis.settings.register_profile(
    "few", hypothesis.settings.get_profile("txmux"), max_examples=15
)
hypothesis.settings.load_profile("txmux")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="write what is said today into files of cases"
    )


@pytest.fixture
def assert_blessed(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a file with the text that it should have; with ``--bless``, write that."""

    def compare(path: Path, text: str) -> None:
        if request.config.option.bless:
            path.write_text(text)
        before = path.read_text()
        changes = difflib.unified_diff(
            before.splitlines(), text.splitlines(), path.name, "now", n=6
        )
        assert before == text, "\n".join(["--bless writes this:", *changes])

    return compare


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are imported: nearly all of what comes then stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Have each test leave nothing behind."""
    gc.set_threshold(*_YOUNG)
    # pytest looks for that of Twisted at each test, in its files.
    importlib.metadata.version = functools.cache(importlib.metadata.version)
    # pytest looks for fixtures in all that each class inherits: there are none, and that takes a quarter of the time to collect tests.
    UnitTestCase.newinstance = lambda _: None  # type: ignore[method-assign]
    config.pluginmanager.register(listing)
    config.pluginmanager.register(Guard())
    config.pluginmanager.register(RefusedCalls())
    config.pluginmanager.register(Reached())
    config.add_cleanup(allow_endings())
    config.add_cleanup(await_jobs())
    util.DEFAULT_TIMEOUT_DURATION = _LONGEST
    # For which a client waits until files have been read again; a busy machine may not start the thread in it.
    watched._WAIT = _LONGEST
    # Python forgets what it has warned of whenever filters change, as they do for each test; to have each module forget it takes as long
    # as many a test.
    _synctest._setWarningRegistryToNone = lambda _modules: None
    # A shell's background job ignores both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    see_no_services()
    config.add_cleanup(remove_compiled)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Give thrice as many processes as there are cores: tests mostly wait for others."""
    return len(os.sched_getaffinity(0)) * 3 if hasattr(os, "sched_getaffinity") else 2


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have coverage look at child processes only in tests that `script/test` runs, too: it takes half as long again as their start."""
    for name, value in _MEASURED.items():
        if is_whole(item):
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
