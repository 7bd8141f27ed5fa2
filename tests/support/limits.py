"""Limits of this process, and of those that it starts, which a test changes until it ends."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import SkipTest

from tests.support.undone import Cleans


@contextmanager
def lowered(what: int, most: int, pid: int = 0) -> Iterator[None]:
    """Lower a limit of this process, or of another one, for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def allow_descriptors(test: Cleans, number: int) -> None:
    """Let this many descriptors be open, or more; skip the test where the hard limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not _is_enough(hard, number):
        raise SkipTest(f"the hard limit of open files is {hard}, and this test needs {number}")
    if not _is_enough(soft, number):
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        test.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def _is_enough(limit: int, number: int) -> bool:
    return limit == resource.RLIM_INFINITY or limit >= number
