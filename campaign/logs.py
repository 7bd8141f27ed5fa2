"""What a service must never write, whatever happens to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.interop.children import Child

_BAD = re.compile(
    r"#critical\]|^\S+Z critical |Traceback \(most recent call last\)|Unhandled |the sandbox has refused "
)
_MOST = 30


def bad_lines(text: str) -> list[str]:
    """Give the lines of a log of level critical, those in which a traceback begins, and system calls that a sandbox has refused."""
    return [f"the log has: {line.strip()}" for line in text.splitlines() if _BAD.search(line)][
        :_MOST
    ]


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collect such lines of all services that are started meanwhile; gives the list, which grows."""
    found: list[str] = []

    def look(line: str) -> None:
        if len(found) < _MOST:
            found.extend(bad_lines(line))

    Child.lookers.append(look)
    try:
        yield found
    finally:
        Child.lookers.remove(look)
