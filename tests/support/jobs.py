"""Lets what a service does in a thread end with its test: the threads are those of the process, for all tests in it."""

from collections.abc import Callable
from time import monotonic
from typing import Any
from unittest import mock

from twisted.trial import util

from tests.interop.children import PATIENCE
from txmux.net import turns


def await_jobs() -> Callable[[], None]:
    """Wait at the end of each test, and return what ends this: trial would cancel the look at a job, which is no fault of the test."""
    janitor_class: Any = util._Janitor
    clean = janitor_class._cleanPending

    def wait_and_clean(janitor: Any) -> list[str]:
        reactor, until = janitor._getReactor(), monotonic() + PATIENCE
        while any(thread.waiting for thread in turns.threads.values()) and monotonic() < until:
            # As `iterate` does, against which trial warns in tests.
            reactor.runUntilCurrent()
            reactor.doIteration(0.01)
        left: list[str] = clean(janitor)
        return left

    patching = mock.patch.object(janitor_class, "_cleanPending", wait_and_clean)
    patching.start()
    return patching.stop
