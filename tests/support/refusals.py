"""A system call that the sandbox of a service refuses fails the test that has run it."""

import sys
from collections.abc import Generator

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

_TEXT = "the sandbox has refused"

_refused: list[str] = []


def _look(line: str) -> None:
    if _TEXT in line:
        _refused.append(line)


@provider(ILogObserver)
def _observe(event: LogEvent) -> None:
    if _TEXT in (event.get("log_format") or ""):  # of a service in this process
        _refused.append(formatEvent(event) + "\n")


def expected_refusals() -> list[str]:
    """Return what has been refused until now, which does not fail the test."""
    found = _refused[:]
    _refused.clear()
    return found


class RefusedCalls:
    """Looks at what services write that tests start: a plugin of pytest."""

    def __init__(self) -> None:
        globalLogPublisher.addObserver(_observe)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        children = sys.modules.get("tests.interop.children")
        if children is not None and _look not in children.Child.lookers:
            children.Child.lookers.append(_look)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        result = yield
        if found := expected_refusals():
            pytest.fail(
                "add these calls to txmux/processes/worker/calls.py, or do without:\n"
                + "".join(found),
                pytrace=False,
            )
        return result
