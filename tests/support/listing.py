"""Lists tests that wait, fail or are skipped, for other runs, and fails those that may not be skipped: hooks of pytest."""

import os
import re
import resource
from collections.abc import Generator
from pathlib import Path

import pytest

_SKIPS = Path(__file__).parents[1] / "skips.txt"

_WAITS = 10
"""How often a test has to wait at least before it counts as one that does; to write a file may take a few."""

_FAILED = os.environ.pop("TXMUX_LIST_FAILED", "")
"""Where failures are listed, but for those that a test wants, in a run of its own."""

_LAST_LINES, _WIDTH = 16, 200
"""What is listed of a failure."""

_REQUIRES = bool(os.environ.get("TXMUX_REQUIRE_SERVERS"))
"""Whether nothing may be missing: a test is skipped for one of the reasons in skips.txt, or fails."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Count how often a test has to wait: for processes, threads and time. One that only computes never does, however busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    try:
        return (yield)
    finally:
        waits = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
        item.user_properties.append(("waits", waits))


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
        lines = _SKIPS.read_text().splitlines()
        if not any(re.fullmatch(line, reason) for line in lines if not line.startswith("#")):
            report.outcome = "failed"
            report.longrepr = f"skipped for a reason that is not in tests/skips.txt: {reason}"
    return report


def pytest_collectreport(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.failed and _FAILED and not _is_worker():
        lines = report.longreprtext.splitlines()[-_LAST_LINES:]
        with Path(_FAILED).open("a") as file:
            file.writelines([f"{report.nodeid}\n", *(f"    {line[:_WIDTH]}\n" for line in lines)])


def _is_worker() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ
