"""Limits of this process, and of those that it starts, which a test changes until it ends."""

import resource
from unittest import SkipTest

from tests.support.undone import Cleans


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
