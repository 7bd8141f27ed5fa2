"""The order in which the reference puts all matchers on one port."""

from __future__ import annotations

import functools
from pathlib import Path

__all__ = ["documented_order"]

_PAGE = Path(__file__).parent.parent.parent / "docs/reference/matchers.md"


@functools.cache
def documented_order() -> tuple[str, ...]:
    """Read the names of the matchers."""
    section = _PAGE.read_text().partition("\n## Ambiguities\n")[2]
    return tuple(section.partition("```text\n")[2].partition("```")[0].split())
