"""What holds for all tests, and which of them only `script/test --all` runs."""

from __future__ import annotations

import unittest
from pathlib import Path

import hypothesis
import pytest

_FOLDER = Path(__file__).parent

WHOLE = (
    "interop/",
    "service/test_privileges.py",
    "test_benchmarks.py::RunTests",
    "test_examples.py",
    "test_packaging.py",
    "test_plugin_example.py",
    "test_reactors.py",
    "test_soak.py",
)
"""Tests that need root or a real server, or that run the whole of what is installed; all others run in `script/test`."""

# Differences are shown whole, however long they are.
unittest.TestCase.maxDiff = None

# A machine that is busy is not a failure; tests of what something costs count steps, or compare times.
hypothesis.settings.register_profile(
    "txmux", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("txmux")


def is_whole(item: pytest.Item) -> bool:
    """Tell whether only `script/test --all` runs a test."""
    return item.nodeid.removeprefix(f"{_FOLDER.name}/").startswith(WHOLE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests, and run them first: the longest must not begin last."""
    for item in filter(is_whole, items):
        item.add_marker(pytest.mark.whole)
    items.sort(key=is_whole, reverse=True)
