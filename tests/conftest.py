import difflib
import functools
import gc
import importlib.metadata
import os
import re
import resource
import signal
import unittest
from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest
from _pytest.unittest import UnitTestCase
from hypothesis.database import DirectoryBasedExampleDatabase
from twisted.trial import _synctest, util

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

_WAITS = 10
"""How often a test has to wait at least before it counts as one that does; to write a file may take a few."""

_LONGEST = 300.0
"""Seconds of a test until it counts as one that hangs: it may be as slow as its machine, and waits longer than for any step."""

_YOUNG = 5_000, 20, 10
"""How much Python lets come until it looks for garbage: few tests make so much that what they have made counts as old.

To look through all that is old takes a third of a second, of which half of the time of the tests went by.
"""

_FAILED = os.environ.pop("TXMUX_LIST_FAILED", "")
"""Where failures are listed, but for those that a test wants, in a run of its own."""

_LAST_LINES, _WIDTH = 16, 200
"""What is listed of a failure."""

_REQUIRES = bool(os.environ.get("TXMUX_REQUIRE_SERVERS"))
"""Whether nothing may be missing: a test is skipped for one of the reasons in skips.txt, or fails."""

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Count how often a test has to wait: for processes, threads and time. One that only computes never does, however busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    try:
        return (yield)
    finally:
        waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
        item.user_properties.append(("waits", waits))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Give thrice as many processes as there are cores: tests mostly wait for others."""
    return len(os.sched_getaffinity(0)) * 3 if hasattr(os, "sched_getaffinity") else 2


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """List what is skipped where ``TXMUX_LIST_SKIPPED`` says: what needs rights or programs, for a run that has them.

    Where ``TXMUX_LIST_WAITING`` says, list what waits, and so may depend on how slow the machine is, for a run that is slow.
    Where ``TXMUX_LIST_FAILED`` says, list what fails, with the last lines of what is said about it.
    """
    pytest_collectreport(report)
    waits = dict(report.user_properties).get("waits", 0) if report.when == "call" else 0
    for name, is_listed in (
        ("TXMUX_LIST_SKIPPED", report.skipped),
        ("TXMUX_LIST_WAITING", isinstance(waits, int) and waits >= _WAITS),
    ):
        if is_listed and name in os.environ and not _is_worker():
            with Path(os.environ[name]).open("a") as file:
                file.write(f"{report.nodeid}\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped while nothing may be."""
    report = yield
    if _REQUIRES and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not re.fullmatch(_allowed_reasons(), reason):
            report.outcome = "failed"
            report.longrepr = f"skipped for a reason that is not in tests/skips.txt: {reason}"
    return report


def _allowed_reasons() -> str:
    lines = (_FOLDER / "skips.txt").read_text().splitlines()
    return "|".join(line for line in lines if not line.startswith("#"))


def pytest_collectreport(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.failed and _FAILED and not _is_worker():
        lines = report.longreprtext.splitlines()[-_LAST_LINES:]
        with Path(_FAILED).open("a") as file:
            file.writelines([f"{report.nodeid}\n", *(f"    {line[:_WIDTH]}\n" for line in lines)])


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have coverage look at child processes only in tests that `script/test` runs, too: it takes half as long again as their start."""
    for name, value in _MEASURED.items():
        if is_whole(item):
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
