"""The marks `whole` and `by_turns`: beside a test, or in the ``__init__.py`` of a folder for all tests there."""

import re
import sys
from functools import cache
from pathlib import Path

import pytest


def add_marks_of_folders(item: pytest.Item) -> None:
    name: str = item.module.__package__ if isinstance(item, pytest.Function) else ""
    while name:
        marks = getattr(sys.modules[name], "pytestmark", [])
        for mark in marks if isinstance(marks, list) else [marks]:
            if item.get_closest_marker(mark.name) is None:
                item.add_marker(mark)
        name = name.rpartition(".")[0]


def is_whole(item: pytest.Item) -> bool:
    """Return whether only `script/test --all` runs a test."""
    return item.get_closest_marker("whole") is not None


def turn_of(item: pytest.Item) -> str:
    """Return the name by which a test has its turn, its own or that of its class; empty if it runs for each commit."""
    mark = item.get_closest_marker("by_turns")
    if mark is None:
        return ""
    return item.nodeid if mark.kwargs.get("each") else item.nodeid.rpartition("::")[0]


@cache
def are_all_whole(path: Path) -> bool:
    """Return whether a file or a folder has the mark for all of its tests, without importing it."""
    file = path / "__init__.py" if path.is_dir() else path
    marked = file.exists() and re.search(r"(?m)^pytestmark = .*\bmark\.whole\b", file.read_text())
    return bool(marked) or ((path.parent / "__init__.py").exists() and are_all_whole(path.parent))


def has_whole(path: Path) -> bool:
    """Return whether some tests of a file have it, or may have; a folder may."""
    return path.is_dir() or are_all_whole(path) or "pytest.mark.whole" in path.read_text()
