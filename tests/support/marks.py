import os
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.support.examples import has_turn

_FOLDER = Path(__file__).parents[1]

_LONG = ("matchers/", "packaging/", "test_")
"""How those of them begin that take longest, many a minute for a class."""

_LONG_SKIPPED = "takes long, or needs what is rarely there; script/test --long runs it"


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


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file of which nothing runs: that takes longer than hundreds of tests, in each process."""
    if collection_path.suffix not in ("", ".py"):
        return None
    if config.option.markexpr == "not whole":
        return are_all_whole(collection_path) or None
    if config.option.markexpr == "whole":
        return not has_whole(collection_path) or None
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose those that have their turn, and run those of `script/test --all` first, then those of processes: the longest must not begin last."""
    chosen: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        add_marks_of_folders(item)
        name = turn_of(item)
        (chosen if not name or has_turn(name) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen
    for item in filter(is_whole, items):
        if not os.environ.get("TXMUX_LONG") and item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(_LONG_SKIPPED))

    def order(item: pytest.Item) -> tuple[bool, bool, bool]:
        is_long = item.nodeid.removeprefix(f"{_FOLDER.name}/").startswith(_LONG)
        whole = is_whole(item)
        return not whole, not (whole and is_long), item.path.parent.name != "processes"

    items.sort(key=order)
